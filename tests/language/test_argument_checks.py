"""What a node type has against its arguments: where it stands, and what the check is given."""

from __future__ import annotations

import json

import pytest

from daemon.language import InvalidDefinition, parse_definition
from daemon.language.literal import literal_part
from enginekit.messages.json import JSON
from enginekit.node import COMPUTED, Argument, ArgumentFault


def definition(state: dict[str, JSON], **top: JSON) -> str:
    return json.dumps({"StartAt": "Call", "States": {"Call": {"Type": "Task", "End": True, **state}}, **top})


def asked(text: str) -> list[tuple[str, Argument]]:
    seen: list[tuple[str, Argument]] = []

    def check(name: str, arguments: Argument) -> list[ArgumentFault]:
        seen.append((name, arguments))
        return []

    parse_definition(text, None, check)
    return seen


def test_expressions_are_computed_under_the_name_that_the_field_will_have() -> None:
    state: dict[str, JSON] = {
        "Resource": "http",
        "Parameters": {"a": 1, "b.$": "$.b", "c": [{"d.$": "$.d", "e": "{% x %}"}]},
    }
    assert asked(definition(state)) == [("http", {"a": 1, "b": COMPUTED, "c": [{"d": COMPUTED, "e": "{% x %}"}]})]


def test_expressions_of_jsonata() -> None:
    state: dict[str, JSON] = {"Resource": "http", "Arguments": {"a": "{% 1 %}", "b.$": "$.b", "c": ["{% 2 %}", "d"]}}
    assert asked(definition(state, QueryLanguage="JSONata")) == [
        ("http", {"a": COMPUTED, "b.$": "$.b", "c": [COMPUTED, "d"]})
    ]
    state["Arguments"] = "{% $states.input %}"
    assert asked(definition(state, QueryLanguage="JSONata")) == [("http", COMPUTED)]
    state["Arguments"] = "text"
    assert asked(definition(state, QueryLanguage="JSONata")) == [("http", "text")]


@pytest.mark.parametrize(
    "state",
    [
        {"Resource": "http"},
        {"Resource": "activity:http", "Parameters": {"a": 1}},
        {"Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "http"}},
    ],
)
def test_what_is_not_known_or_not_run_by_a_node_type_is_not_asked_about(state: dict[str, JSON]) -> None:
    assert asked(definition(state)) == []


def test_the_name_of_an_arn_is_the_node_types() -> None:
    state: dict[str, JSON] = {"Resource": "arn:aws:states:::http:invoke.waitForTaskToken", "Parameters": {"a": 1}}
    assert asked(definition(state)) == [("http", {"a": 1})]


def test_faults_stand_at_their_path_beside_those_of_the_language() -> None:
    def check(name: str, arguments: Argument) -> list[ArgumentFault]:
        return [ArgumentFault("Tools[0].Name", "must be a string"), ArgumentFault("", "needs Model")]

    inner = {"StartAt": "Call", "States": {"Call": {"Type": "Task", "Resource": "x", "Parameters": {}, "Nxet": 1}}}
    text = json.dumps(
        {"StartAt": "Each", "States": {"Each": {"Type": "Map", "ItemProcessor": inner, "End": True}}},
    )
    with pytest.raises(InvalidDefinition) as invalid:
        parse_definition(text, None, check)
    paths = [str(fault) for fault in invalid.value.faults]
    at = "States.Each.ItemProcessor.States.Call"
    assert f"{at}.Parameters.Tools[0].Name: must be a string" in paths
    assert f"{at}.Parameters: needs Model" in paths
    assert any(path.startswith(f"{at}.Nxet: ") for path in paths)


def test_of_a_field_that_is_there_twice_nothing_is_known() -> None:
    assert literal_part({"a.$": "$.a", "a": 1}, False) in ({"a": 1}, {"a": COMPUTED})
