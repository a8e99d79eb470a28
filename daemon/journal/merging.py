"""Commits of several sessions as one: each has a shard of its own, and the store is written once for all of them.

While one transaction is being written, what other sessions have ready gathers into the next. What is one session's
fault stays its own: a shard that somebody else has taken leaves the transaction, and one whose rows the store refuses
is written alone, so that its session can find the culprit.
"""

from __future__ import annotations

from collections import deque

import trio

from daemon.stores.faults import BatchRefused, Fenced, StoreUnavailable
from daemon.stores.interface import Store
from daemon.stores.rows import Batch

MERGED_BYTES = 8 * 1024 * 1024
"""Of events in one transaction; one session's batch at least."""


class _Part:
    """One session's batch, and what has come of it."""

    __slots__ = ("batch", "done", "failure", "size")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.size = sum(len(event) for write in batch.runs for event in write.events)
        self.done = trio.Event()
        self.failure: Exception | None = None

    def end(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.done.set()


class MergedCommits:
    """Sessions' batches are of different shards: their order among one another does not matter."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Part] = deque()
        self._some = trio.Event()

    async def commit(self, batch: Batch) -> None:
        """As `Store.commit`. Cancelled: it may be written all the same."""
        part = _Part(batch)
        self._waiting.append(part)
        self._some.set()
        await part.done.wait()
        if part.failure is not None:
            raise part.failure

    async def run(self) -> None:
        """Write, until cancelled: then whoever waits is told that nobody knows."""
        parts: list[_Part] = []
        try:
            while True:
                await self._some.wait()
                self._some = trio.Event()
                while parts := self._take():
                    await self._write(parts)
        finally:
            for part in [*parts, *self._waiting]:
                if not part.done.is_set():
                    part.end(StoreUnavailable("History is ending; whether this was written is not known"))
            self._waiting.clear()

    def _take(self) -> list[_Part]:
        parts: list[_Part] = []
        room = MERGED_BYTES
        while self._waiting and (not parts or self._waiting[0].size <= room):
            part = self._waiting.popleft()
            room -= part.size
            parts.append(part)
        return parts

    async def _write(self, parts: list[_Part]) -> None:
        """Until each of them has an end."""
        while parts:
            try:
                await self._store.commit(_merged(parts))
            except Fenced as fenced:
                lost = set(fenced.shards)
                stale = [part for part in parts if any(shard in lost for shard, _ in part.batch.owned())]
                if not stale:
                    raise
                for part in stale:
                    part.end(Fenced(sorted(lost & {shard for shard, _ in part.batch.owned()})))
                parts = [part for part in parts if not part.done.is_set()]
            except BatchRefused as refused:
                if len(parts) == 1:
                    parts[0].end(refused)
                    return
                for part in parts:
                    await self._write([part])
                return
            except StoreUnavailable as lost_store:
                for part in parts:
                    part.end(StoreUnavailable(str(lost_store)))
                return
            else:
                for part in parts:
                    part.end()
                return


def _merged(parts: list[_Part]) -> Batch:
    if len(parts) == 1:
        return parts[0].batch
    return Batch(
        runs=[write for part in parts for write in part.batch.runs],
        definitions=[write for part in parts for write in part.batch.definitions],
        schedules=[write for part in parts for write in part.batch.schedules],
        purges=[purge for part in parts for purge in part.batch.purges],
    )
