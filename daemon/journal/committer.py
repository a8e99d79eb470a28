"""Group commit: one batch after the other, and while one is being written the next gathers.

A batch that the store refuses for its data is split until the culprit stands alone; that run is set aside and the
others are written. Whatever the store does not answer for ends the session: nobody knows what is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from daemon.execution.commands import Pulse
from daemon.journal.batch import Gathering
from daemon.journal.live import LiveRun
from daemon.logs import about
from daemon.metrics import Metrics
from daemon.stores.interface import BatchRefused, Fenced, StoreUnavailable
from daemon.stores.rows import Batch, RunWrite
from enginekit.messages.links import Millis, RunRef

log = structlog.get_logger("history")


class Commits(Protocol):
    """Where batches go."""

    async def commit(self, batch: Batch) -> None:
        """As `Store.commit`."""


class Committer:
    """Takes the gathering batch when the one before is on disk. `commits` is the
    store, or does as it does. `release` is called in the order of commits with
    each batch that is, and its wake-ups; `set_aside` with each run that the store refused, before that."""

    def __init__(
        self,
        commits: Commits,
        pulses: dict[str, Pulse],
        quiet: Pulse,
        batch_bytes: int,
        release: Callable[[Gathering, list[tuple[LiveRun, Millis]]], None],
        set_aside: Callable[[RunRef, str], object],
        metrics: Metrics,
    ) -> None:
        self._commits = commits
        self.settle: Callable[[], None] = lambda: None
        """Called before a batch is taken: whatever has to be in it with what is."""
        self._release = release
        self._set_aside = set_aside
        self._metrics = metrics
        self._batch_bytes = batch_bytes
        self._more = trio.Event()
        self._taken = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self.gathering = Gathering()
        self.committing: Gathering | None = None
        self.committing_since: float | None = None
        self._pulses = pulses
        self._quiet = quiet

    def touch(self) -> None:
        """There is something to commit."""
        if not self._more.is_set():
            self._more.set()

    async def room(self) -> None:
        """Until the gathering batch has room for more: what is decided stays in proportion to what is written."""
        while self.gathering.bytes >= self._batch_bytes:
            await self._taken.wait()

    async def flushed(self) -> None:
        """Until everything gathered so far is on disk."""
        while self.committing is not None or not self.gathering.empty:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    async def run(self) -> None:
        """Commit, until cancelled. Raises StoreUnavailable and Fenced: what is on disk has to be read again."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            self.settle()
            batch = self.gathering
            self.gathering = Gathering()
            self.committing = batch
            self._taken.set()
            self._taken = trio.Event()
            rows, wakes = batch.rows(self._pulses, self._quiet)
            begun = self.committing_since = trio.current_time()
            try:
                # Empty where all that was in it has been set aside: those who wait for the batch go on all the same.
                if not batch.empty:
                    await self._write(rows)
            except (StoreUnavailable, Fenced):
                self._metrics.commit_failed()
                raise
            events = sum(len(run.events) for run in rows.runs)
            self._metrics.committed(len(rows.runs), events, trio.current_time() - begun)
            self.committing = self.committing_since = None
            self._release(batch, wakes)
            self._idle.set()

    async def _write(self, batch: Batch) -> None:
        try:
            await self._commits.commit(batch)
        except BatchRefused as refused:
            parts = _split(batch)
            if len(parts) == 1:
                run = batch.runs[0].run
                log.error("the store refuses an execution's events", why=str(refused), **about(run))
                self._set_aside(run, str(refused))
                return
            for part in parts:
                await self._write(part)


def _split(batch: Batch) -> list[Batch]:
    """The batch in two, registrations and schedules with the first, or purges apart; a batch of one run as it is. The
    texts of inline definitions go with both, as nobody knows which of the runs are theirs.

    Raises AssertionError for those alone: they are checked before they are written, and no purge is refused.
    """
    runs: list[RunWrite] = batch.runs
    assert runs, "the store refuses a definition, a schedule or a purge"
    if batch.purges:
        return [
            Batch(runs=runs, definitions=batch.definitions, schedules=batch.schedules),
            Batch(purges=batch.purges),
        ]
    texts = [each for each in batch.definitions if each.name is None]
    if len(runs) == 1 and len(texts) == len(batch.definitions) and not batch.schedules:
        return [batch]
    middle = len(runs) // 2
    first = Batch(runs=runs[:middle], definitions=batch.definitions, schedules=batch.schedules)
    return [first, Batch(runs=runs[middle:], definitions=texts)]
