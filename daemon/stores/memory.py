"""The memory store: plain dictionaries, no process and no thread, so that a whole daemon runs deterministically.

What it refuses, and in which order it answers, is what every store does; the shared tests hold it to that. Its rows
outlive whoever uses it: restarting History over the same object is a restart over the same store.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from itertools import islice

import msgspec
import trio

from daemon.stores.faults import NoSuchEvent, StoreUnavailable
from daemon.stores.loading import within
from daemon.stores.memory_letters import MemoryLetters
from daemon.stores.memory_owners import MemoryOwners
from daemon.stores.memory_purging import expired_runs, going, unused_texts
from daemon.stores.memory_rows import Rows, RunRows, check
from daemon.stores.memory_schedules import MemorySchedules
from daemon.stores.memory_tasks import MemoryTasks
from daemon.stores.rows import (
    Attendance,
    Batch,
    Definition,
    DefinitionEntry,
    DefinitionWrite,
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
    RunWrite,
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
from enginekit.messages.status import ExecutionStatus

SCHEMA_VERSION = 2
TIDIED_TEXTS = 500
"""In one step."""


class MemoryStore:
    """Implements `Store`. Every call passes a checkpoint; `commit` passes one before it writes and one after.

    `shared`: several daemons in this process may use it, each with some of the shards.
    """

    def __init__(self, shards: int, token_key: bytes, *, shared: bool = False) -> None:
        self._shards = shards
        self._token_key = token_key
        self._shared = shared
        self._owners = MemoryOwners(shards)
        self._rows = Rows(self._owners)
        self._run_ids: dict[str, list[str]] = {}
        self._workflow_runs: dict[tuple[str, str], list[str]] = {}
        self._due: list[tuple[Millis, str]] = []
        self._waiting = MemoryTasks()
        self._effects: list[tuple[str, int]] = []
        self._letters = MemoryLetters()
        self._texts: dict[tuple[str, str], str] = {}
        self._schedules = MemorySchedules()
        self._failure: bool | None = None

    def fail_next_commit(self, *, after_write: bool) -> None:
        """For tests: the next commit raises StoreUnavailable, its batch written or not."""
        self._failure = after_write

    # --- the backend -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def wait_ready(self) -> None:
        await trio.lowlevel.checkpoint()

    @property
    def restarts(self) -> int:
        return 0

    @property
    def ready(self) -> bool:
        return True

    async def info(self) -> StoreInfo:
        await trio.lowlevel.checkpoint()
        return StoreInfo(kind="memory", schema_version=SCHEMA_VERSION, shards=self._shards, shared=self._shared)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def take_shards(self) -> ShardEpochs:
        await trio.lowlevel.checkpoint()
        return self._owned(self._owners.take_all())

    def _owned(self, epochs: dict[int, int]) -> ShardEpochs:
        return ShardEpochs(epochs=epochs, token_key=self._token_key, newest_run_id=max(self._rows.runs, default=None))

    async def attend(self, owner: str, lease_seconds: float) -> Attendance:
        await trio.lowlevel.checkpoint()
        return self._owners.attend(owner, lease_seconds)

    async def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs:
        await trio.lowlevel.checkpoint()
        return self._owned(self._owners.claim(owner, shards))

    async def release_shards(self, owner: str, epochs: dict[int, int]) -> None:
        await trio.lowlevel.checkpoint()
        self._owners.release(owner, epochs)

    async def leave(self, owner: str) -> None:
        await trio.lowlevel.checkpoint()
        self._owners.leave(owner)

    async def commit(self, batch: Batch) -> None:
        await trio.lowlevel.checkpoint()
        failure, self._failure = self._failure, None
        if failure is False:
            raise StoreUnavailable("the commit was made to fail before it was written")
        check(self._rows, self._schedules, batch)
        for definition in batch.definitions:
            self._write_definition(definition)
        for write in batch.runs:
            workflow = (write.run.tenant, write.run.workflow_id)
            if write.closing is not None and self._rows.open_runs.get(workflow) == write.run.run_id:
                del self._rows.open_runs[workflow]
        for write in batch.runs:
            self._write_run(write)
        for schedule in batch.all_schedules():
            self._schedules.write(schedule)
        for ref in going(self._rows, self._letters, batch.purges):
            self._purge(ref)
        if failure is True:
            raise StoreUnavailable("the commit was made to fail after it was written")
        await trio.lowlevel.checkpoint()

    def _write_definition(self, write: DefinitionWrite) -> None:
        text = self._texts.setdefault((write.tenant, write.hash), write.text)
        if write.name is not None and write.version is not None:
            self._rows.definitions.setdefault((write.tenant, write.name), {})[write.version] = Definition(
                name=write.name, version=write.version, hash=write.hash, text=text, registered_at=write.registered_at
            )

    def _write_run(self, write: RunWrite) -> None:
        ref = write.run
        if write.created is not None:
            created = write.created
            execution = Execution(
                run=ref,
                shard=write.shard,
                workflow=created.workflow,
                version=created.version,
                definition_hash=created.definition_hash,
                labels=dict(created.labels),
                request_id=created.request_id,
                status=ExecutionStatus.RUNNING,
                error=None,
                started_at=created.started_at,
                closed_at=None,
                wake_at=None,
                last_event_id=0,
                parent=created.parent,
            )
            self._rows.runs[ref.run_id] = RunRows(execution)
            insort(self._run_ids.setdefault(ref.tenant, []), ref.run_id)
            insort(self._workflow_runs.setdefault((ref.tenant, ref.workflow_id), []), ref.run_id)
            if write.closing is None:
                self._rows.open_runs[ref.tenant, ref.workflow_id] = ref.run_id
            if created.request_id is not None:
                self._rows.requests[ref.tenant, created.request_id] = ref
        run = self._rows.runs[ref.run_id]
        run.events.extend(write.events)
        before = run.execution
        after = msgspec.structs.replace(before, last_event_id=len(run.events))
        if write.reopened:
            after = msgspec.structs.replace(after, status=ExecutionStatus.RUNNING, error=None, closed_at=None)
            if write.closing is None:
                self._rows.open_runs[ref.tenant, ref.workflow_id] = ref.run_id
        if write.closing is not None:
            closing = write.closing
            after = msgspec.structs.replace(
                after, status=closing.status, error=closing.error, closed_at=closing.closed_at
            )
        run.execution = msgspec.structs.replace(after, wake_at=None if after.status.closed else write.wake_at)
        self._move_wake_up(before, run.execution)
        if write.snapshot is not None:
            run.snapshot = write.snapshot
        self._write_tasks(run, write)
        self._write_effects(run, write)
        run.results = [result for result in run.results if result.map_id not in write.results_removed]
        run.results += write.results_added
        self._letters.write(write)

    def _purge(self, ref: RunRef) -> None:
        run = self._rows.runs.pop(ref.run_id)
        for task in run.tasks.values():
            self._waiting.remove(task)
        for names in (self._run_ids[ref.tenant], self._workflow_runs[ref.tenant, ref.workflow_id]):
            del names[bisect_left(names, ref.run_id)]
        if run.execution.request_id is not None:
            del self._rows.requests[ref.tenant, run.execution.request_id]

    def _move_wake_up(self, before: Execution, after: Execution) -> None:
        if before.wake_at is not None:
            del self._due[bisect_left(self._due, (before.wake_at, before.run.run_id))]
        if after.wake_at is not None:
            insort(self._due, (after.wake_at, after.run.run_id))

    def _write_tasks(self, run: RunRows, write: RunWrite) -> None:
        for task in write.tasks_added:
            run.tasks[task.task.event_id] = task
            self._waiting.add(task)
        for event_id in write.tasks_started:
            if event_id in run.tasks:
                self._waiting.remove(run.tasks[event_id])
        for event_id in write.tasks_returned:
            if event_id in run.tasks:
                self._waiting.remove(run.tasks[event_id])
                self._waiting.add(run.tasks[event_id])
        for event_id in write.tasks_removed:
            if event_id in run.tasks:
                self._waiting.remove(run.tasks.pop(event_id))

    def _write_effects(self, run: RunRows, write: RunWrite) -> None:
        run_id = write.run.run_id
        for effect in write.effects_added:
            run.effects[effect.event_id] = effect
            insort(self._effects, (run_id, effect.event_id))
        for event_id in write.effects_removed:
            if run.effects.pop(event_id, None) is not None:
                del self._effects[bisect_left(self._effects, (run_id, event_id))]

    async def tidy(self, now: Millis) -> Tidied:
        await trio.lowlevel.checkpoint()
        unused = unused_texts(self._rows, self._texts)
        for key in unused[:TIDIED_TEXTS]:
            del self._texts[key]
        return Tidied(definitions=len(unused[:TIDIED_TEXTS]), more=len(unused) > TIDIED_TEXTS)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck:
        latest = await self.latest_run(tenant, workflow_id)
        requested = self._rows.requests.get((tenant, request_id)) if request_id is not None else None
        return StartCheck(latest=latest, requested=requested)

    async def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        await trio.lowlevel.checkpoint()
        run_ids = self._workflow_runs.get((tenant, workflow_id))
        if not run_ids:
            return None
        return LatestRun(run_id=run_ids[-1], status=self._rows.runs[run_ids[-1]].execution.status)

    async def execution(self, tenant: str, run_id: str) -> Execution | None:
        await trio.lowlevel.checkpoint()
        run = self._run(tenant, run_id)
        return run.execution if run is not None else None

    async def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]:
        await trio.lowlevel.checkpoint()
        return within(max_bytes, (self._load(ref, fingerprint) for ref in runs))

    def _load(self, ref: RunRef, fingerprint: str) -> StoredRun | None:
        run = self._run(ref.tenant, ref.run_id)
        if run is None:
            return None
        snapshot = run.snapshot if run.snapshot is not None and run.snapshot.fingerprint == fingerprint else None
        tail = run.events[snapshot.event_id if snapshot is not None else 0 :]
        return StoredRun(execution=run.execution, snapshot=snapshot, tail=tail)

    async def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        run = self._run(tenant, run_id)
        page: list[bytes] = []
        taken = 0
        for event in run.events[after_id : after_id + limit] if run is not None else ():
            taken += len(event)
            if page and taken > max_bytes:
                break
            page.append(event)
        return page

    async def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        await trio.lowlevel.checkpoint()
        run = self._run(tenant, run_id)
        events = run.events if run is not None else []
        for event_id in ids:
            if not 1 <= event_id <= len(events):
                raise NoSuchEvent(f"run {run_id} has no event {event_id}")
        return [events[event_id - 1] for event_id in ids]

    async def due_runs(self, before: Millis, limit: int, after: DueRun | None = None) -> list[DueRun]:
        await trio.lowlevel.checkpoint()
        start = bisect_right(self._due, (after.wake_at, after.run.run_id)) if after is not None else 0
        end = bisect_left(self._due, (before, ""))
        page = self._due[start : min(end, start + limit)]
        return [DueRun(run=self._rows.runs[run_id].execution.run, wake_at=wake_at) for wake_at, run_id in page]

    async def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None = None, shards: Sequence[int] | None = None
    ) -> ExpiredRuns:
        await trio.lowlevel.checkpoint()
        return expired_runs(self._rows, self._letters, before, until, limit, after, shards)

    async def effects(
        self, limit: int, after: StoredEffect | None = None, shards: Sequence[int] | None = None
    ) -> list[StoredEffect]:
        await trio.lowlevel.checkpoint()
        start = bisect_right(self._effects, (after.run.run_id, after.effect.event_id)) if after is not None else 0
        found = ((self._rows.runs[run_id], event_id) for run_id, event_id in self._effects[start:])
        wanted = (row for row in found if shards is None or row[0].execution.shard in shards)
        return [
            StoredEffect(run=run.execution.run, effect=run.effects[event_id]) for run, event_id in islice(wanted, limit)
        ]

    async def queue_backlogs(self) -> list[QueueBacklog]:
        await trio.lowlevel.checkpoint()
        return self._waiting.backlogs()

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        await trio.lowlevel.checkpoint()
        return self._waiting.destinations(tenant)

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]:
        await trio.lowlevel.checkpoint()
        return self._waiting.page(queue, limit, after, without)

    async def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        await trio.lowlevel.checkpoint()
        run_ids = self._run_ids.get(wanted.tenant, [])
        end = len(run_ids) if wanted.before_run_id is None else bisect_left(run_ids, wanted.before_run_id)
        page: list[Execution] = []
        for index in range(end - 1, -1, -1):
            if len(page) == wanted.limit:
                break
            execution = self._rows.runs[run_ids[index]].execution
            if _matches(execution, wanted):
                page.append(execution)
        return page

    async def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        await trio.lowlevel.checkpoint()
        run = self._run(tenant, run_id)
        found = [] if run is None else [r for r in run.results if (r.map_id, r.status) == (map_id, status)]
        page: list[MapResult] = []
        taken = 0
        for result in sorted(found, key=lambda result: result.number):
            if result.number <= after:
                continue
            taken += len(result.data)
            if page and taken > max_bytes:
                break
            page.append(result)
        return page

    async def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]:
        await trio.lowlevel.checkpoint()
        return self._letters.list(wanted)

    async def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        await trio.lowlevel.checkpoint()
        return self._letters.get(tenant, run_id, event_id)

    async def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        await trio.lowlevel.checkpoint()
        versions = self._rows.definitions.get((tenant, name))
        if not versions:
            return None
        return versions.get(max(versions) if version is None else version)

    async def definition_text(self, tenant: str, hash: str) -> str | None:
        await trio.lowlevel.checkpoint()
        return self._texts.get((tenant, hash))

    async def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        await trio.lowlevel.checkpoint()
        names = sorted(name for owner, name in self._rows.definitions if owner == tenant)
        start = bisect_right(names, after_name) if after_name is not None else 0
        newest = [max(self._rows.definitions[tenant, name].items())[1] for name in names[start : start + limit]]
        return [DefinitionEntry(name=d.name, version=d.version, registered_at=d.registered_at) for d in newest]

    async def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        await trio.lowlevel.checkpoint()
        return self._schedules.get(tenant, schedule_id)

    async def list_schedules(
        self, tenant: str, limit: int, after_id: str | None, max_bytes: int
    ) -> list[StoredSchedule]:
        await trio.lowlevel.checkpoint()
        return self._schedules.page(tenant, limit, after_id, max_bytes)

    async def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None = None) -> list[DueSchedule]:
        await trio.lowlevel.checkpoint()
        return self._schedules.due(before, limit, after)

    async def waiting_schedules(
        self, limit: int, after: ScheduleRef | None = None, shards: Sequence[int] | None = None
    ) -> list[ScheduleRef]:
        await trio.lowlevel.checkpoint()
        return self._schedules.waiting(limit, after, shards)

    def _run(self, tenant: str, run_id: str) -> RunRows | None:
        run = self._rows.runs.get(run_id)
        return run if run is not None and run.execution.run.tenant == tenant else None


def _matches(execution: Execution, wanted: ExecutionFilter) -> bool:
    return (
        execution.parent == wanted.parent
        and (wanted.status is None or execution.status is wanted.status)
        and (wanted.workflow is None or execution.workflow == wanted.workflow)
        and (wanted.label is None or execution.labels.get(wanted.label[0]) == wanted.label[1])
        and (wanted.started_after is None or execution.started_at > wanted.started_after)
        and (wanted.started_before is None or execution.started_at < wanted.started_before)
    )
