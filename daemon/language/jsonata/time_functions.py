"""The functions of time. The moment is the one that the evaluation was given.

Source: docs.jsonata.org/date-time-functions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from daemon.language.errors import Failed
from daemon.language.jsonata.formats import format_time, parse_time
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.values import UNDEFINED, Value, quoted

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _millis_of(moment: datetime) -> int:
    past = moment - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1000 + past.microseconds // 1000


def _now(run: Run, picture: Value, zone: Value) -> Value:
    return _from_millis(run, _millis_of(run.evaluation.scope.now), picture, zone)


def _millis(run: Run) -> Value:
    return _millis_of(run.evaluation.scope.now)


def _from_millis(run: Run, millis: Value, picture: Value, zone: Value) -> Value:
    if millis is UNDEFINED:
        return UNDEFINED
    run.spend(50)
    return format_time(millis, None if picture is UNDEFINED else picture, None if zone is UNDEFINED else zone)


def _to_millis(run: Run, value: Value, picture: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(50)
    if picture is not UNDEFINED:
        found = parse_time(value, picture, run.evaluation.scope.now)
        return UNDEFINED if found is None else found
    moment = _iso(value)
    if moment is None:
        raise Failed(
            "D3110: The argument of the toMillis function must be an ISO 8601 formatted timestamp. Given "
            f"{quoted(value)}"
        )
    return _millis_of(moment)


def _iso(value: str) -> datetime | None:
    if len(value) == 4 and value.isdecimal():
        value = f"{value}-01-01"
    elif len(value) == 7 and value[4] == "-":
        value = f"{value}-01"
    if len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


TABLE: Final = {
    "now": ("<s?s?:s>", _now, 0),
    "millis": ("<:n>", _millis, 0),
    "fromMillis": ("<n-s?s?:s>", _from_millis, 3),
    "toMillis": ("<s-s?:n>", _to_millis, 2),
}
