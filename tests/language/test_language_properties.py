"""Laws that hold for any definition and any data."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from language_machines import MAP_PROCESSOR, SCOPE, parsed, state

from daemon.language import (
    Choice,
    Definition,
    Fail,
    Fault,
    InvalidDefinition,
    Machine,
    Map,
    Parallel,
    Pass,
    State,
    StateError,
    Task,
    Wait,
    arguments,
    choose,
    failure,
    map_concurrency,
    map_item_input,
    map_items,
    output,
    parse_definition,
    pass_result,
    task_target,
    task_times,
    wait_until,
)
from daemon.language.errors import Failed, Malformed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonpath import compile_path
from daemon.language.source import load
from daemon.language.values import same
from enginekit.messages.json import JSON
from tests.hypothesis_profiles import examples

NAMES = some.sampled_from(["a", "b", "c", "items", "x y", "$", "é"])
VALUES: some.SearchStrategy[JSON] = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-5, 5)
    | some.floats(-2, 2)
    | some.sampled_from(["", "a", "2020-01-01T00:00:00Z", "{}"]),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)

ORDER: dict[str, Any] = {
    "StartAt": "Reserve",
    "Comment": "an order",
    "TimeoutSeconds": 600,
    "States": {
        "Reserve": {
            "Type": "Task", "Resource": "http", "InputPath": "$.a", "Parameters": {
                "id.$": "$.b", "key.$": "$$.Execution.Id", "lines.$": "$.items[?(@.a > 1 && @.b != 'x')].c",
                "text.$": "States.Format('{}: {}', $.a, States.ArrayLength($.items))", "fixed": [1, {"n.$": "$..a"}]},
            "ResultSelector": {"code.$": "$.a"}, "ResultPath": "$.c.items", "OutputPath": "$",
            "Retry": [{"ErrorEquals": ["Http.503", "States.Timeout"], "MaxAttempts": 2, "BackoffRate": 1.5}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Sorry"}],
            "TimeoutSecondsPath": "$.b", "Next": "Big?"},
        "Big?": {"Type": "Choice", "Choices": [
            {"Variable": "$.a", "NumericGreaterThan": 2, "Next": "Hold"},
            {"And": [{"Variable": "$.b", "IsPresent": True}, {"Not": {"Variable": "$.b", "StringMatches": "a*b"}}],
             "Next": "Lines"},
            {"Or": [{"Variable": "$.c", "TimestampLessThanPath": "$.b"}, {"Variable": "$.a", "IsNull": True}],
             "Next": "Lines"}], "Default": "Notify"},
        "Hold": {"Type": "Wait", "SecondsPath": "$.a", "Next": "Lines"},
        "Lines": {"Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 2,
                  "ItemSelector": {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value"}, "ItemProcessor": {
                      "ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Line",
                      "States": {"Line": {"Type": "Pass", "Result": {"a": 1}, "ResultPath": "$.a[0]", "End": True}}},
                  "Next": "Notify"},
        "Notify": {"Type": "Parallel", "Branches": [
            {"StartAt": "Mail", "States": {"Mail": {"Type": "Task", "Resource": "activity:mail", "End": True}}},
            {"StartAt": "Until", "States": {
                "Until": {"Type": "Wait", "Timestamp": "2030-01-01T00:00:00Z", "Next": "Ok"},
                "Ok": {"Type": "Succeed"}}}], "ResultPath": None, "End": True},
        "Sorry": {"Type": "Fail", "ErrorPath": "$.error.Error", "CausePath": "States.JsonToString($)"},
    },
}  # fmt: skip


def machines(machine: Machine) -> list[Machine]:
    """The machine and all those inside it."""
    found = [machine]
    for each in machine.states.values():
        inner = each.branches if isinstance(each, Parallel) else (each.processor,) if isinstance(each, Map) else ()
        for one in inner:
            found.extend(machines(one))
    return found


def evaluate_everything(definition: Definition, raw: JSON) -> None:
    """Everything there is to evaluate, each on its own; only StateError may come of it."""
    for machine in machines(definition):
        for each in machine.states.values():
            for evaluation in evaluations(each, raw):
                error = raised(evaluation)
                assert error is None or (error.error.startswith("States.") and error.cause != "")


def raised(evaluation: Callable[[], object]) -> StateError | None:
    """The error of the language that the evaluation ends with, if it does."""
    try:
        evaluation()
    except StateError as error:
        return error
    return None


def read(text: str | bytes) -> Definition | tuple[Fault, ...]:
    """The definition in the text, or its faults."""
    try:
        return parse_definition(text)
    except InvalidDefinition as invalid:
        return invalid.faults


def evaluations(each: State, raw: JSON) -> list[Callable[[], object]]:
    made: list[Callable[[], object]] = [lambda: output(each, raw, raw, SCOPE), lambda: arguments(each, raw, SCOPE)]
    if isinstance(each, Pass):
        made.append(lambda: pass_result(each, raw, SCOPE))
    elif isinstance(each, Choice):
        made.append(lambda: choose(each, raw, SCOPE))
    elif isinstance(each, Wait):
        made.append(lambda: wait_until(each, raw, SCOPE))
    elif isinstance(each, Fail):
        made.append(lambda: failure(each, raw, SCOPE))
    elif isinstance(each, Task):
        made.append(lambda: task_times(each, raw, SCOPE))
        made.append(lambda: task_target(each, arguments(each, raw, SCOPE)))
    elif isinstance(each, Map):
        made.append(lambda: map_items(each, raw, SCOPE))
        made.append(lambda: map_item_input(each, raw, 0, raw, SCOPE))
        made.append(lambda: map_concurrency(each, raw, SCOPE))
    return made


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


PLACES = places(ORDER)[1:]
SPARE: some.SearchStrategy[Any] = some.sampled_from(
    ["$", "$.a", "$.items", "$..a[?(@.b)]", "$.a[0", "$$.Execution", "States.UUID()", "States.Array($.a", "States.ALL",
     "Line", "Reserve", "Nowhere", "Pass", "Map", "JSONata", "2030-01-01T00:00:00Z", 0, -1, 1.5, 10**30, True, None, [],
     {}, [{}], ["E"], {"a.$": "$.b"}, MAP_PROCESSOR]
)  # fmt: skip
CHANGES = some.lists(
    some.tuples(some.sampled_from(PLACES), SPARE | VALUES, some.sampled_from(["put", "drop", "add"])), max_size=4
)


def changed(changes: list[tuple[tuple[Any, ...], Any, str]]) -> dict[str, Any]:
    """The order's definition with some of it replaced, dropped or added to."""
    made = copy.deepcopy(ORDER)
    for path, value, how in changes:
        at: Any = made
        for key in path[:-1]:
            inside = (
                key in at if isinstance(at, dict) else isinstance(at, list) and isinstance(key, int) and key < len(at)
            )
            if not inside:
                break
            at = at[key]
        else:
            key = path[-1]
            if isinstance(at, dict) and how == "put":
                at[key] = value
            elif isinstance(at, dict) and how == "drop":
                at.pop(key, None)
            elif isinstance(at, dict):
                at[str(value)] = at.get(key)
            elif isinstance(at, list) and isinstance(key, int) and key < len(at):
                at[key] = value
    return made


