"""Variables in JSONPath states: who may refer to what, and what `$name` reads."""

from __future__ import annotations

from typing import Any

import pytest
from language_machines import NOW, SCOPE, faults, parsed, state

from daemon.language import Choice, Pass, Scope, StateError, Task, Wait, arguments, assigned, choose, output
from daemon.language.jsonpath import compile_path
from enginekit.messages.json import JSON

HELD: dict[str, JSON] = {"order": {"id": "o-1", "lines": [{"sku": "a", "n": 2}, {"sku": "b", "n": 5}]}, "limit": 3}
WITH = Scope(context=SCOPE.context, random=SCOPE.random, uuid=SCOPE.uuid, now=NOW, variable=HELD.__getitem__)


def defined(*states: tuple[str, dict[str, JSON]]) -> JSON:
    return {"StartAt": states[0][0], "States": dict(states)}


def chain(first: dict[str, JSON], second: dict[str, JSON]) -> JSON:
    return defined(("A", {**first, "Next": "B"}), ("B", second))


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ({"id.$": "$order.id"}, {"id": "o-1"}),
        ({"all.$": "$order"}, {"all": HELD["order"]}),
        ({"sku.$": "$order.lines[1].sku"}, {"sku": "b"}),
        ({"last.$": "$order.lines[-1].n"}, {"last": 5}),
        ({"skus.$": "$order.lines[*].sku"}, {"skus": ["a", "b"]}),
        ({"many.$": "$order.lines[?(@.n > $limit)].sku"}, {"many": ["b"]}),
        ({"more.$": "$.lines[?(@ > $limit)]"}, {"more": [4]}),
        ({"text.$": "States.Format('{} has {}', $order.id, $.n)"}, {"text": "o-1 has 9"}),
        ({"sum.$": "States.MathAdd($limit, States.ArrayLength($order.lines))"}, {"sum": 5}),
        ({"in": [{"deep.$": "$limit"}]}, {"in": [{"deep": 3}]}),
    ],
)
def test_a_template_reads_variables(template: JSON, made: JSON) -> None:
    held = {"A": {"Type": "Pass", "Assign": {"order": 1, "limit": 1}, "Next": "B"}}
    second = parsed(
        {"StartAt": "A", "States": {**held, "B": {"Type": "Pass", "Parameters": template, "End": True}}}
    ).states["B"]
    assert isinstance(second, Pass)
    assert arguments(second, {"n": 9, "lines": [1, 4]}, WITH) == made


def test_a_missing_field_of_a_variable_is_told_by_its_name() -> None:
    held = {"A": {"Type": "Pass", "Assign": {"order": 1}, "Next": "B"}}
    second = parsed(
        {"StartAt": "A", "States": {**held, "B": {"Type": "Pass", "Parameters": {"x.$": "$order.no"}, "End": True}}}
    ).states["B"]
    with pytest.raises(StateError) as raised:
        arguments(second, {}, WITH)
    assert raised.value.cause == (
        "The JSONPath '$order.no' specified for the field 'x.$' could not be found in the input "
        '\'{"id":"o-1","lines":[{"sku":"a","n":2},{"sku":"b","n":5}]}\''
    )


def test_a_variable_that_was_never_assigned_on_the_way() -> None:
    held = {"A": {"Type": "Pass", "Assign": {"order": 1}, "Next": "B"}}
    second = parsed(
        {"StartAt": "A", "States": {**held, "B": {"Type": "Pass", "Parameters": {"x.$": "$order"}, "End": True}}}
    ).states["B"]
    with pytest.raises(StateError, match='the variable "\\$order" has no value here'):
        arguments(second, {}, SCOPE)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("$", set()),
        ("$.a", set()),
        ("$$.Execution.Id", set()),
        ("$a", {"a"}),
        ("$_a1.b[0]", {"_a1"}),
        ("$größe.x", {"größe"}),
        ("$.a[?(@.b == $c && !($d.e) || $f[0] > 1)]", {"c", "d", "f"}),
        ("$a[?(@.b == $.c)]", {"a"}),
    ],
)
def test_the_variables_a_path_refers_to(path: str, names: set[str]) -> None:
    assert compile_path(path).variables == names


def test_what_assign_sees() -> None:
    task = state(
        Task,
        {
            "Resource": "echo",
            "Parameters": {"p": 1},
            "ResultSelector": {"picked.$": "$.value"},
            "ResultPath": "$.r",
            "Assign": {"whole.$": "$", "value.$": "$.value", "fixed": [1], "id.$": "$$.Execution.Id"},
            "End": True,
        },
    )
    result: JSON = {"value": 7, "more": True}
    made = assigned(task, {"in": 1}, result, SCOPE)
    assert made is not None
    assert made["whole"] == result
    assert (made["value"], made["fixed"]) == (7, [1])
    assert output(task, {"in": 1}, result, SCOPE) == {"in": 1, "r": {"picked": 7}}


