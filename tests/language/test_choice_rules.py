"""Choice Rules: every operator, And, Or and Not, and what happens when none holds."""

from __future__ import annotations

import pytest
from language_machines import SCOPE, faults, machine, state

from daemon.language import Choice, Chosen, StateError, choose
from enginekit.messages.json import JSON

INPUT: JSON = {
    "s": "banana",
    "n": 20,
    "f": 20.0,
    "b": True,
    "t": "2016-08-18T17:33:00Z",
    "same_t": "2016-08-18T19:33:00.000+02:00",
    "null": None,
    "list": [1],
    "object": {},
    "log": "zebra-2026*.log",
    "emoji": "\U0001f600",
    "high": "\uffee",
}


def holds(rule: dict[str, JSON], raw: JSON = INPUT) -> bool:
    chosen = choose(state(Choice, {"Choices": [{**rule, "Next": "Done"}], "Default": "Other"}), raw, SCOPE).next
    return chosen == "Done"


@pytest.mark.parametrize(
    ("variable", "operator", "value", "wanted"),
    [
        ("s", "StringEquals", "banana", True),
        ("s", "StringEquals", "Banana", False),
        ("s", "StringLessThan", "cherry", True),
        ("s", "StringLessThan", "banana", False),
        ("s", "StringLessThanEquals", "banana", True),
        ("s", "StringGreaterThan", "apple", True),
        ("s", "StringGreaterThan", "banana", False),
        ("s", "StringGreaterThanEquals", "banana", True),
        ("n", "StringEquals", "20", False),
        ("emoji", "StringLessThan", "\uffee", True),
        ("high", "StringGreaterThan", "\U0001f600", True),
        ("n", "NumericEquals", 20, True),
        ("f", "NumericEquals", 20, True),
        ("n", "NumericEquals", 20.5, False),
        ("n", "NumericLessThan", 20.5, True),
        ("n", "NumericLessThanEquals", 20, True),
        ("n", "NumericGreaterThan", 19, True),
        ("n", "NumericGreaterThanEquals", 21, False),
        ("b", "NumericEquals", 1, False),
        ("s", "NumericEquals", 1, False),
        ("b", "BooleanEquals", True, True),
        ("b", "BooleanEquals", False, False),
        ("n", "BooleanEquals", True, False),
        ("t", "TimestampEquals", "2016-08-18T17:33:00Z", True),
        ("t", "TimestampEquals", "2016-08-18T19:33:00+02:00", True),
        ("t", "TimestampLessThan", "2016-08-18T17:33:00.001Z", True),
        ("t", "TimestampLessThan", "2016-08-18T17:33:00.0000000001Z", True),
        ("t", "TimestampLessThanEquals", "2016-08-18T17:33:00Z", True),
        ("t", "TimestampGreaterThan", "2016-08-18T17:32:59Z", True),
        ("t", "TimestampGreaterThanEquals", "2016-08-18T17:33:01Z", False),
        ("s", "TimestampEquals", "2016-08-18T17:33:00Z", False),
        ("t", "StringEquals", "2016-08-18T17:33:00Z", True),
        ("log", "StringMatches", "zebra-*.log", True),
        ("log", "StringMatches", "*", True),
        ("log", "StringMatches", "*.log", True),
        ("log", "StringMatches", "zebra*", True),
        ("log", "StringMatches", "zebra", False),
        ("log", "StringMatches", "*6\\**", True),
        ("log", "StringMatches", "*7\\**", False),
        ("log", "StringMatches", "zebra-2026\\*.log", True),
        ("log", "StringMatches", "z*e*a*-*l*g", True),
        ("log", "StringMatches", "*2026*zebra*", False),
        ("log", "StringMatches", "*zebra*zebra*", False),
        ("log", "StringMatches", "zebra-2026*.log.log", False),
        ("n", "StringMatches", "*", False),
        ("null", "IsNull", True, True),
        ("n", "IsNull", False, True),
        ("n", "IsNumeric", True, True),
        ("b", "IsNumeric", True, False),
        ("s", "IsString", True, True),
        ("n", "IsString", False, True),
        ("b", "IsBoolean", True, True),
        ("n", "IsBoolean", True, False),
        ("t", "IsTimestamp", True, True),
        ("same_t", "IsTimestamp", True, True),
        ("s", "IsTimestamp", True, False),
        ("s", "IsPresent", True, True),
        ("null", "IsPresent", True, True),
        ("none", "IsPresent", True, False),
        ("none", "IsPresent", False, True),
        ("list[4]", "IsPresent", False, True),
        ("list[?(@ == 2)]", "IsPresent", True, False),
        ("s", "StringEqualsPath", "$.s", True),
        ("s", "StringLessThanPath", "$.t", False),
        ("s", "StringGreaterThanEqualsPath", "$.s", True),
        ("n", "NumericEqualsPath", "$.f", True),
        ("n", "NumericLessThanPath", "$.f", False),
        ("n", "NumericEqualsPath", "$.s", False),
        ("b", "BooleanEqualsPath", "$.b", True),
        ("t", "TimestampEqualsPath", "$.same_t", True),
        ("t", "TimestampGreaterThanPath", "$.s", False),
        ("s", "StringEqualsPath", "$$.Execution.Id", False),
    ],
)
def test_an_operator(variable: str, operator: str, value: JSON, wanted: bool) -> None:
    assert holds({"Variable": f"$.{variable}", operator: value}) is wanted


