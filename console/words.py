"""Numbers and times in words, a row of numbers as a line of blocks, and what a stranger wrote made safe. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"


def safe(text: str, *, lines: bool = False) -> str:
    """Without anything that a terminal would obey: escape sequences, other directions of writing. `lines`: of more
    lines than one; else their ends are spaces."""
    if text.isprintable():
        return text
    kept = "\n" if lines else " "
    return "".join(
        kept if each == "\n" else f"\\x{ord(each):02x}" if unicodedata.category(each) in ("Cc", "Cf") else each
        for each in text
    )


def span(seconds: float) -> str:
    """How long: `0.4 s`, `12 s`, `3 min`, `2 h 5 min`, `4 d 1 h`."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def since(moment: datetime, now: float) -> str:
    """How long ago; `now` in seconds since 1970 UTC."""
    return f"{span(now - moment.timestamp())} ago"


def until(moment: datetime, now: float) -> str:
    """How long still, or since when it is due."""
    left = moment.timestamp() - now
    return f"in {span(left)}" if left >= 0 else f"due for {span(-left)}"


def clock(moment: datetime) -> str:
    """The time of day in UTC, to the second."""
    return moment.strftime("%H:%M:%S")


def day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s" if per_second >= 10 or per_second == 0 else f"{per_second:.1f}/s"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as blocks, the highest of them as the tallest."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    blocks = "".join(BLOCKS[0] if top <= 0 else BLOCKS[round(each / top * (len(BLOCKS) - 1))] for each in shown)
    return blocks.rjust(width)
