"""When Python's garbage collector looks: between two pictures, and not while one is being made for somebody who has
pressed a key. Knows nothing of what is collected."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 5.0
"""Nobody presses a key: there is time for all of it, some tens of milliseconds."""
ALL_BEATS: Final = 240
"""At least so many beats between two looks at everything."""
FAR_TOO_MANY: Final = 200_000
"""New objects that are looked at whatever the moment."""


def collecting() -> Callable[[float], None]:
    """From now on garbage is collected when the function that this returns is called, with the seconds in which nobody
    has pressed a key. What there is by now stays for good: it is modules, nearly all of it, and to walk through them
    takes a quarter of a second each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(FAR_TOO_MANY)
    beats = 0

    def between(quiet_seconds: float) -> None:
        nonlocal beats
        beats += 1
        if beats >= ALL_BEATS and quiet_seconds >= QUIET_SECONDS:
            beats = 0
            gc.collect()
        else:
            gc.collect(0)

    return between
