"""The store: one interface, one folder or file a backend.

A store keeps rows and the order of events. It decides nothing: numbering, epochs and the immutability of events are
checked here as the last line of defence, everything else is History's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from daemon.stores.faults import BatchRefused, Fenced, NoSuchEvent, StoreUnavailable, StoreUnusable
from daemon.stores.rows import (
    Attendance,
    Batch,
    Definition,
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
    Execution,
    ExecutionFilter,
    ExpiredRuns,
    LatestRun,
    LetterFilter,
    MapResult,
    QueueBacklog,
    ShardEpochs,
    StartCheck,
    StoredEffect,
    StoredLetter,
    StoredRun,
    StoredSchedule,
    StoreInfo,
    TaskCursor,
    Tidied,
)
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef

__all__ = ["BatchRefused", "Fenced", "NoSuchEvent", "Store", "StoreUnavailable", "StoreUnusable"]


class Store(Protocol):
    """Every method may raise StoreUnavailable. Cancelling a read drops its answer; cancelling `commit` leaves its
    outcome unknown."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own whatever the backend needs (a driver process, restarted when it dies) until cancelled. Reports started
        once the store is open. Raises StoreUnusable."""

    async def wait_ready(self) -> None:
        """Return as soon as calls can succeed (again)."""

    @property
    def restarts(self) -> int:
        """How often the backend has been lost and reopened."""

    @property
    def ready(self) -> bool:
        """Whether calls can succeed right now, as far as is known."""

    async def info(self) -> StoreInfo: ...

    async def take_shards(self) -> ShardEpochs:
        """Raise every shard's epoch by one and own them: whoever had them before is fenced from now on. For whoever
        has the store to itself."""

    # Of a store that is shared, each of its owners has some of the shards. An owner is a name, new for every start of a
    # daemon; it has a lease, by the store's own clock, and its shards are its own until it gives them up, or its lease
    # has lapsed and another takes them. Only the epoch decides who may write: a lease only says when it may be raised.
    # None of it may be asked of a store that is not shared (`StoreInfo.shared`).

    async def attend(self, owner: str, lease_seconds: float) -> Attendance:
        """Begin the owner's lease, or renew it."""

    async def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs:
        """Own those of them that nobody has, or whose owner has let its lease lapse, at an epoch raised by one: in the
        answer are only those. An owner without a lease gets none. A commit of a former owner that is under way ends
        first, or is ended."""

    async def release_shards(self, owner: str, epochs: dict[int, int]) -> None:
        """Give up these shards, where the owner still has them at these epochs: anybody may claim them at once."""

    async def leave(self, owner: str) -> None:
        """End the owner's lease, and give up all it has."""

    async def commit(self, batch: Batch) -> None:
        """Write all of it, durably, in one transaction. Raises Fenced or BatchRefused when nothing was written.

        A batch is judged by what it leaves behind: a run that closes makes room for another of its `workflow_id` in
        the same batch. A closed run takes no more events, unless it is `reopened`, and has no `wake_at`; its effects
        and dead letters can still be removed. Tasks, effects and letters to be marked or removed that are not there
        are passed over, and so are runs to be purged that have to stay (`Purge`).
        """

    async def tidy(self, now: Millis) -> Tidied:
        """One step of removing what purged runs leave behind and nobody refers to: partitions of months in which no
        run is kept, where the store keeps events by their time; texts of definitions that are not registered and that
        no run was started by; names that stand in no row. What somebody holds on to just now stays for the next time.

        A step takes no longer than a commit does. To be asked again while there is `more`; several may ask at once.
        Whoever starts a run by a definition that is not registered writes its text in the same commit.
        """

    # Reads see every commit that has returned.

    async def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck: ...

    async def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None: ...

    async def execution(self, tenant: str, run_id: str) -> Execution | None: ...

    async def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]:
        """The snapshot of that fingerprint, and the events after it, of each (by tenant and run_id), None for one that
        is not there. Of the first of them only, up to the one with which they have `max_bytes` between them."""

    async def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        """Consecutive events from `after_id + 1`: at most `limit`, stopping before `max_bytes` (but at least one)."""

    async def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        """These events, in the order asked for. Raises NoSuchEvent when one is not there."""

    async def due_runs(self, before: Millis, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Open runs with `wake_at < before`, in the order of (wake_at, run_id), from behind `after`."""

    async def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None = None, shards: Sequence[int] | None = None
    ) -> ExpiredRuns:
        """Of the next `limit` runs in the order of run_id, from behind `after` and up to `until`, those that a Purge
        with `closed_before=before` would take now: of these shards, as for effects."""

    async def effects(
        self, limit: int, after: StoredEffect | None = None, shards: Sequence[int] | None = None
    ) -> list[StoredEffect]:
        """Effects not yet removed, of these shards' runs (None: of all), in the order of (run_id, event_id), from
        behind `after`. A store that is not shared has one owner, and always answers those of all."""

    async def queue_backlogs(self) -> list[QueueBacklog]: ...

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        """The tenant's queue_backlogs, by the destinations of their tasks, in the order of their names."""

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]:
        """Tasks of a queue that no worker in another process has, in its order, from behind `after`: but for those of
        the destinations `without`."""

    async def list_executions(self, wanted: ExecutionFilter) -> list[Execution]: ...

    async def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        """Results of a distributed Map's runs that closed with `status`, in the order of their numbers, from behind
        number `after`: no more than `max_bytes`, but one at least."""

    async def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]: ...

    async def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None: ...

    async def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        """That version, or the newest."""

    async def definition_text(self, tenant: str, hash: str) -> str | None: ...

    async def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        """The newest version of each name, in the order of names."""

    async def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None: ...

    async def list_schedules(
        self, tenant: str, limit: int, after_id: str | None, max_bytes: int
    ) -> list[StoredSchedule]:
        """In the order of their ids, from behind `after_id`: no more than `max_bytes` of data, but one at least."""

    async def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None = None) -> list[DueSchedule]:
        """Schedules with `next_at < before`, in the order of (next_at, tenant, id), from behind `after`."""

    async def waiting_schedules(
        self, limit: int, after: ScheduleRef | None = None, shards: Sequence[int] | None = None
    ) -> list[ScheduleRef]:
        """Schedules of these shards (None: of all) with a firing that waits for an execution to close, in the order of
        (tenant, id), from behind `after`. As for effects."""
