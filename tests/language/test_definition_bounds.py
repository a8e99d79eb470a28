"""What reading a definition may cost at most, and what it is told that is no fault."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest

from daemon.language import InvalidDefinition, Pass, parse_definition


def _faults_of(states: dict[str, Any], **top: Any) -> list[str]:
    with pytest.raises(InvalidDefinition) as raised:
        parse_definition(json.dumps({"StartAt": next(iter(states)), "States": states, **top}))
    return [str(fault) for fault in raised.value.faults]


def test_a_definition_has_so_many_regular_expressions_and_no_more() -> None:
    queries = {f"k{number}": "{% $contains('a', /a/) %}" for number in range(101)}
    state = {"Type": "Pass", "Output": queries, "End": True}
    wanted = "this is one regular expression too many: a definition has 100 at most"
    assert _faults_of({"X": state}, QueryLanguage="JSONata") == [f"States.X.Output.k100: {wanted}"]
    paths = {f"k{number}.$": "$[?(@ =~ /a/)]" for number in range(101)}
    assert _faults_of({"X": {"Type": "Pass", "Parameters": paths, "End": True}}) == [
        f"States.X.Parameters.k100.$: {wanted}"
    ]


def test_the_expressions_of_a_definition_are_so_long_and_no_longer() -> None:
    query = "{% " + "[1, 2, 3, 4, 5]" * 1 + " " * 60_000 + " %}"
    state = {"Type": "Pass", "Output": [query] * 5, "End": True}
    assert _faults_of({"X": state}, QueryLanguage="JSONata") == [
        "States.X.Output[4]: this is one expression too many: all together have 262,144 characters at most"
    ]


def test_names_that_may_have_been_meant_are_not_compared_without_end() -> None:
    """Twenty thousand names, each of them close to what is looked for."""
    states = {
        f"{'state' * 10}{number}": {"Type": "Pass", "Next": f"{'state' * 10}{number}x"} for number in range(5_000)
    }
    faults = _faults_of(states)
    assert len(faults) == 1_001
    assert 0 < sum("did you mean" in fault for fault in faults) < 10


def test_what_is_only_text_is_told() -> None:
    def warnings(state: dict[str, Any]) -> list[str]:
        text = json.dumps({"StartAt": "X", "States": {"X": {"Type": "Pass", "End": True, **state}}})
        return [str(warning) for warning in parse_definition(text).warnings]

    assert warnings({"Parameters": {"a": "$.b", "c": ["States.UUID()"], "d": "$5", "e": "{% 1 %}"}}) == [
        'States.X.Parameters.a: is text: what is to be evaluated stands in a field whose name ends in ".$"',
        'States.X.Parameters.c[0]: is text: what is to be evaluated stands in a field whose name ends in ".$"',
        "States.X.Parameters.e: is text: this state is JSONPath, which has no {% %}",
    ]
    assert warnings({"Result": {"a": [{"b.$": "$.c"}]}}) == [
        "States.X.Result.a[0].b.$: is not evaluated: Result is static, use Parameters"
    ]
    assert warnings({"QueryLanguage": "JSONata", "Output": {"a": "$.b", "c": "{% $states.inptu %}"}}) == [
        "States.X.Output.a: is text: this state is JSONata, where an expression stands in {% %}",
        'States.X.Output.c: $states has no "inptu"; did you mean "input"?',
    ]


def test_a_state_without_a_known_type_is_checked_as_far_as_it_can_be() -> None:
    assert _faults_of({"X": {"type": "Pass", "Next": "Y"}, "Z": {"Type": "Taks", "Default": "Q"}}) == [
        "States.X: needs a Type: Pass, Task, Choice, Wait, Succeed, Fail, Parallel, Map "
        '("type" is written with a capital T)',
        'States.X.Next: no state named "Y"',
        'States.Z.Type: no type of state is "Taks"; did you mean "Task"?',
        'States.Z.Default: no state named "Q"',
    ]


def test_a_definition_holds_no_cycles() -> None:
    """What nobody has any more is gone at once, without the garbage collector."""
    expressions = {"a.$": "$.b[?(@.c == 1)]", "d.$": "States.Format('{}', $x)", "e.$": "$x"}
    states: dict[str, Any] = {
        "X": {"Type": "Pass", "Assign": {"x": 1}, "ResultPath": "$.a.b[0].c", "Next": "Y"},
        "Y": {"Type": "Pass", "Parameters": expressions, "ResultPath": "$.a", "Next": "Z"},
        "Z": {"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $map([1], function($v) { $v + $x }) %}",
              "Next": "C"},
        "C": {"Type": "Choice", "Choices": [{"And": [{"Variable": "$.a", "IsNull": True}], "Next": "D"}],
              "Default": "D"},
        "D": {"Type": "Wait", "SecondsPath": "$.a", "Next": "E"},
        "E": {"Type": "Map", "ItemProcessor": {"StartAt": "F", "States": {"F": {"Type": "Fail", "CausePath": "$.a"}}},
              "End": True},
    }  # fmt: skip
    text = json.dumps({"StartAt": "X", "States": states})
    parse_definition(text)
    gc.collect()
    made = parse_definition(text)
    gc.collect()
    state = weakref.ref(made.states["X"].place) if isinstance(made.states["X"], Pass) else None
    gc.disable()
    try:
        before = len(gc.get_objects())
        del made
        held = before - len(gc.get_objects())
        assert state is not None
        assert state() is None
        assert held > 100
        assert gc.collect() < 20
    finally:
        gc.enable()
