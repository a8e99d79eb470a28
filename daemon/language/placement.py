"""ResultPath: where a result goes in the raw input. The input is never changed; what lies on the way is copied."""

from __future__ import annotations

from daemon.language.definition import Placement
from daemon.language.errors import RESULT_PATH_MATCH_FAILURE, StateError
from daemon.language.jsonpath import Steps
from daemon.language.values import kind
from enginekit.messages.json import JSON


def discard(raw: JSON, result: JSON) -> JSON:
    """`"ResultPath": null`: the input stays as it is."""
    return raw


def compile_placement(text: str, steps: Steps, where: str) -> Placement:
    """The placement at a reference path's steps; there is at least one."""
    if len(steps) == 1 and isinstance(steps[0], str):
        return _as_field(text, steps[0], where)

    return lambda raw, result: _put(raw, steps, 0, result, text, where)


def _put(value: JSON, steps: Steps, number: int, result: JSON, text: str, where: str) -> JSON:
    """A copy of the value with the result at the steps from this number on."""
    if number == len(steps):
        return result
    step = steps[number]
    if isinstance(step, str):
        if not isinstance(value, dict):
            raise _no_match(where, text, kind(value), f'a field "{step}"')
        copied = value.copy()
        copied[step] = _put(value.get(step, {}), steps, number + 1, result, text, where)
        return copied
    if not isinstance(value, list):
        raise _no_match(where, text, kind(value), f"an item {step}")
    if step >= len(value):
        raise _no_match(where, text, f"an array of {len(value)}", f"an item {step}")
    items = value.copy()
    items[step] = _put(value[step], steps, number + 1, result, text, where)
    return items


def _as_field(text: str, name: str, where: str) -> Placement:
    def place(raw: JSON, result: JSON) -> JSON:
        if not isinstance(raw, dict):
            raise _no_match(where, text, kind(raw), f'a field "{name}"')
        return {**raw, name: result}

    return place


def _no_match(where: str, text: str, found: str, wanted: str) -> StateError:
    return StateError(
        RESULT_PATH_MATCH_FAILURE, f'{where}: "{text}" cannot be applied to the input: {found} cannot hold {wanted}'
    )
