"""Wall-clock time for the services: real, or derived from Trio's clock so that a mock clock moves it.

Only shells read a clock. `language/` and `execution/` are handed the time. Whoever is told durations as moments of the
wall clock watches over its steps with a `StepWatch`.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Final, Protocol

import trio

from enginekit.messages.links import Millis

_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

STEP_MILLIS: Final = 1000
"""Less than this between two looks is no step: clocks are kept right by running a little faster or slower."""


class Clock(Protocol):
    """`now`: milliseconds since 1970 UTC, which anybody may set. `elapsed`: milliseconds since some moment, which
    nobody can; the time that a machine was asleep counts where the system can tell."""

    @property
    def real(self) -> bool:
        """Whether it goes on by itself. A simulated one stands still for the loop and jumps while a thread works."""

    def now(self) -> Millis: ...

    def elapsed(self) -> Millis: ...


class WallClock:
    """The machine's clock."""

    real = True

    def now(self) -> Millis:
        return time.time_ns() // 1_000_000

    def elapsed(self) -> Millis:
        return time.clock_gettime_ns(_STEADY) // 1_000_000


class TrioClock:
    """Starts at `start` and moves with `trio.current_time()`: under `MockClock` it is the whole daemon's time."""

    real = False

    def __init__(self, start: Millis = 1_767_225_600_000) -> None:
        self._start = start
        self._origin: float | None = None

    def now(self) -> Millis:
        current = trio.current_time()
        if self._origin is None:
            self._origin = current
        return self._start + round((current - self._origin) * 1000)

    def elapsed(self) -> Millis:
        return round(trio.current_time() * 1000)


class StepWatch:
    """Tells that a clock was set, from one look to the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.now() - clock.elapsed()

    def look(self) -> Millis:
        """By how much it was set since the last look; mostly 0."""
        begun = self._clock.elapsed()
        now = self._clock.now()
        if self._clock.elapsed() - begun > STEP_MILLIS // 10:
            return 0  # whoever looks was held up between the two clocks: the next look will do
        offset = now - begun
        step, self._offset = offset - self._offset, offset
        return step if abs(step) >= STEP_MILLIS else 0


def time_is_real() -> bool:
    """Whether the loop's time goes on by itself, so that a thread may be waited for: a mock clock stands still for the
    loop, and jumps while a thread works."""
    # Importing it would import pytest; whoever has a mock clock has imported it.
    testing = sys.modules.get("trio.testing")
    return testing is None or not isinstance(trio.lowlevel.current_clock(), testing.MockClock)


def moment(millis: Millis) -> datetime:
    """As a UTC datetime, exact to the millisecond."""
    return datetime.fromtimestamp(millis // 1000, UTC).replace(microsecond=millis % 1000 * 1000)


def millis(at: datetime) -> Millis:
    """As milliseconds since 1970, rounded down."""
    return int(at.timestamp()) * 1000 + at.microsecond // 1000
