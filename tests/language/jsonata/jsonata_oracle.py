"""An expression evaluated by this engine and by the library's own evaluator, to compare."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata

from daemon.language import Scope
from daemon.language.errors import Failed, Malformed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonata import UNDEFINED, compile_query
from enginekit.messages.json import JSON

NOW = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
SCOPE = Scope(context=dict, random=lambda: 0.25, uuid=lambda: "5f0c6a3e-1f54-4c1e-8a3c-000000000000", now=NOW)


class Outcome(NamedTuple):
    """`found` is None for nothing as for null, as the library has it. `error` is the code, as T2001."""

    found: JSON
    error: str | None


def ours(expression: str, **variables: JSON) -> Outcome:
    def bind(name: str) -> Any:
        return variables.get(name, UNDEFINED)

    before = copy.deepcopy(variables)
    try:
        found = compile_query(expression).evaluate(bind, Evaluation(SCOPE))
    except Failed as failed:
        return Outcome(None, failed.reason.partition(":")[0])
    except Malformed as malformed:
        return Outcome(None, malformed.reason.partition(":")[0])
    finally:
        assert variables == before, "the input was changed"
    return Outcome(None if found is UNDEFINED else found, None)


def theirs(expression: str, **variables: JSON) -> Outcome:
    try:
        query = Jsonata(expression)
        frame = query.create_frame()
        for name, value in copy.deepcopy(variables).items():
            frame.bind(name, value)
        return Outcome(_plain(query.evaluate(None, frame)), None)
    except JException as error:
        return Outcome(None, error.error)


def _plain(value: Any) -> JSON:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
