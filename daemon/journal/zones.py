"""Time zones by name, and cron texts in them: what a schedule's two texts mean, or what is wrong with them.

Names are those of the tz database as the package `tzdata` has it, so that they are the same on every machine; what the
machine's own database knows better about one of them counts.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from daemon.execution.cron import Cron, CronRefused
from enginekit.messages.status import ErrorStatus, Refused


@cache
def zone_names() -> frozenset[str]:
    """All there are."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


def zone_of(name: str) -> ZoneInfo:
    """Raises Refused."""
    if name not in zone_names():
        near = difflib.get_close_matches(name, zone_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; an IANA name is wanted, as Europe/Berlin or UTC"
        raise _refused("time_zone", f"there is no time zone {name!r}{hint}")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise _refused("time_zone", f"{name} cannot be read from the tz database: {error}") from error


def cron_of(text: str, zone: str) -> Cron:
    """Raises Refused that names the parameter at fault."""
    found = zone_of(zone)
    try:
        return Cron(text, found)
    except CronRefused as refused:
        raise _refused("cron", str(refused)) from refused


def _refused(field: str, why: str) -> Refused:
    return Refused(ErrorStatus.INVALID_ARGUMENT, f"{field}: {why}", {"field": field})
