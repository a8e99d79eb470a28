"""The memory store's rows, and what it refuses to do to them: judged by the whole batch before any of it is written."""

from __future__ import annotations

from daemon.stores.batches import check_batch
from daemon.stores.faults import BatchRefused, Fenced
from daemon.stores.memory_owners import MemoryOwners
from daemon.stores.memory_schedules import MemorySchedules
from daemon.stores.rows import Batch, Definition, Effect, Execution, MapResult, RunWrite, Snapshot
from enginekit.messages.links import QueuedTask, RunRef


class RunRows:
    """One run's rows."""

    __slots__ = ("effects", "events", "execution", "results", "snapshot", "tasks")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.events: list[bytes] = []
        self.snapshot: Snapshot | None = None
        self.tasks: dict[int, QueuedTask] = {}
        self.effects: dict[int, Effect] = {}
        self.results: list[MapResult] = []


class Rows:
    """What a batch is judged by."""

    __slots__ = ("definitions", "open_runs", "owners", "requests", "runs")

    def __init__(self, owners: MemoryOwners) -> None:
        self.owners = owners
        self.runs: dict[str, RunRows] = {}
        self.open_runs: dict[tuple[str, str], str] = {}
        self.requests: dict[tuple[str, str], RunRef] = {}
        self.definitions: dict[tuple[str, str], dict[int, Definition]] = {}


def check(rows: Rows, schedules: MemorySchedules, batch: Batch) -> None:
    """Raises Fenced or BatchRefused where the batch cannot be written as it is."""
    check_batch(batch)
    epochs = rows.owners.epochs
    fenced = {shard for shard, epoch in batch.owned() if shard >= len(epochs) or epochs[shard] != epoch}
    if fenced:
        raise Fenced(sorted(fenced))
    for schedule in batch.all_schedules():
        schedules.check(schedule)
    registered: set[tuple[str, str, int]] = set()
    for definition in batch.definitions:
        if definition.name is not None and definition.version is not None:
            key = (definition.tenant, definition.name, definition.version)
            taken = definition.version in rows.definitions.get(key[:2], {})
            if taken or key in registered:
                raise BatchRefused(f"definition {definition.name!r} has a version {definition.version} already")
            registered.add(key)
    open_runs: dict[tuple[str, str], str | None] = {}
    for write in batch.runs:
        if write.closing is not None and write.created is None:
            workflow = (write.run.tenant, write.run.workflow_id)
            if rows.open_runs.get(workflow) == write.run.run_id:
                open_runs[workflow] = None
    requests: set[tuple[str, str]] = set()
    for write in batch.runs:
        if write.created is None:
            _check_known(rows, write)
            if write.reopened:
                workflow = (write.run.tenant, write.run.workflow_id)
                other = open_runs.get(workflow, rows.open_runs.get(workflow))
                if other is not None:
                    raise BatchRefused(f"run {write.run.run_id}: run {other} of {workflow[1]!r} is open")
                open_runs[workflow] = None if write.closing is not None else write.run.run_id
            continue
        run = write.run
        if run.run_id in rows.runs:
            raise BatchRefused(f"run {run.run_id} exists already")
        if write.closing is None:
            workflow = (run.tenant, run.workflow_id)
            other = open_runs.get(workflow, rows.open_runs.get(workflow))
            if other is not None:
                raise BatchRefused(f"run {run.run_id}: run {other} of {run.workflow_id!r} is open")
            open_runs[workflow] = run.run_id
        if write.created.request_id is not None:
            request = (run.tenant, write.created.request_id)
            if request in rows.requests or request in requests:
                raise BatchRefused(f"run {run.run_id}: request_id {request[1]!r} has started a run already")
            requests.add(request)
        _check_keys(write, {}, {})


def _check_known(rows: Rows, write: RunWrite) -> None:
    run = rows.runs.get(write.run.run_id)
    if run is None or run.execution.run != write.run:
        raise BatchRefused(f"run {write.run.run_id} of {write.run.workflow_id!r} does not exist")
    if write.reopened and not run.execution.status.closed:
        raise BatchRefused(f"run {write.run.run_id}: it is open, and cannot be opened again")
    if run.execution.status.closed and write.events and not write.reopened:
        raise BatchRefused(f"run {write.run.run_id}: no events follow, it has closed")
    last = len(run.events)
    if write.events and write.first_event_id != last + 1:
        raise BatchRefused(
            f"run {write.run.run_id}: events from {write.first_event_id} do not follow its last event {last}"
        )
    _check_keys(write, run.tasks, run.effects)


def _check_keys(write: RunWrite, tasks: dict[int, QueuedTask], effects: dict[int, Effect]) -> None:
    added = [task.task.event_id for task in write.tasks_added]
    if len(set(added)) != len(added) or any(event_id in tasks for event_id in added):
        raise BatchRefused(f"run {write.run.run_id}: a task of {added} is there already")
    added = [effect.event_id for effect in write.effects_added]
    if len(set(added)) != len(added) or any(event_id in effects for event_id in added):
        raise BatchRefused(f"run {write.run.run_id}: an effect of {added} is there already")
