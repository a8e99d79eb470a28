"""Rows and batches as the stores' tests need them."""

from __future__ import annotations

import uuid

from daemon.journal.identity import uuid_of
from daemon.stores.interface import Store
from daemon.stores.rows import Batch, Closing, Effect, NewExecution, RunWrite, ScheduleWrite, StoredRun
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, RunRef, ScheduleRef, TaskRef
from enginekit.messages.status import ExecutionStatus

NOW = 1_800_000_000_000
QUEUE = QueueKey("acme", TaskKind.NODE, "echo")


def ref(number: int, *, workflow_id: str | None = None, tenant: str = "acme") -> RunRef:
    """`run_id`s grow with `number`."""
    run_id = str(uuid_of(NOW + number, 0, 0))
    return RunRef(tenant, f"order-{number}" if workflow_id is None else workflow_id, run_id)


async def loaded_run(store: Store, run: RunRef, fingerprint: str = "") -> StoredRun | None:
    (stored,) = await store.load_runs([run], fingerprint, 1)
    return stored


def number_of(run: RunRef) -> int:
    """What `ref` made it of."""
    return (uuid.UUID(run.run_id).int >> 80) - NOW


def new(
    *,
    workflow: str | None = "order",
    labels: dict[str, str] | None = None,
    request_id: str | None = None,
    started_at: int = NOW,
    parent: str | None = None,
) -> NewExecution:
    return NewExecution(
        workflow=workflow,
        version=None if workflow is None else 1,
        definition_hash="a" * 64,
        labels=labels if labels is not None else {},
        request_id=request_id,
        started_at=started_at,
        parent=parent,
    )


def event(run: RunRef, event_id: int, size: int = 0) -> bytes:
    return f'{{"id":{event_id},"run":"{run.run_id}"}}'.encode().ljust(size)


def numbered(run: RunRef, first: int, count: int) -> list[bytes]:
    return [event(run, event_id) for event_id in range(first, first + count)]


def start(
    run: RunRef,
    *,
    created: NewExecution | None = None,
    events: int = 1,
    wake_at: int | None = None,
    closing: Closing | None = None,
    tasks: list[QueuedTask] | None = None,
    effects: list[Effect] | None = None,
    epoch: int = 1,
    shard: int = 0,
) -> RunWrite:
    return RunWrite(
        shard=shard,
        epoch=epoch,
        run=run,
        first_event_id=1,
        events=numbered(run, 1, events),
        wake_at=wake_at,
        created=created if created is not None else new(),
        closing=closing,
        tasks_added=tasks if tasks is not None else [],
        effects_added=effects if effects is not None else [],
    )


def append(
    run: RunRef,
    first: int,
    count: int = 1,
    *,
    wake_at: int | None = None,
    closing: Closing | None = None,
    epoch: int = 1,
) -> RunWrite:
    return RunWrite(
        shard=0,
        epoch=epoch,
        run=run,
        first_event_id=first,
        events=numbered(run, first, count),
        wake_at=wake_at,
        closing=closing,
    )


def closed(status: ExecutionStatus = ExecutionStatus.SUCCEEDED, error: str | None = None) -> Closing:
    return Closing(status=status, error=error, closed_at=NOW + 1000)


def queued(
    run: RunRef,
    event_id: int,
    *,
    queue: QueueKey = QUEUE,
    priority: int = 0,
    scheduled_at: int = NOW,
    destination: str | None = None,
) -> QueuedTask:
    return QueuedTask(TaskRef(run, event_id), queue, priority, scheduled_at, destination)


def effect(event_id: int, kind: str = "child") -> Effect:
    return Effect(event_id=event_id, kind=kind, data=b"what to do")


def batch(*runs: RunWrite) -> Batch:
    return Batch(runs=list(runs))


def schedule(
    name: str,
    revision: int = 1,
    *,
    next_at: int | None = None,
    waiting: bool = False,
    data: bytes | None = b"what to do when",
    tenant: str = "acme",
    epoch: int = 1,
    shard: int = 0,
) -> ScheduleWrite:
    return ScheduleWrite(
        shard=shard,
        epoch=epoch,
        schedule=ScheduleRef(tenant, name),
        revision=revision,
        next_at=next_at,
        waiting=waiting,
        data=data,
    )
