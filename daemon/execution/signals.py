"""Signals: they are kept in the run, first in first out by name, until a task `signal:NAME` takes one.

A task that waits for a signal is in no queue and with no worker; the first of those that wait gets the next signal.
"""

from __future__ import annotations

from daemon.execution import tasks
from daemon.execution.commands import Signal
from daemon.execution.state import Node, Run, Task
from daemon.execution.step import Step
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind
from enginekit.messages.json import size
from enginekit.messages.status import ErrorStatus, Refused


def receive(step: Step, command: Signal) -> None:
    """A signal has come. Raises Refused: the run has closed, or too many wait already."""
    run, env = step.run, step.env
    if command.request_id is not None and command.request_id in run.signal_requests:
        return
    if run.status.closed:
        raise Refused(
            ErrorStatus.FAILED_PRECONDITION,
            f'the execution "{run.ref.workflow_id}" (run {run.ref.run_id}) has closed: {run.status.value}',
            {"reason": "CLOSED"},
        )
    waiting = _waiting_for(run, command.name)
    if waiting is None:
        _check_room(step, command)
    step.emit(
        ev.SignalReceived(
            id=step.next_id,
            time=env.now,
            by=env.by,
            name=command.name,
            input=command.input,
            request_id=command.request_id,
        )
    )
    if waiting is not None:
        take(step, *waiting)


def take(step: Step, node: Node, task: Task) -> bool:
    """Complete the task with the oldest signal of its name that waits, if one does."""
    kept = step.run.signals.get(task.queue)
    if not kept:
        return False
    tasks.was_run_as(step, node, task, kept[0])
    return True


def _check_room(step: Step, command: Signal) -> None:
    limits = step.env.limits
    kept = [payload for payloads in step.run.signals.values() for payload in payloads]
    held = sum(size(payload.raw) for payload in kept)
    if len(kept) >= limits.signals or held + size(command.input) > limits.signal_bytes:
        raise Refused(
            ErrorStatus.RESOURCE_EXHAUSTED,
            f"{len(kept):,} signals with {held:,} bytes wait in the execution for a state that takes them; at most "
            f"{limits.signals:,} and {limits.signal_bytes:,} bytes may",
            {"retry_after_seconds": 5.0},
        )


def _waiting_for(run: Run, name: str) -> tuple[Node, Task] | None:
    for entry in run.tasks.values():
        node = run.nodes[entry]
        task = node.task
        if task is not None and task.kind is TaskKind.SIGNAL and task.queue == name and task.submitted_at is None:
            return node, task
    return None