def test_the_order_itself_is_valid() -> None:
    assert parsed(ORDER).warnings == ()


@settings(max_examples=examples(400), deadline=None)
@given(CHANGES, VALUES)
def test_a_changed_definition_is_refused_with_faults_or_runs_to_errors_of_the_language(
    changes: list[tuple[tuple[Any, ...], Any, str]], raw: JSON
) -> None:
    definition = read(json.dumps(changed(changes)))
    if isinstance(definition, tuple):
        assert definition
        assert all(fault.message for fault in definition)
        return
    before = copy.deepcopy(raw)
    evaluate_everything(definition, raw)
    assert raw == before or raw != raw


@settings(max_examples=examples(300), deadline=None)
@given(some.text(max_size=200) | some.binary(max_size=200))
def test_any_text_is_a_definition_or_refused(text: str | bytes) -> None:
    assert read(text) != ()


@settings(max_examples=examples(300), deadline=None)
@given(some.integers(0, 10_000), some.integers(0, 10_000), some.text(max_size=3))
def test_cut_and_spliced_text_is_a_definition_or_refused(start: int, end: int, patch: str) -> None:
    for text in (json.dumps(ORDER, indent=1), yaml.safe_dump(ORDER)):
        assert read(text[: start % len(text)] + patch + text[end % len(text) :]) != ()


@settings(deadline=None)
@given(VALUES)
def test_json_and_yaml_say_the_same(value: JSON) -> None:
    wrapped: JSON = {"value": value}
    assert same(load(json.dumps(wrapped)).value, wrapped)
    assert same(load(yaml.safe_dump(wrapped, allow_unicode=True)).value, wrapped)


PATHS = some.text(alphabet="$@.*[]?()'\",:0129-abx=<>!&|\\ ", max_size=14).map(lambda tail: "$" + tail)


@settings(max_examples=examples(500), deadline=None)
@given(PATHS, VALUES)
def test_any_path_is_compiled_or_refused_and_finds_or_fails(path: str, value: JSON) -> None:
    try:
        compile_path(path).read(value, Evaluation(SCOPE))
    except Malformed as malformed:
        position, reason = malformed.position, malformed.reason
    except Failed as failed:
        position, reason = 1, failed.reason
    else:
        return
    assert reason
    assert 1 <= position <= len(path) + 1


STEPS = some.lists(some.sampled_from([".a", ".b", "['x y']", "[0]", "[1]"]), min_size=1, max_size=4).map("".join)


@settings(deadline=None)
@given(STEPS, VALUES, VALUES)
def test_what_a_result_path_places_is_found_there_again(steps: str, raw: JSON, result: JSON) -> None:
    task = state(Task, {"ResultPath": f"${steps}"})
    before = copy.deepcopy(raw)
    error = raised(lambda: output(task, raw, result, SCOPE))
    assert same(raw, before)
    if error is not None:
        assert (error.error, error.documented) == ("States.ReferencePathConflict", "States.ResultPathMatchFailure")
        return
    made = output(task, raw, result, SCOPE)
    assert compile_path(f"${steps}").read(made, Evaluation(SCOPE)) is result
    again = output(task, made, result, SCOPE)
    assert same(again, made)
    if isinstance(raw, dict) and isinstance(made, dict):
        first = compile_path(f"${steps}").reference
        assert first is not None
        assert all(made[name] is raw[name] for name in raw if name != first[0])


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_null_result_path_keeps_the_input_and_the_root_keeps_the_result(raw: JSON, result: JSON) -> None:
    assert output(state(Task, {"ResultPath": None}), raw, result, SCOPE) is raw
    assert output(state(Task, {"ResultPath": "$"}), raw, result, SCOPE) is result
