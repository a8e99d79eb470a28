"""Steps that were cut short, one after the other: runs that never rest take turns, and leave time for the others.

A Pass state that points at itself, or a Map over ten thousand items, always has a next step. Were each taken as soon as
the one before is on disk, the loop and the store would have no time for anything else. So there is one step under way
in a session, and after it a pause in proportion, as long as other executions have something to do too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from daemon.journal.live import LiveRun

REST = 3.0
"""The pause after a step, as a multiple of the time that the step and its commit took."""


class Stepper:
    """Calls `proceed` for each run that was added, in turns. `decided` counts a session's decisions: more than the
    step's own mean that others are at work."""

    def __init__(self, proceed: Callable[[LiveRun], None], decided: Callable[[], int]) -> None:
        self._proceed = proceed
        self._decided = decided
        self._waiting: deque[LiveRun] = deque()
        self._some = trio.Event()

    def add(self, live: LiveRun) -> None:
        """The run has a step to take. It stays in memory until then."""
        live.waiters += 1
        self._waiting.append(live)
        self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            while self._waiting:
                begun, before = trio.current_time(), self._decided()
                live = self._waiting.popleft()
                self._proceed(live)
                live.waiters -= 1
                if live.batch is not None:
                    await live.batch.committed.wait()
                else:
                    await trio.lowlevel.checkpoint()
                if self._decided() > before + 1:
                    await trio.sleep(REST * (trio.current_time() - begun))
            self._some = trio.Event()