def test_joined_rules() -> None:
    yes: JSON = {"Variable": "$.n", "NumericEquals": 20}
    no: JSON = {"Variable": "$.n", "NumericEquals": 21}
    assert holds({"And": [yes, yes]})
    assert not holds({"And": [yes, no]})
    assert holds({"Or": [no, yes]})
    assert not holds({"Or": [no, no]})
    assert holds({"Not": no})
    assert not holds({"Not": yes})
    assert holds({"And": [{"Or": [no, {"Not": no}]}, {"Not": {"And": [yes, no]}}]})


def test_a_rule_is_not_asked_once_it_is_decided() -> None:
    absent: JSON = {"Variable": "$.none", "NumericEquals": 1}
    assert not holds({"And": [{"Variable": "$.none", "IsPresent": True}, absent]})
    assert holds({"Or": [{"Variable": "$.none", "IsPresent": False}, absent]})


def test_the_specification_s_example() -> None:
    choice = state(
        Choice,
        {
            "Choices": [
                {"Not": {"Variable": "$.type", "StringEquals": "Private"}, "Next": "Public"},
                {"Variable": "$.value", "NumericEquals": 0, "Next": "ValueIsZero"},
                {
                    "And": [
                        {"Variable": "$.value", "NumericGreaterThanEquals": 20},
                        {"Variable": "$.value", "NumericLessThan": 30},
                    ],
                    "Next": "ValueInTwenties",
                },
            ],
            "Default": "Other",
        },
        Public={"Type": "Succeed"},
        ValueIsZero={"Type": "Succeed"},
        ValueInTwenties={"Type": "Succeed"},
    )
    inputs: list[JSON] = [
        {"type": "Private", "value": 22},
        {"type": "private", "value": 22},
        {"type": "Private", "value": 0},
        {"type": "Private", "value": 99},
    ]
    chosen = [choose(choice, raw, SCOPE)[0] for raw in inputs]
    assert chosen == ["ValueInTwenties", "Public", "ValueIsZero", "Other"]


def test_what_a_choice_passes_on() -> None:
    rule: JSON = {"Variable": "$.n", "NumericEquals": 1, "Next": "Done"}
    choice = state(Choice, {"InputPath": "$.in", "OutputPath": "$.out", "Choices": [rule]})
    assert choose(choice, {"in": {"n": 1, "out": "x"}}, SCOPE) == Chosen("Done", "x", None)


