"""What a session does when the machine's clock is set: executions wait as long as they would have.

Deadlines are moments of the wall clock, so that they last over restarts. When somebody sets that clock, those that
stand for a duration are moved along by an event of each execution that has some (`ClockStepped`): of those in memory at
once, of those that are due within a day by and by, and of any that something is decided about before it is its turn.
What is further away goes by the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.clock import StepWatch
from daemon.execution.commands import StepClock
from daemon.journal.live import LiveRun
from daemon.stores.rows import DueRun
from enginekit.messages.links import Millis
from enginekit.messages.status import Refused

if TYPE_CHECKING:
    from daemon.journal.session import Session

log = structlog.get_logger("history")

AHEAD_MILLIS: Final = 86_400_000
PAGE_RUNS: Final = 256


class ClockSteps:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._watch = StepWatch(session.clock)
        self._total: Millis = 0
        """All steps so far."""
        self._settled: Millis = 0
        """Those that all executions know of."""
        self._known: dict[str, Millis] = {}
        """What single executions know of beyond that, by run_id."""

    def look(self) -> None:
        """Look at the clock, and do what it takes when it was set."""
        step = self._watch.look()
        if not step:
            return
        session = self._session
        seconds = step / 1000
        log.warning("the machine's clock was set; what lasts goes on as it was", seconds=seconds)
        going_on = self._total != self._settled
        self._total += step
        for pulse in (session.quiet, *session.pulses.values()):
            pulse.step(seconds)
        for live in session.runs.all():
            self.settle(live)
        if not going_on:
            session.nursery.start_soon(self._tell_all)

    def settle(self, live: LiveRun) -> None:
        """Before anything is decided about a run, it knows of all steps."""
        if self._total == self._settled:
            return
        run_id = live.run.ref.run_id
        owed = self._total - self._known.get(run_id, self._settled)
        self._known[run_id] = self._total
        if owed and not live.run.status.closed:
            self._session.act_quietly(live, StepClock(seconds=owed / 1000))

    def begun(self, run_id: str) -> None:
        """A run that starts now goes by the clock as it is."""
        if self._total != self._settled:
            self._known[run_id] = self._total

    async def _tell_all(self) -> None:
        while self._total != self._settled:
            told = self._total
            await self._tell()
            if told == self._total:
                self._settled = told
                self._known.clear()

    async def _tell(self) -> None:
        """All that are due within a day, by the clock as it was."""
        session = self._session
        before = session.clock.now() - (self._total - self._settled) + AHEAD_MILLIS
        after: DueRun | None = None
        while page := await session.store.due_runs(before, PAGE_RUNS, after):
            after = page[-1]
            for row in page:
                if session.across.owns(row.run) and self._known.get(row.run.run_id) != self._total:
                    await self._tell_one(row)
            await session.committer.room()

    async def _tell_one(self, row: DueRun) -> None:
        done = trio.Event()

        def settle(live: LiveRun) -> None:
            self.settle(live)
            done.set()

        def lost(refused: Refused) -> None:
            done.set()

        self._session.when_live(row.run, settle, lost)
        await done.wait()
