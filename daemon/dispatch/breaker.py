"""One circuit breaker, as a state machine: closed, open, half-open.

*Closed*, every call is let through, and how it went is counted over a sliding window. Once the window has enough calls
and too many of them failed it *opens*: nothing is let through for `open_seconds`. Then it is *half-open*: at most
`probes` calls are under way, and the first that fails opens it again; when `probes` of them have gone well it is
closed, with an empty window.

Reports that say nothing of the present are passed over: those of calls that began before it opened, while it is open or
half-open, and those of calls that began before it closed. A probe that is not heard of keeps its place for
`open_seconds`, then another may go; if it does report in the end, that counts.

Pure: the time is passed in, in seconds of any clock that does not go back, and nothing is sent or logged.
"""

from __future__ import annotations

from collections import deque

from daemon.settings import BreakerSettings
from enginekit.messages.links import TaskRef
from enginekit.messages.status import BreakerState

BUCKETS = 10
"""The window moves by a tenth of its length."""
PROBES_REMEMBERED = 10
"""For every probe that may be under way, so many are waited for that have lost their place."""


class Window:
    """Calls of the last `seconds`, and how many of them failed."""

    __slots__ = ("_buckets", "_width", "calls", "failures")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._buckets: deque[list[int]] = deque()
        self.calls = 0
        self.failures = 0

    @property
    def failure_rate(self) -> float:
        """From 0 to 1; 0 where there were no calls."""
        return self.failures / self.calls if self.calls else 0.0

    def add(self, failed: bool, now: float) -> None:
        self.forget(now)
        number = int(now // self._width)
        if not self._buckets or self._buckets[-1][0] != number:
            self._buckets.append([number, 0, 0])
        bucket = self._buckets[-1]
        bucket[1] += 1
        bucket[2] += failed
        self.calls += 1
        self.failures += failed

    def forget(self, now: float) -> None:
        """Let go of what was before the window."""
        first = int(now // self._width) - BUCKETS
        while self._buckets and self._buckets[0][0] <= first:
            _, calls, failures = self._buckets.popleft()
            self.calls -= calls
            self.failures -= failures

    def clear(self) -> None:
        self._buckets.clear()
        self.calls = self.failures = 0


class Breaker:
    """One breaker, closed at first. Time that has passed counts once it is told, with `mind` or any report."""

    __slots__ = (
        "_counted_from",
        "_healthy",
        "_now",
        "_opened_rate",
        "_probes",
        "_settings",
        "_window",
        "heard",
        "since",
        "state",
    )

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self._settings = settings
        self._window = Window(settings.window_seconds)
        self._now = now
        self._counted_from = float("-inf")
        self._opened_rate = 0.0
        self._probes: dict[TaskRef, float] = {}
        self._healthy = 0
        self.state = BreakerState.CLOSED
        self.since = now
        """When it came into this state."""
        self.heard = now
        """When the last report came, or the last change."""

    # --- what happens ------------------------------------------------------------------------------------------------

    def mind(self, now: float) -> bool:
        """It is `now`. Whether the state has changed."""
        self._now = max(self._now, now)
        if self.state is BreakerState.OPEN and self._now >= self.since + self._settings.open_seconds:
            self._become(BreakerState.HALF_OPEN)
            return True
        return False

    def begin(self, task: TaskRef, now: float) -> None:
        """A task was let through. Half-open, it is a probe."""
        self.mind(now)
        if self.state is BreakerState.HALF_OPEN:
            self._probes[task] = self._now + self._settings.open_seconds
            if len(self._probes) > PROBES_REMEMBERED * self._settings.probes:
                del self._probes[next(iter(self._probes))]

    def report(self, task: TaskRef, healthy: bool, began: float | None, now: float) -> bool:
        """How a call went that began at `began`, where that is known. Whether the state has changed."""
        changed = self.mind(now)
        self.heard = self._now
        if self.state is BreakerState.CLOSED:
            if began is not None and began < self._counted_from:
                return changed
            self._window.add(not healthy, self._now)
            enough = self._window.calls >= self._settings.minimum_calls
            if enough and self._window.failure_rate >= self._settings.failure_rate:
                self._opened_rate = self._window.failure_rate
                self._become(BreakerState.OPEN)
                return True
        elif self.state is BreakerState.HALF_OPEN and self._probes.pop(task, None) is not None:
            self._healthy += healthy
            if not healthy:
                self._become(BreakerState.OPEN)
                return True
            if self._healthy >= self._settings.probes:
                self.close()
                return True
        return changed

    def abandon(self, task: TaskRef) -> bool:
        """A task that was let through will never report. Whether it was a probe, whose place is free now."""
        return self._probes.pop(task, None) is not None

    def close(self) -> None:
        """Begin anew."""
        self._window.clear()
        self._counted_from = self._now
        self._become(BreakerState.CLOSED)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.since = self.heard = self._now
        self._probes.clear()
        self._healthy = 0

    # --- what it looks like ------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self.state is BreakerState.CLOSED

    @property
    def probing(self) -> int:
        """Probes that are under way and have their place."""
        return sum(until > self._now for until in self._probes.values())

    @property
    def places(self) -> int:
        """Half-open: how many more probes may go. Open: none. A closed one lets everything through."""
        if self.state is not BreakerState.HALF_OPEN:
            return 0
        return max(self._settings.probes - self._healthy - self.probing, 0)

    def next_at(self) -> float | None:
        """When it has to be minded next: it becomes half-open, or a probe loses its place."""
        if self.state is BreakerState.OPEN:
            return self.since + self._settings.open_seconds
        return min((until for until in self._probes.values() if until > self._now), default=None)

    def failure_rate(self, now: float) -> float:
        """Closed: of the window. Else: the one that opened it."""
        if not self.closed:
            return self._opened_rate
        self._window.forget(now)
        return self._window.failure_rate