def test_no_rule_holds_and_there_is_no_default() -> None:
    choice = state(Choice, {"Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "Done"}]})
    with pytest.raises(StateError) as raised:
        choose(choice, {"n": 2}, SCOPE)
    assert (raised.value.error, raised.value.documented) == ("States.Runtime", "States.NoChoiceMatched")
    assert raised.value.cause == "Failed to transition out of the state. The state does not point to a next state."


@pytest.mark.parametrize(
    "rule",
    [
        {"Variable": "$.none", "StringEquals": "a"},
        {"And": [{"Variable": "$.none", "IsNull": True}]},
        {"Variable": "$.s", "StringEqualsPath": "$.none"},
    ],
)
def test_a_variable_that_leads_nowhere(rule: dict[str, JSON]) -> None:
    with pytest.raises(StateError) as raised:
        holds(rule)
    cause = "Invalid path '$.none': The choice state's condition path references an invalid value."
    assert (raised.value.error, raised.value.cause) == ("States.Runtime", cause)


@pytest.mark.parametrize("pattern", ["*a" * 2_000 + "*b", "*" * 5_000 + "b", "*" + "ab*" * 2_000 + "c"])
def test_a_pattern_of_many_stars_is_matched_without_going_back(pattern: str) -> None:
    """Going back from star to star, this would not end in a lifetime."""
    assert not holds({"Variable": "$.s", "StringMatches": pattern}, {"s": "a" * 200_000})
    assert not holds({"Variable": "$.s", "StringMatches": pattern}, {"s": "ab" * 100_000 + "x"})


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"Variable": "$.a", "StringEquals": 1}, ["States.X.Choices[0].StringEquals: must be a string, not a number"]),
        (
            {"Variable": "$.a", "NumericEquals": "1"},
            ["States.X.Choices[0].NumericEquals: must be a number, not a string"],
        ),
        ({"Variable": "$.a", "IsNull": "x"}, ["States.X.Choices[0].IsNull: must be true or false, not a string"]),
        (
            {"Variable": "$.a", "TimestampEquals": "today"},
            ['States.X.Choices[0].TimestampEquals: "today" is not a timestamp like 2016-03-14T01:59:00Z'],
        ),
        (
            {"Variable": "$.a", "StringMatches": "\\a"},
            ["States.X.Choices[0].StringMatches: a backslash may stand before * and \\ only"],
        ),
        ({"Variable": "$.a"}, ["States.X.Choices[0]: a rule needs an operator, such as StringEquals"]),
        (
            {"Variable": "$.a", "IsNull": True, "IsString": True},
            ["States.X.Choices[0]: a rule has one operator, and here are IsNull, IsString"],
        ),
        ({"StringEquals": "a"}, ["States.X.Choices[0]: StringEquals needs a Variable"]),
        (
            {"Variable": "$.a", "StringEqual": "a"},
            ['States.X.Choices[0].StringEqual: not an operator of a choice rule; did you mean "StringEquals"?'],
        ),
        ({"And": []}, ["States.X.Choices[0].And: must not be empty"]),
        (
            {"And": [{"Variable": "$.a", "IsNull": True, "Next": "Done"}]},
            ["States.X.Choices[0].And[0].Next: only a rule directly in Choices has Next"],
        ),
        ({"Not": [1]}, ["States.X.Choices[0].Not: must be an object, not an array"]),
        (
            {"Variable": "a", "IsNull": True},
            ['States.X.Choices[0].Variable: "a" is not a path: a path begins with "$", not with "a" (character 1)'],
        ),
        (
            {"Variable": "$.a", "StringEqualsPath": "b"},
            [
                'States.X.Choices[0].StringEqualsPath: "b" is not a path: a path begins with "$", not with "b" '
                "(character 1)"
            ],
        ),
        (
            {"Condition": "{% true %}"},
            ["States.X.Choices[0].Condition: belongs to JSONata, and this state is JSONPath"],
        ),
    ],
)
def test_what_is_wrong_with_a_rule(rule: dict[str, JSON], wanted: list[str]) -> None:
    choice: JSON = {"Type": "Choice", "Choices": [{**rule, "Next": "Done"}]}
    assert faults(machine({"X": choice, "Done": {"Type": "Succeed"}})) == wanted
