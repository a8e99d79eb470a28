"""What is told of a task to those who bring it to a worker and to those who run it."""

from __future__ import annotations

from daemon.clock import millis
from daemon.execution.state import Node, Task
from daemon.journal.live import LiveRun
from enginekit.messages.events import TaskKind
from enginekit.messages.json import size
from enginekit.messages.links import OfferTask, QueuedTask, QueueKey, TaskRef, TaskSpec

SPEC_BYTES = 64 * 1024
"""A task's input up to this size rides along with its offer; a larger one is asked for when a worker takes it."""


def task_of(live: LiveRun, task_id: int) -> tuple[Node, Task]:
    """A task that is scheduled or running. Raises KeyError for another."""
    node = live.run.nodes[live.run.tasks[task_id]]
    assert node.task is not None
    return node, node.task


def offer_of(live: LiveRun, task_id: int) -> OfferTask:
    """For Matching."""
    _, task = task_of(live, task_id)
    queued = QueuedTask(
        task=TaskRef(live.run.ref, task_id),
        queue=QueueKey(live.run.ref.tenant, task.kind, task.queue),
        priority=task.priority,
        scheduled_at=millis(task.queued_at),
        destination=task.destination,
    )
    rides_along = task.kind is TaskKind.NODE and size(task.input.raw) <= SPEC_BYTES
    return OfferTask(queued, spec_of(live, task_id) if rides_along else None)


def spec_of(live: LiveRun, task_id: int) -> TaskSpec:
    """For the daemon's Worker."""
    node, task = task_of(live, task_id)
    return TaskSpec(
        task=TaskRef(live.run.ref, task_id),
        resource=task.resource,
        node=node.name,
        path=node.path,
        input=task.input.raw,
        attempt=task.attempt,
        timeout_seconds=task.timeout_seconds,
        idempotency_key=idempotency_key(live, node),
        heartbeat_seconds=task.heartbeat_seconds,
        destination=task.destination,
    )


def idempotency_key(live: LiveRun, node: Node) -> str:
    """Equal across the attempts of one entry into the node; another one where it was redriven with another input."""
    key = f"{live.run.ref.run_id}:{node.entry}"
    return f"{key}:{node.arguments.event_id}" if node.given and node.arguments is not None else key
