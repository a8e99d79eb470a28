"""Pictures of numbers and times: the library's, behind a typed seam and with bounds on what they are given.

Source: docs.jsonata.org (formatNumber, formatInteger, fromMillis, toMillis), after XPath 3.1, 4.6, 4.7, 9.8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from jsonata.datetimeutils import DateTimeUtils
from jsonata.functions import Functions
from jsonata.jexception import JException

from daemon.language.errors import Failed
from daemon.language.jsonata.patterns import compile_linear
from daemon.language.jsonata.values import Value, quoted

MAX_PICTURE: Final = 200
MAX_WIDTH: Final = 100
MAX_TEXT: Final = 1_000
_WIDTHS: Final = re.compile(r"[,-]\s*([0-9]{3,})")
_LARGEST: Final = 10**18
_MILLIS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

T = TypeVar("T")


def format_number(value: float, picture: str, options: Value) -> str:
    """$formatNumber. Raises Failed."""
    given = options if isinstance(options, dict) else None
    return _call("$formatNumber", picture, lambda: str(Functions.format_number(value, picture, given)))


def format_integer(value: float, picture: str) -> str:
    """$formatInteger. Raises Failed."""
    if abs(value) > _LARGEST:
        raise Failed(f"D1001: Number out of range: {quoted(value)}")
    return _call("$formatInteger", picture, lambda: str(DateTimeUtils.format_integer(int(value), picture)))


def parse_integer(text: str, picture: str) -> int | float:
    """$parseInteger. Raises Failed."""
    _check(text, "$parseInteger")

    def read() -> Any:
        try:
            return DateTimeUtils.parse_integer(text, picture)
        except ValueError:
            return math.nan

    made = _call("$parseInteger", picture, read)
    if not isinstance(made, (int, float)) or isinstance(made, bool):
        raise Failed(f'$parseInteger: "{text[:60]}" does not fit the picture')
    return made


def format_time(millis: float, picture: str | None, zone: str | None) -> str:
    """$fromMillis. Raises Failed."""
    if not -62_135_596_800_000 <= millis <= _MILLIS:
        raise Failed(f"D3110: $fromMillis writes times of the years 1 to 9999, and {millis} is beyond them")
    _check_widths(picture or "", "$fromMillis")
    return _call("$fromMillis", picture or "", lambda: str(DateTimeUtils.format_datetime(int(millis), picture, zone)))


def parse_time(text: str, picture: str, now: datetime) -> int | None:
    """$toMillis with a picture: milliseconds since 1970. None where the text does not fit. Raises Failed.

    The library reads the picture; the text is matched by RE2, and `now` stands in for what is missing at the front.
    """
    _check(text, "$toMillis")
    _check_widths(picture, "$toMillis")
    parts: list[Any] = _call("$toMillis", picture, lambda: _parts(picture))
    pattern = compile_linear("(?i)^" + "".join(f"({regex})" for regex, _ in parts) + "$")
    found = pattern.search(text)
    if found is None:
        return None
    components: dict[str, int] = {}
    for (_, part), group in zip(parts, found.groups(), strict=True):
        if part.component is not None:
            components[part.component] = _call("$toMillis", picture, partial(_read, part, group))
    return _call("$toMillis", picture, lambda: _assembled(components, now))


def _read(part: Any, text: str) -> int:
    return int(part.parse(text))


def _parts(picture: str) -> list[Any]:
    spec = DateTimeUtils._analyse_datetime_picture(picture)
    matcher = DateTimeUtils._generate_regex(spec)
    return [
        (re.escape(str(written.value)) if written.type == "literal" else part.regex, part)
        for written, part in zip(spec.parts, matcher.parts, strict=True)
    ]


def _assembled(components: dict[str, int], now: datetime) -> int | None:
    if not components:
        return None
    if any(part in components for part in "XxWwF") and "D" not in components and "d" not in components:
        raise Failed("D3136: $toMillis cannot read dates by weeks")
    by_day_of_year = "d" in components and "M" not in components
    names = ("Y", "d") if by_day_of_year else ("Y", "M", "D")
    twelve = "h" in components and "H" not in components
    names = (*names, *(("h", "m", "s", "f") if twelve else ("H", "m", "s", "f")))
    today = {"Y": now.year, "M": now.month, "D": now.day, "d": now.timetuple().tm_yday}
    started = ended = False
    made: dict[str, int] = {}
    for name in names:
        if name in components:
            if ended:
                raise Failed("D3136: the picture lacks a part between others")
            started = True
            made[name] = components[name]
        elif started:
            ended = True
            made[name] = 1 if name in "MDd" else 0
        else:
            made[name] = today.get(name, 0)
    if not started:
        return None
    hour = made["h"] % 12 + 12 * components.get("P", 0) if twelve else made["H"]
    begin = datetime(made["Y"], made.get("M", 1), made.get("D", 1), tzinfo=UTC)
    moment = begin + timedelta(days=made.get("d", 1) - 1, hours=hour, minutes=made["m"], seconds=made["s"])
    offset = components.get("Z", components.get("z", 0))
    return int(moment.timestamp()) * 1000 + made["f"] - offset * 60_000


def _check(text: str, name: str) -> None:
    if len(text) > MAX_TEXT:
        raise Failed(f"{name}: the text is longer than {MAX_TEXT:,} characters")


def _check_widths(picture: str, name: str) -> None:
    """A part of a time may say how wide it is, as `[Y,4-4]`."""
    if len(picture) <= MAX_PICTURE and any(int(width) > MAX_WIDTH for width in _WIDTHS.findall(picture)):
        raise Failed(f"{name}: a width is {MAX_WIDTH} at most")


def _call(name: str, picture: str, work: Callable[[], T]) -> T:
    if len(picture) > MAX_PICTURE:
        raise Failed(f"{name}: a picture has {MAX_PICTURE} characters at most")
    try:
        return work()
    except JException as error:
        raise Failed(f"{error.error}: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise Failed(f'{name}: the picture "{picture[:60]}" does not fit what it is given') from error
