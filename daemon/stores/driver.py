"""A store's synchronous side: what a backend implements to be hosted in the driver process (`host.py`).

A backend is opened once and answers on two lanes, each with a thread and a connection of its own: one writes, one
reads. Nothing here may import Trio: this process is small and starts fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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


class Writer(Protocol):
    """The write lane. Raises what `Store` raises; anything else ends the process, and the next one reopens the
    store: after a failed write to disk that is the one way to learn what is on it. StoreLost (of either lane) ends it,
    too, in good order."""

    def take_shards(self) -> ShardEpochs: ...

    def attend(self, owner: str, lease_seconds: float) -> Attendance: ...

    def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs: ...

    def release_shards(self, owner: str, epochs: dict[int, int]) -> None: ...

    def leave(self, owner: str) -> None: ...

    def commit(self, batch: Batch) -> None: ...

    def tidy(self, now: Millis) -> Tidied: ...

    def close(self) -> None: ...


class Reader(Protocol):
    """The read lane: the reads of `Store`, one for one. Each answers from one moment of the store's."""

    def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck: ...

    def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None: ...

    def execution(self, tenant: str, run_id: str) -> Execution | None: ...

    def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]: ...

    def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]: ...

    def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]: ...

    def due_runs(self, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]: ...

    def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None, shards: Sequence[int] | None
    ) -> ExpiredRuns: ...

    def effects(self, limit: int, after: StoredEffect | None, shards: Sequence[int] | None) -> list[StoredEffect]: ...

    def queue_backlogs(self) -> list[QueueBacklog]: ...

    def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]: ...

    def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
    ) -> list[QueuedTask]: ...

    def list_executions(self, wanted: ExecutionFilter) -> list[Execution]: ...

    def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]: ...

    def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]: ...

    def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None: ...

    def definition(self, tenant: str, name: str, version: int | None) -> Definition | None: ...

    def definition_text(self, tenant: str, hash: str) -> str | None: ...

    def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]: ...

    def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None: ...

    def list_schedules(self, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]: ...

    def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]: ...

    def waiting_schedules(
        self, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None
    ) -> list[ScheduleRef]: ...

    def close(self) -> None: ...


class Driver(Protocol):
    """An open backend."""

    @property
    def info(self) -> StoreInfo: ...

    @property
    def writer(self) -> Writer: ...

    @property
    def reader(self) -> Reader: ...

    def close(self) -> None:
        """Close both lanes' connections and let the next process in."""
