"""Timestamps as the language writes them: RFC 3339, with an upper-case T, and an upper-case Z or an offset."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def parse_timestamp(text: str) -> datetime | None:
    """The time in UTC, to the microsecond; None for text that is no timestamp."""
    parsed = order_of(text)
    return parsed[0] if parsed is not None else None


def order_of(text: str) -> tuple[datetime, str] | None:
    """What timestamps are ordered by: the time in UTC, then the digits of its fraction beyond the microsecond."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction = match[7] or ""
    zone = match[8]
    try:
        moment = datetime(year, month, day, hour, minute, second, int(fraction[:6].ljust(6, "0")), tzinfo=UTC)
        if zone != "Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
            moment = moment - offset if zone[0] == "+" else moment + offset
    except (ValueError, OverflowError):
        return None
    return moment, fraction[6:].rstrip("0")
