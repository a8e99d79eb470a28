"""Small machines and scopes that the language's tests are written with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeVar

from daemon.language import Definition, InvalidDefinition, Scope, State, parse_definition
from enginekit.messages.json import JSON

NOW = datetime(2026, 3, 14, 1, 59, tzinfo=UTC)
CONTEXT: dict[str, JSON] = {
    "Execution": {"Id": "run-1", "Input": {"order": 7}, "Name": "order-7"},
    "State": {"Name": "X", "EnteredTime": "2026-03-14T01:59:00Z"},
    "Task": {"Token": "token-1"},
}
UUID = "1c8e5a0e-0000-4000-8000-000000000001"
SCOPE = Scope(context=lambda: CONTEXT, random=lambda: 0.5, uuid=lambda: UUID, now=NOW)

S = TypeVar("S", bound=State)

MAP_PROCESSOR: JSON = {"StartAt": "Each", "States": {"Each": {"Type": "Pass", "End": True}}}


def machine(states: dict[str, JSON], **more: JSON) -> dict[str, JSON]:
    """A definition that starts at its first state."""
    return {"StartAt": next(iter(states)), "States": states, **more}


def parsed(definition: JSON, node_types: frozenset[str] | None = None) -> Definition:
    """The definition, parsed from its JSON text."""
    return parse_definition(json.dumps(definition), node_types)


def state(sort: type[S], fields: dict[str, JSON], **others: JSON) -> S:
    """The state X of this type with these fields, in a machine that also has states `Done` and `Other`."""
    written: dict[str, JSON] = {"Type": sort.__name__, **fields}
    if sort.__name__ not in ("Choice", "Succeed", "Fail") and "Next" not in fields and "End" not in fields:
        written["Next"] = "Done"
    if sort.__name__ == "Task" and "Resource" not in fields:
        written["Resource"] = "echo"
    if sort.__name__ == "Map" and "ItemProcessor" not in fields and "Iterator" not in fields:
        written["ItemProcessor"] = MAP_PROCESSOR
    start: JSON = {
        "Type": "Choice",
        "Choices": [
            {"Variable": "$.way", "StringEquals": "done", "Next": "Done"},
            {"Variable": "$.way", "StringEquals": "other", "Next": "Other"},
        ],
        "Default": "X",
    }
    definition = parsed(
        machine({"Start": start, "X": written, "Done": {"Type": "Succeed"}, "Other": {"Type": "Succeed"}, **others})
    )
    found = definition.states["X"]
    assert isinstance(found, sort)
    return found


def faults(definition: JSON, node_types: frozenset[str] | None = None) -> list[str]:
    """Every fault of the definition, as text; none when it is valid."""
    text = definition if isinstance(definition, str) else json.dumps(definition)
    try:
        parse_definition(text, node_types)
    except InvalidDefinition as invalid:
        return [str(fault) for fault in invalid.faults]
    return []
