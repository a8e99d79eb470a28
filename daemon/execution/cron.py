"""Cron texts: when they fire, in a time zone, and what is wrong with those that cannot be read.

cronsim reads them and walks the calendar as Debian's cron does, daylight saving included; here its answers become
moments in UTC that only go forward. Pure: the zone is handed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

_FIELDS = {
    Field.SECOND: ("second", "0-59"),
    Field.MINUTE: ("minute", "0-59"),
    Field.HOUR: ("hour", "0-23"),
    Field.DAY: ("day of the month", "1-31, L (the last) or LW (the last weekday)"),
    Field.MONTH: ("month", "1-12 or JAN-DEC"),
    Field.DOW: ("day of the week", "0-7 (0 and 7 are Sunday), SUN-SAT, 5L (the last Friday) or 5#2 (the second)"),
}
_SOME_TIME = datetime(2024, 1, 1, tzinfo=UTC)


class CronRefused(Exception):
    """This is no cron text, or one that never fires: which field, and why."""


class Cron:
    """A cron text in a time zone. Raises CronRefused."""

    def __init__(self, text: str, zone: tzinfo) -> None:
        self._text = text
        self._zone = zone
        try:
            CronSim(text, _SOME_TIME)
        except CronSimError:
            raise CronRefused(_fault(text)) from None

    def after(self, moment: datetime) -> datetime | None:
        """The first firing after `moment`, in UTC. None where it never fires again (within fifty years)."""
        return next(self._after(moment), None)

    def first(self, moment: datetime, count: int) -> list[datetime]:
        """The first firings after `moment`, up to `count`."""
        return list(islice(self._after(moment), count))

    def until(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The firings after one moment and up to another: the first `limit` of them."""
        found: list[datetime] = []
        for at in self._after(after):
            if at > until or len(found) == limit:
                break
            found.append(at)
        return found

    def _after(self, moment: datetime) -> Iterator[datetime]:
        last = moment
        try:
            for local in CronSim(self._text, moment.astimezone(self._zone)):
                at = local.astimezone(UTC)
                # In an hour that comes twice it starts from the first one; in one that is left out, several firings
                # fall on one moment.
                if at > last:
                    last = at
                    yield at
        except OverflowError:
            return  # datetimes end


def _fault(text: str) -> str:
    parts = text.upper().split()
    if len(parts) not in (5, 6):
        return (
            f"{text!r} has {len(parts)} field{'' if len(parts) == 1 else 's'}; a cron text has five (minute, hour, day "
            "of the month, month, day of the week), or six with the second before them"
        )
    fields = list(_FIELDS) if len(parts) == 6 else list(_FIELDS)[1:]
    for field, part in zip(fields, parts, strict=True):
        try:
            field.parse(part)
        except CronSimError:
            name, taken = _FIELDS[field]
            return f"{text!r}: {part!r} is no {name}: that is *, or {taken}, with lists, ranges and steps of them"
    return f"{text!r} never fires: no month of it has such a day"
