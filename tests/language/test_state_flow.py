"""What goes into a state and what comes out: the paths, templates and the fields of each type that work on data."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta

import pytest
from language_machines import CONTEXT, MAP_PROCESSOR, NOW, SCOPE, state

from daemon.language import (
    Fail,
    Map,
    Parallel,
    Pass,
    Scope,
    StateError,
    Succeed,
    Task,
    Wait,
    arguments,
    failure,
    map_concurrency,
    map_item_input,
    map_items,
    output,
    pass_result,
    task_result,
    task_target,
    task_times,
    wait_until,
)
from enginekit.messages.json import JSON

NUMBERS: JSON = {"title": "Numbers to add", "numbers": {"val1": 3, "val2": 4}}


def run_task(fields: dict[str, JSON], raw: JSON, result: JSON) -> JSON:
    """The output of a Task with these fields; the input must be left alone."""
    before = copy.deepcopy(raw)
    made = output(state(Task, fields), raw, result, SCOPE)
    assert raw == before
    return made


def run_pass(fields: dict[str, JSON], raw: JSON) -> JSON:
    """The output of a Pass with these fields; the input must be left alone."""
    before = copy.deepcopy(raw)
    passing = state(Pass, fields)
    made = output(passing, raw, pass_result(passing, raw, SCOPE), SCOPE)
    assert raw == before
    return made


@pytest.mark.parametrize(
    ("fields", "raw", "made"),
    [
        ({}, NUMBERS, NUMBERS),
        ({"InputPath": "$"}, NUMBERS, NUMBERS),
        ({"InputPath": "$.numbers"}, NUMBERS, {"val1": 3, "val2": 4}),
        ({"InputPath": None}, NUMBERS, {}),
        ({"InputPath": "$$.Execution.Input"}, NUMBERS, {"order": 7}),
        ({"InputPath": "$.a[0:2]"}, {"a": [1, 2, 3, 4]}, [1, 2]),
        ({"Parameters": {}}, NUMBERS, {}),
        ({"Parameters": {"fixed": [1, {"a": "$.title"}]}}, NUMBERS, {"fixed": [1, {"a": "$.title"}]}),
        (
            {"Parameters": {"flagged": True, "parts": {"first.$": "$.vals[0]", "last3.$": "$.vals[3:]"}}},
            {"flagged": 7, "vals": [0, 10, 20, 30, 40, 50]},
            {"flagged": True, "parts": {"first": 0, "last3": [30, 40, 50]}},
        ),
        (
            {"InputPath": "$.numbers", "Parameters": {"list": [1, {"v.$": "$.val1"}, [{"w.$": "$.val2"}]]}},
            NUMBERS,
            {"list": [1, {"v": 3}, [{"w": 4}]]},
        ),
        (
            {"Parameters": {"id.$": "$$.Execution.Id", "token.$": "$$.Task.Token"}},
            {},
            {"id": "run-1", "token": "token-1"},
        ),
        ({"Parameters": {"all.$": "$", "context.$": "$$"}}, [1], {"all": [1], "context": CONTEXT}),
        ({"Parameters": {"z": 1, "a.$": "$.title", "m": 2}}, NUMBERS, {"z": 1, "a": "Numbers to add", "m": 2}),
    ],
)
def test_what_a_task_is_given(fields: dict[str, JSON], raw: JSON, made: JSON) -> None:
    before = copy.deepcopy(raw)
    assert arguments(state(Task, fields), raw, SCOPE) == made
    assert arguments(state(Parallel, {**fields, "Branches": [MAP_PROCESSOR]}), raw, SCOPE) == made
    assert raw == before


def test_fields_come_out_in_the_order_they_are_written() -> None:
    made = arguments(state(Task, {"Parameters": {"z": 1, "a.$": "$.title", "m": 2}}), NUMBERS, SCOPE)
    assert list(made) == ["z", "a", "m"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "raw", "result", "made"),
    [
        ({}, NUMBERS, 7, 7),
        ({"ResultPath": "$"}, NUMBERS, 7, 7),
        (
            {"InputPath": "$.numbers", "ResultPath": "$.sum"},
            NUMBERS,
            7,
            {"title": "Numbers to add", "numbers": {"val1": 3, "val2": 4}, "sum": 7},
        ),
        ({"ResultPath": "$.b.greeting"}, {"a": 1}, "Hi!", {"a": 1, "b": {"greeting": "Hi!"}}),
        ({"ResultPath": "$.a"}, {"a": 1, "b": 2}, [1], {"a": [1], "b": 2}),
        ({"ResultPath": "$.a.b.c"}, {"a": {"b": {"c": 1, "d": 2}}}, 3, {"a": {"b": {"c": 3, "d": 2}}}),
        ({"ResultPath": "$.a[1].x"}, {"a": [1, {"y": 2}]}, 3, {"a": [1, {"y": 2, "x": 3}]}),
        ({"ResultPath": "$[0]"}, [1, 2], 3, [3, 2]),
        ({"ResultPath": "$['a b']"}, {}, 3, {"a b": 3}),
        ({"ResultPath": None}, NUMBERS, 7, NUMBERS),
        ({"OutputPath": None}, NUMBERS, 7, {}),
        ({"ResultPath": "$.sum", "OutputPath": "$.sum"}, NUMBERS, 7, 7),
        ({"OutputPath": "$.list[*].n"}, {}, {"list": [{"n": 1}, {"n": 2}]}, [1, 2]),
        ({"OutputPath": "$$.State.Name"}, {}, 7, "X"),
        (
            {"ResultSelector": {"code.$": "$.StatusCode", "by": "us"}},
            {},
            {"StatusCode": 200, "Body": "x"},
            {"code": 200, "by": "us"},
        ),
        (
            {"ResultSelector": {"code.$": "$.StatusCode"}, "ResultPath": "$.http"},
            {"a": 1},
            {"StatusCode": 200},
            {"a": 1, "http": {"code": 200}},
        ),
    ],
)
def test_what_a_task_passes_on(fields: dict[str, JSON], raw: JSON, result: JSON, made: JSON) -> None:
    assert run_task(fields, raw, result) == made


@pytest.mark.parametrize(
    ("fields", "raw", "made"),
    [
        ({}, {"a": 1}, {"a": 1}),
        (
            {"Result": {"x": 0.3}, "ResultPath": "$.coords"},
            {"georefOf": "Home"},
            {"georefOf": "Home", "coords": {"x": 0.3}},
        ),
        ({"Result": {"x.$": "$.a"}}, {"a": 1}, {"x.$": "$.a"}),
        ({"Result": None}, {"a": 1}, None),
        ({"Parameters": {"b.$": "$.a"}}, {"a": 1}, {"b": 1}),
        ({"Parameters": {"b.$": "$.a"}, "ResultPath": "$.c"}, {"a": 1}, {"a": 1, "c": {"b": 1}}),
        ({"InputPath": "$.a", "ResultPath": "$.copy"}, {"a": 1}, {"a": 1, "copy": 1}),
        ({"InputPath": "$.a", "OutputPath": "$.b"}, {"a": {"b": 2}}, 2),
    ],
)
def test_a_pass(fields: dict[str, JSON], raw: JSON, made: JSON) -> None:
    assert run_pass(fields, raw) == made


@pytest.mark.parametrize(
    ("fields", "raw", "error", "cause"),
    [
        (
            {"ResultPath": "$.x"},
            "foo",
            "States.ReferencePathConflict",
            'Unable to apply step "x" to input "foo"',
        ),
        (
            {"ResultPath": "$.a.b"},
            {"a": None},
            "States.ReferencePathConflict",
            'Unable to apply step "b" to input {"a":null}',
        ),
        (
            {"ResultPath": "$.a[1]"},
            {"a": [1]},
            "States.ReferencePathConflict",
            'Unable to apply step "1" to input {"a":[1]}',
        ),
        (
            {"ResultPath": "$.a[0]"},
            {},
            "States.ReferencePathConflict",
            'Unable to apply step "0" to input {}',
        ),
        (
            {"OutputPath": "$.none"},
            {},
            "States.Runtime",
            "Invalid path '$.none' : No results for path: $['none']",
        ),
        (
            {"ResultSelector": {"a": {"b.$": "$.c"}}},
            {},
            "States.Runtime",
            "The JSONPath '$.c' specified for the field 'b.$' could not be found in the input '7'",
        ),
    ],
)
def test_what_cannot_be_passed_on(fields: dict[str, JSON], raw: JSON, error: str, cause: str) -> None:
    with pytest.raises(StateError) as raised:
        run_task(fields, raw, 7)
    assert (raised.value.error, raised.value.cause) == (error, cause)


@pytest.mark.parametrize(
    ("fields", "error", "cause"),
    [
        (
            {"InputPath": "$.none"},
            "States.Runtime",
            "Invalid path '$.none' : No results for path: $['none']",
        ),
        (
            {"Parameters": {"a": [{"b.$": "$.c"}]}},
            "States.Runtime",
            "The JSONPath '$.c' specified for the field 'b.$' could not be found in the input '{}'",
        ),
        (
            {"Parameters": {"b.$": "$$.Nope"}},
            "States.Runtime",
            # The context object is quoted, and its task token is not.
            "The JSONPath '$.Nope' specified for the field 'b.$' could not be found in the input "
            '\'{"Execution":{"Id":"run-1","Input":{"order":7},"Name":"order-7"},'
            '"State":{"Name":"X","EnteredTime":"2026-03-14T01:59:00Z"}}\'',
        ),
    ],
)
def test_what_a_task_cannot_be_given(fields: dict[str, JSON], error: str, cause: str) -> None:
    with pytest.raises(StateError) as raised:
        arguments(state(Task, fields), {}, SCOPE)
    assert (raised.value.error, raised.value.cause) == (error, cause)


def test_what_a_template_made_is_left_alone_when_it_makes_more() -> None:
    task = state(Task, {"Parameters": {"fixed": 1, "v.$": "$.v", "list": [{"w.$": "$.v"}, 2]}})
    made = [arguments(task, {"v": number}, SCOPE) for number in (1, 2)]
    assert made == [{"fixed": 1, "v": number, "list": [{"w": number}, 2]} for number in (1, 2)]


def test_the_context_object_is_built_once_and_only_when_it_is_needed() -> None:
    built: list[int] = []

    def build() -> dict[str, JSON]:
        built.append(1)
        return CONTEXT

    scope = Scope(context=build, random=SCOPE.random, uuid=SCOPE.uuid, now=NOW)
    arguments(state(Task, {"Parameters": {"a.$": "$.title"}}), NUMBERS, scope)
    assert built == []
    arguments(state(Task, {"Parameters": {"a.$": "$$.Execution.Id", "b.$": "$$.Execution.Id"}}), NUMBERS, scope)
    assert built == [1]


def test_a_result_shares_what_it_does_not_change() -> None:
    raw: dict[str, JSON] = {"left": {"deep": [1]}, "right": {"deep": [2]}}
    made = run_task({"ResultPath": "$.left.x"}, raw, 7)
    assert isinstance(made, dict)
    assert made["right"] is raw["right"]


@pytest.mark.parametrize(
    ("fields", "raw", "until"),
    [
        ({"Seconds": 10}, {}, NOW + timedelta(seconds=10)),
        ({"Seconds": 0}, {}, NOW),
        ({"SecondsPath": "$.s"}, {"s": 5}, NOW + timedelta(seconds=5)),
        ({"SecondsPath": "$.s", "InputPath": "$.a"}, {"a": {"s": 5.0}}, NOW + timedelta(seconds=5)),
        ({"SecondsPath": "$$.Execution.Input.order"}, {}, NOW + timedelta(seconds=7)),
        ({"Timestamp": "2016-03-14T01:59:00Z"}, {}, datetime(2016, 3, 14, 1, 59, tzinfo=UTC)),
        (
            {"TimestampPath": "$.t"},
            {"t": "2030-01-01T02:00:00.25+02:00"},
            datetime(2030, 1, 1, 0, 0, 0, 250000, tzinfo=UTC),
        ),
    ],
)
def test_when_a_wait_is_over(fields: dict[str, JSON], raw: JSON, until: datetime) -> None:
    assert wait_until(state(Wait, fields), raw, SCOPE) == until


@pytest.mark.parametrize(
    ("fields", "raw", "cause"),
    [
        ({"SecondsPath": "$.s"}, {}, "The SecondsPath parameter does not reference an input value: $.s"),
        (
            {"SecondsPath": "$.s"},
            {"s": -1},
            "The SecondsPath parameter references a negative value: $.s == -1",
        ),
        (
            {"SecondsPath": "$.s"},
            {"s": True},
            "The SecondsPath parameter cannot be parsed as a long value: $.s == true",
        ),
        (
            {"SecondsPath": "$.s"},
            {"s": 10**12},
            "The SecondsPath parameter references a value greater than 99999999: $.s == 1000000000000",
        ),
        (
            {"TimestampPath": "$.t"},
            {"t": "tomorrow"},
            "The TimestampPath parameter does not reference a valid ISO-8601 extended offset date-time format string: "
            "$.t == tomorrow",
        ),
    ],
)
def test_what_a_wait_cannot_wait_for(fields: dict[str, JSON], raw: JSON, cause: str) -> None:
    with pytest.raises(StateError) as raised:
        wait_until(state(Wait, fields), raw, SCOPE)
    assert (raised.value.error, raised.value.cause) == ("States.Runtime", cause)


def test_what_wait_and_succeed_pass_on() -> None:
    wait = state(Wait, {"Seconds": 1, "InputPath": "$.a", "OutputPath": "$.b"})
    raw: JSON = {"a": {"b": 2}}
    assert output(wait, raw, arguments(wait, raw, SCOPE), SCOPE) == 2
    succeed = state(Succeed, {"InputPath": "$.a", "OutputPath": "$.b"})
    assert output(succeed, raw, arguments(succeed, raw, SCOPE), SCOPE) == 2


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"Error": "ErrorA", "Cause": "Kaiju attack"}, ("ErrorA", "Kaiju attack")),
        ({}, ("", "")),
        ({"ErrorPath": "$.error", "CausePath": "$.cause"}, ("E", "because")),
        ({"CausePath": "States.Format('{}: {}', $.error, $.cause)"}, ("", "E: because")),
        ({"CausePath": "$$.Execution.Id"}, ("", "run-1")),
    ],
)
def test_what_a_fail_says(fields: dict[str, JSON], found: tuple[str, str]) -> None:
    assert failure(state(Fail, fields), {"error": "E", "cause": "because"}, SCOPE) == found


def test_a_fail_whose_cause_is_not_text() -> None:
    for fields in ({"CausePath": "$.c"}, {"CausePath": "States.ArrayLength($.c)"}):
        with pytest.raises(StateError) as raised:
            failure(state(Fail, dict(fields)), {"c": [1]}, SCOPE)
        assert raised.value.error == "States.Runtime"
        assert raised.value.cause.startswith("The CausePath field refers to value ")


def test_a_task_s_times() -> None:
    times = task_times(
        state(Task, {"TimeoutSeconds": 60, "HeartbeatSeconds": 20, "ScheduleToStartSeconds": 5}), {}, SCOPE
    )
    assert (times.timeout_seconds, times.heartbeat_seconds, times.schedule_to_start_seconds) == (60, 20, 5)
    read = state(Task, {"TimeoutSecondsPath": "$.t", "HeartbeatSecondsPath": "$.h", "InputPath": "$.a"})
    times = task_times(read, {"a": {"t": 9, "h": 3}}, SCOPE)
    assert (times.timeout_seconds, times.heartbeat_seconds, times.schedule_to_start_seconds) == (9, 3, None)
    with pytest.raises(StateError) as raised:
        task_times(read, {"a": {"t": 0, "h": 3}}, SCOPE)
    assert raised.value.cause == "Expected positive integer for TimeoutSeconds, got '0' instead."


def test_where_a_task_goes() -> None:
    assert task_target(state(Task, {"Resource": "http"}), {"a": 1}) == ("http", {"a": 1})
    assert task_target(state(Task, {"Resource": "activity:pack", "TaskQueue": "fast"}), 1) == ("fast", 1)
    invoke = "arn:aws:states:::lambda:invoke"
    fixed = state(Task, {"Resource": invoke, "Parameters": {"FunctionName": "charge:1", "Payload.$": "$"}})
    assert fixed.resource.queue == "charge"
    assert task_target(fixed, {"FunctionName": "charge:1", "Payload": 5}) == ("charge", 5)
    read = state(Task, {"Resource": invoke, "Parameters": {"FunctionName.$": "$.f"}})
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:ship"
    assert task_target(read, {"FunctionName": arn}) == ("ship", {})
    for wrong in ({"FunctionName": "no such:name:at:all"}, {"FunctionName": 5}, [1]):
        with pytest.raises(StateError) as raised:
            task_target(read, wrong)  # type: ignore[arg-type]
        assert raised.value.error == "States.Runtime"


def test_how_a_task_s_result_is_wrapped() -> None:
    assert task_result(state(Task, {}), 5) == 5
    parameters: JSON = {"FunctionName": "charge"}
    invoke = state(Task, {"Resource": "arn:aws:states:::lambda:invoke", "Parameters": parameters})
    assert task_result(invoke, 5) == {"ExecutedVersion": "$LATEST", "Payload": 5, "StatusCode": 200}
    awaited = state(Task, {"Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken", "Parameters": parameters})
    assert task_result(awaited, 5) == 5


def test_what_a_map_works_on() -> None:
    raw: JSON = {"orders": {"items": [1, 2, 3], "who": "me"}, "n": 2}
    mapped = state(Map, {"InputPath": "$.orders", "ItemsPath": "$.items"})
    assert map_items(mapped, raw, SCOPE) == [1, 2, 3]
    assert map_item_input(mapped, raw, 1, 2, SCOPE) == 2
    assert map_items(state(Map, {}), [4], SCOPE) == [4]
    assert map_items(state(Map, {"ItemsPath": "$[0]"}), [[4]], SCOPE) == [4]
    selector: JSON = {
        "value.$": "$$.Map.Item.Value",
        "index.$": "$$.Map.Item.Index",
        "who.$": "$.who",
        "run.$": "$$.Execution.Id",
    }
    for name in ("ItemSelector", "Parameters"):
        selecting = state(Map, {"InputPath": "$.orders", "ItemsPath": "$.items", name: selector})
        made = map_item_input(selecting, raw, 1, 2, SCOPE)
        assert made == {"value": 2, "index": 1, "who": "me", "run": "run-1"}
    assert "Map" not in CONTEXT


@pytest.mark.parametrize(
    ("fields", "raw", "error", "cause"),
    [
        ({}, {"a": 1}, "States.Runtime", 'Reference path "$" must point to array.'),
        ({"ItemsPath": "$.a"}, {"a": 1}, "States.Runtime", 'Reference path "$.a" must point to array.'),
        ({"ItemsPath": "$.b"}, {"a": 1}, "States.ReferencePathConflict", 'Unable to apply step "b" to input {"a":1}'),
    ],
)
def test_what_a_map_cannot_work_on(fields: dict[str, JSON], raw: JSON, error: str, cause: str) -> None:
    with pytest.raises(StateError) as raised:
        map_items(state(Map, fields), raw, SCOPE)
    assert (raised.value.error, raised.value.cause) == (error, cause)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [({}, 0), ({"MaxConcurrency": 0}, 0), ({"MaxConcurrency": 5}, 5), ({"MaxConcurrencyPath": "$.n"}, 2)],
)
def test_how_many_items_run_at_a_time(fields: dict[str, JSON], wanted: int) -> None:
    assert map_concurrency(state(Map, fields), {"n": 2}, SCOPE) == wanted
