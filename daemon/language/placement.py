"""ResultPath: where a result goes in the raw input. The input is never changed; what lies on the way is copied."""

from __future__ import annotations

from daemon.language.causes import not_applied
from daemon.language.definition import Placement
from daemon.language.errors import RESULT_PATH_MATCH_FAILURE
from daemon.language.jsonpath import Steps
from enginekit.messages.json import JSON


def discard(raw: JSON, result: JSON) -> JSON:
    """`"ResultPath": null`: the input stays as it is."""
    return raw


def compile_placement(steps: Steps) -> Placement:
    """The placement at a reference path's steps; there is at least one."""
    if len(steps) == 1 and isinstance(steps[0], str):
        return _as_field(steps[0])

    return lambda raw, result: _put(raw, steps, 0, result, raw)


def _put(value: JSON, steps: Steps, number: int, result: JSON, raw: JSON) -> JSON:
    """A copy of the value with the result at the steps from this number on. `raw` is the whole that it is part of."""
    if number == len(steps):
        return result
    step = steps[number]
    if isinstance(step, str):
        if not isinstance(value, dict):
            raise not_applied(step, raw, RESULT_PATH_MATCH_FAILURE)
        copied = value.copy()
        copied[step] = _put(value.get(step, {}), steps, number + 1, result, raw)
        return copied
    if not isinstance(value, list) or step >= len(value):
        raise not_applied(step, raw, RESULT_PATH_MATCH_FAILURE)
    items = value.copy()
    items[step] = _put(value[step], steps, number + 1, result, raw)
    return items


def _as_field(name: str) -> Placement:
    def place(raw: JSON, result: JSON) -> JSON:
        if not isinstance(raw, dict):
            raise not_applied(name, raw, RESULT_PATH_MATCH_FAILURE)
        return {**raw, name: result}

    return place
