"""Which arguments the http node takes, told of a definition as of a task."""

from __future__ import annotations

import pytest

from daemon.nodes.web.arguments import faults_in
from enginekit.node import COMPUTED, Argument

GOOD: dict[str, Argument] = {"Method": "GET", "ApiEndpoint": "http://shop.test/items"}


def paths(arguments: Argument) -> list[str]:
    return [fault.path for fault in faults_in(arguments)]


@pytest.mark.parametrize(
    "arguments",
    [
        COMPUTED,
        GOOD,
        {"Method": COMPUTED, "ApiEndpoint": COMPUTED},
        GOOD | {"Headers": COMPUTED, "QueryParameters": COMPUTED, "RequestBody": COMPUTED},
        GOOD | {"Headers": {"X": COMPUTED, "Y": [COMPUTED, 1]}, "QueryParameters": {"a": COMPUTED, "b": [True, "x"]}},
        GOOD | {"Headers": None, "QueryParameters": None, "RequestBody": None},
        GOOD | {"RequestBody": {"any": ["thing", COMPUTED]}},
    ],
)
def test_arguments_without_a_fault(arguments: Argument) -> None:
    assert paths(arguments) == []


def test_every_fault_is_told() -> None:
    arguments: Argument = {
        "Methud": "GET",
        "ApiEndpoint": "shop.test",
        "Headers": {"X Y": "1", "Host": COMPUTED, "Z": ["ok", {}], "W": "a\nb"},
        "QueryParameters": {"a": None},
    }
    assert paths(arguments) == [
        "Methud",
        "Method",
        "ApiEndpoint",
        "Headers.X Y",
        "Headers.Host",
        "Headers.Z",
        "Headers.W",
        "QueryParameters.a",
    ]


@pytest.mark.parametrize("arguments", [None, "text", 5, []])
def test_arguments_are_an_object(arguments: Argument) -> None:
    assert paths(arguments) == [""]