def test_a_wait_assigns_from_its_effective_input() -> None:
    wait = state(Wait, {"Seconds": 1, "InputPath": "$.a", "Assign": {"b.$": "$.b"}, "End": True})
    assert assigned(wait, {"a": {"b": 2}}, {"b": 2}, SCOPE) == {"b": 2}


def test_a_state_without_assign_assigns_nothing() -> None:
    assert assigned(state(Pass, {"End": True}), {}, {}, SCOPE) is None


def test_a_choice_assigns_what_its_rule_or_its_default_says() -> None:
    choice = state(
        Choice,
        {
            "InputPath": "$.in",
            "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "Done", "Assign": {"was.$": "$.n"}}],
            "Default": "Other",
            "Assign": {"was": "another", "all.$": "$"},
        },
    )
    assert choose(choice, {"in": {"n": 1}}, SCOPE).assigned == {"was": 1}
    assert choose(choice, {"in": {"n": 2}}, SCOPE).assigned == {"was": "another", "all": {"n": 2}}


def test_more_than_may_be_assigned_at_once() -> None:
    big = state(Pass, {"Assign": {"a.$": "$.a"}, "End": True})
    assert assigned(big, {}, {"a": "x" * 260_000}, SCOPE) is not None
    with pytest.raises(StateError) as raised:
        assigned(big, {}, {"a": "x" * 263_000}, SCOPE)
    assert (raised.value.error, raised.value.cause) == (
        "States.DataLimitExceeded",
        "Its variables have more than 262,144 bytes.",
    )


END: dict[str, JSON] = {"Type": "Succeed"}
PASS: dict[str, JSON] = {"Type": "Pass", "End": True}
USES: dict[str, JSON] = {**PASS, "Parameters": {"x.$": "$a"}}


def inside(first: JSON, mode: str = "INLINE") -> dict[str, JSON]:
    return {
        "Type": "Map",
        "ItemProcessor": {"ProcessorConfig": {"Mode": mode}, "StartAt": "In", "States": {"In": first}},
        "End": True,
    }


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        (defined(("B", USES)), ['States.B.Parameters.x.$: no state in reach assigns "$a"']),
        (chain({"Type": "Pass", "Assign": {"aa": 1}}, {**PASS, "Parameters": {"x.$": "$aaa"}}),
         ['States.B.Parameters.x.$: no state in reach assigns "$aaa"; did you mean "aa"?']),
        (chain({"Type": "Pass", "Assign": {"a": 1}}, USES), []),
        (chain({"Type": "Pass", "Assign": {"a": 1}}, inside(USES)), []),
        (chain(inside({**PASS, "Assign": {"a": 1}}) | {"End": False}, USES),
         ['States.B.Parameters.x.$: no state in reach assigns "$a"']),
        (chain({"Type": "Pass", "Assign": {"a": 1}}, inside({**PASS, "Assign": {"a": 2}})),
         ['States.B.ItemProcessor.States.In.Assign.a: "$a" is assigned outside, at States.A.Assign.a; in here it can '
          "only be read"]),
        (defined(("P", {"Type": "Parallel", "End": True, "Branches": [
            {"StartAt": "L", "States": {"L": {**PASS, "Assign": {"a": 1}}}},
            {"StartAt": "R", "States": {"R": {**PASS, "Assign": {"a": 2}}}}]})), []),
        (defined(("A", {**PASS, "Assign": {"1a": 1, "b-c": 1, "states": 1, "": 1, "x" * 81: 1}})),
         ['States.A.Assign.1a: "1a" is no name for a variable: letters, digits and _, not beginning with a digit',
          'States.A.Assign.b-c: "b-c" is no name for a variable: letters, digits and _, not beginning with a digit',
          'States.A.Assign.states: "states" is reserved: a variable cannot have this name',
          'States.A.Assign.: "" is no name for a variable: letters, digits and _, not beginning with a digit',
          f"States.A.Assign.{'x' * 81}: the name of a variable has 80 characters at most, and this one has 81"]),
        (defined(("A", {"Type": "Succeed", "Assign": {"a": 1}})),
         ["States.A.Assign: a Succeed state has no such field (it belongs to Pass, Task, Choice, Wait, Parallel, "
          "Map)"]),
        (defined(("A", {"Type": "Fail", "Assign": {"a": 1}})),
         ["States.A.Assign: a Fail state has no such field (it belongs to Pass, Task, Choice, Wait, Parallel, Map)"]),
        (defined(("A", {**PASS, "ResultPath": "$a.b"})),
         ['States.A.ResultPath: a result is put into the input ($), not into $a',
          'States.A.ResultPath: no state in reach assigns "$a"']),
        (defined(("A", {**PASS, "Assign": {"a.$": "$.x", "a": 1}})),
         ['States.A.Assign.a: "a" and "a.$" are both there; only one of them can be the field']),
    ],
)  # fmt: skip
def test_the_scopes_of_names(definition: Any, wanted: list[str]) -> None:
    assert faults(definition) == wanted
