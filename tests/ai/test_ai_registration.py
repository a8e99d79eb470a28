"""Definitions are refused for what is wrong with their literal arguments, and for connections that are not there."""

from __future__ import annotations

import pytest
from ai_bench import Bench

from daemon.language import InvalidDefinition, parse_definition
from daemon.nodes.registry import NodeTypes
from enginekit.messages.json import JSON, encode
from enginekit.node import COMPUTED, Argument


def paths(bench: Bench, arguments: Argument, tenant: str | None = "acme") -> list[str]:
    return [fault.path for fault in bench.node().check(arguments, tenant)]


GOOD: dict[str, Argument] = {"Model": "m", "Prompt": "Hi"}
TOOL: dict[str, Argument] = {"Name": "clock"}


@pytest.mark.parametrize(
    "arguments",
    [
        COMPUTED,
        GOOD,
        {"Model": COMPUTED, "Messages": COMPUTED},
        {"Model": "m", "Messages": [{"role": "user", "content": COMPUTED}, COMPUTED]},
        GOOD | {"Tools": [TOOL, COMPUTED, {"Name": COMPUTED}], "ToolChoice": {"Name": "who knows"}},
        GOOD | {"ResponseSchema": {"type": COMPUTED}, "MaxTokens": COMPUTED, "Connection": COMPUTED},
    ],
)
def test_arguments_without_a_fault(bench: Bench, arguments: Argument) -> None:
    assert paths(bench, arguments) == []


def test_every_fault_is_told(bench: Bench) -> None:
    arguments: Argument = {
        "Key": "sk-1",
        "Messages": [COMPUTED, {"content": "Hi"}],
        "Tools": [COMPUTED, {"Name": "a b"}],
        "ResponseSchema": {"items": {"type": "strnig"}},
        "Temperature": "hot",
        "Connection": "nobodys",
    }
    assert paths(bench, arguments) == [
        "Key",
        "Messages[1].role",
        "Tools[1].Name",
        "ResponseSchema.items.type",
        "Temperature",
        "Model",
        "Connection",
    ]
    assert paths(bench, "Hi") == [""]
    assert paths(bench, {"Model": "m"}) == ["Messages"]
    assert paths(bench, GOOD | {"ToolChoice": "any"}) == ["ToolChoice"]


def test_a_connection_that_is_somebody_elses(bench: Bench) -> None:
    (fault,) = bench.node().check(GOOD, "somebody-else")
    assert fault.path == "Connection"
    assert "is not given, and names no connection of tenant" in fault.message
    assert paths(bench, GOOD, None) == []


def test_a_definition_is_refused(bench: Bench) -> None:
    nodes = NodeTypes(bench.settings("http://model.test"), [])
    parameters: JSON = {"Model.$": "$.model", "Prompt": "Hi", "Tools": [{"Name": "a", "InputSchema": {"type": "int"}}]}
    state: JSON = {"Type": "Task", "Resource": bench.resource, "Parameters": parameters, "End": True}
    text = bytes(encode({"StartAt": "Ask", "States": {"Ask": state}}))
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition(text, nodes.names(), lambda name, given: nodes.check(name, given, "acme"))
    assert "States.Ask.Parameters.Tools[0].InputSchema.type" in [fault.path for fault in caught.value.faults]
