"""How a run's state follows from its events: `state' = evolve(state, event)`.

Only recorded facts are applied here; nothing is decided, evaluated or timed. The state is changed in place: whoever
needs the old one replays it. An event that does not fit the state is a broken history and raises `BrokenHistory`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.execution.evolve_parts import (
    drop_parts,
    items_ended,
    items_started,
    iteration_started,
    map_run_started,
    map_started,
    parallel_started,
    part_ended,
)
from daemon.execution.history import BrokenHistory, inline, payload_of
from daemon.execution.state import (
    FAILURE_CHARACTERS,
    REMEMBERED_FAILURES,
    REMEMBERED_SIGNALS,
    REMEMBERED_TASKS,
    ROOT,
    Branch,
    ChildRef,
    Node,
    Payload,
    Run,
    Task,
    after,
)
from enginekit.messages import events as ev
from enginekit.messages.links import RunRef, TaskKind
from enginekit.messages.status import ExecutionStatus, ReportRefusal

# Looked up once: in Python 3.11 an enum's member is far from free.
_ACTIVITY = TaskKind.ACTIVITY
_SIGNAL = TaskKind.SIGNAL
_RECORDED = ReportRefusal.ALREADY_RECORDED

_variables = msgspec.json.Decoder(dict[str, Raw]).decode


def begin(event: ev.WorkflowStarted, size: int) -> Run:
    """The state after a run's first event."""
    if event.id != 1:
        raise BrokenHistory(f"a history begins with event 1, not {event.id}")
    payload = Payload(event.id, inline(event.input))
    return Run(
        ref=RunRef(event.tenant, event.workflow_id, event.run_id),
        workflow=event.workflow,
        version=event.version,
        definition_hash=event.definition_hash,
        labels=event.labels,
        request_id=event.request_id,
        started_at=event.time,
        deadline=event.timeout_at,
        input=payload,
        parent=event.parent,
        parent_task=event.parent_task,
        last_event_id=1,
        history_bytes=size,
        branches={ROOT: Branch(key=ROOT, parent=0, index=0, payload=payload, next=event.next)},
        ready=[ROOT],
    )


def evolve(run: Run, event: ev.AnyEvent, size: int) -> None:
    """Apply one event of `size` bytes. Raises BrokenHistory."""
    if event.id != run.last_event_id + 1:
        raise BrokenHistory(f"event {event.id} follows event {run.last_event_id}")
    try:
        _APPLY[type(event)](run, event)
        if run.again and isinstance(event, ev.NodeEvent) and event.entry == run.again[0]:
            run.again.pop(0)
    except KeyError as error:
        raise BrokenHistory(f"{type(event).__name__} {event.id} is about something unknown: {error}") from error
    run.last_event_id = event.id
    run.history_bytes += size


def replay(events: list[tuple[ev.AnyEvent, int]]) -> Run:
    """The state after all of these, from the first on. Raises BrokenHistory."""
    first, size = events[0]
    if not isinstance(first, ev.WorkflowStarted):
        raise BrokenHistory(f"a history begins with WorkflowStarted, not {type(first).__name__}")
    run = begin(first, size)
    for event, length in events[1:]:
        evolve(run, event, length)
    return run


# --- the execution -----------------------------------------------------------------------------------------------


def _started(run: Run, event: ev.WorkflowStarted) -> None:
    raise BrokenHistory(f"WorkflowStarted again as event {event.id}")


def _close(run: Run, event: ev.Event, status: ExecutionStatus) -> None:
    """What it stood in is kept, so that it can be redriven, unless it has succeeded."""
    run.status = status
    run.closed_at = event.time
    run.tasks.clear()
    run.mappings.clear()
    run.again.clear()
    if status is ExecutionStatus.SUCCEEDED:
        run.branches.clear()
        run.nodes.clear()
        run.ready.clear()
        run.filling.clear()


def _succeeded(run: Run, event: ev.WorkflowSucceeded) -> None:
    run.output = payload_of(event.id, event.output, event.output_ref, run.branches[ROOT].payload)
    _close(run, event, ExecutionStatus.SUCCEEDED)


def _failed(run: Run, event: ev.WorkflowFailed) -> None:
    run.error, run.cause, run.documented = event.error, event.cause, event.documented
    _close(run, event, ExecutionStatus.FAILED)


def _timed_out(run: Run, event: ev.WorkflowTimedOut) -> None:
    run.error, run.cause = event.error, event.cause
    _close(run, event, ExecutionStatus.TIMED_OUT)


def _cancel_requested(run: Run, event: ev.WorkflowCancelRequested) -> None:
    run.close_request_id = event.request_id


def _canceled(run: Run, event: ev.WorkflowCanceled) -> None:
    run.cause = event.reason or None
    _close(run, event, ExecutionStatus.CANCELED)


def _terminated(run: Run, event: ev.WorkflowTerminated) -> None:
    run.cause = event.reason or None
    run.close_request_id = event.request_id
    _close(run, event, ExecutionStatus.TERMINATED)


def _redriven(run: Run, event: ev.WorkflowRedriven) -> None:
    run.status = ExecutionStatus.RUNNING
    run.closed_at = run.error = run.cause = run.documented = run.close_request_id = None
    run.deadline = event.timeout_at
    run.redrives += 1
    run.redriven_at = event.time
    run.redrive_request_id = event.request_id
    run.letter = 0
    for node in run.nodes.values():
        if node.failed:
            # Not only where it began: the states around it had used up theirs, too.
            node.failed = False
            node.retries = {}
    run.again = list(event.again)
    for entry in event.again:
        node = run.nodes[entry]
        node.mapping = node.result = None
        node.retries = {}
        if node.kind == "Task":
            node.attempt += 1
    if event.entry:
        node = run.nodes[event.entry]
        node.details = None
        payload = Payload(event.id, inline(event.input).copy())
        if node.arguments is None:
            node.input = payload
        else:
            node.arguments = payload
            node.given = True


# --- nodes -------------------------------------------------------------------------------------------------------


def _entered(run: Run, event: ev.NodeEntered) -> None:
    key = run.ready.pop(0)
    branch = run.branches[key]
    payload = payload_of(event.id, event.input, event.input_ref, branch.payload)
    branch.next = None
    branch.node = event.id
    run.nodes[event.id] = Node(
        entry=event.id,
        name=event.node,
        kind=event.kind,
        branch=key,
        path=event.path,
        input=payload,
        entered_at=event.time,
    )


def _leave(run: Run, node: Node, payload: Payload, following: str | None) -> None:
    del run.nodes[node.entry]
    if node.mapping is not None:
        del run.mappings[node.mapping.id]
    branch = run.branches[node.branch]
    branch.node = 0
    branch.payload = payload
    branch.next = following
    if following is not None:
        run.ready.append(branch.key)


def _assign(run: Run, node: Node, assigned: Raw | UnsetType) -> None:
    if assigned is not UNSET:
        run.branches[node.branch].variables |= {name: bytes(value) for name, value in _variables(assigned).items()}


def _exited(run: Run, event: ev.NodeExited) -> None:
    node = run.nodes[event.entry]
    _assign(run, node, event.assigned)
    payload = payload_of(event.id, event.output, event.output_ref, node.result, node.input)
    _leave(run, node, payload, event.next)


def _node_failed(run: Run, event: ev.NodeFailed) -> None:
    node = run.nodes[event.entry]
    if event.next is None:
        node.failed = True
        return
    drop_parts(run, node)
    _assign(run, node, event.assigned)
    payload = node.input if event.output is UNSET else Payload(event.id, event.output)
    _leave(run, node, payload, event.next)


# --- tasks -------------------------------------------------------------------------------------------------------


def _task_scheduled(run: Run, event: ev.TaskScheduled) -> None:
    node = run.nodes[event.entry]
    payload = payload_of(event.id, event.input, event.input_ref, node.arguments, node.input)
    node.arguments = payload
    node.attempt = event.attempt
    node.retry_at = None
    node.task = Task(
        id=event.id,
        kind=event.kind,
        resource=event.resource,
        queue=event.queue,
        attempt=event.attempt,
        priority=event.priority,
        input=payload,
        scheduled_at=event.time,
        queued_at=event.time,
        timeout_seconds=event.timeout_seconds,
        schedule_to_start_seconds=event.schedule_to_start_seconds,
        heartbeat_seconds=event.heartbeat_seconds,
        callback_seconds=event.callback_seconds,
        destination=event.destination,
        child_start=event.child,
    )
    run.tasks[event.id] = event.entry


_AboutTask: TypeAlias = (
    ev.TaskStarted | ev.TaskReturned | ev.TaskSubmitted | ev.ChildWorkflowStarted | ev.ChildWorkflowClosed
)


def _task(run: Run, event: _AboutTask) -> Task:
    task = run.nodes[event.entry].task
    if task is None or task.id != event.task:
        raise BrokenHistory(f"{type(event).__name__} {event.id} is about task {event.task}, which is not running")
    return task


def _task_started(run: Run, event: ev.TaskStarted) -> None:
    task = _task(run, event)
    task.started_at = event.time
    task.worker = event.worker
    task.lease_seconds = event.lease_seconds


def _use(run: Run, event: ev.TaskEnded) -> None:
    if event.usage is not None:
        run.usage = event.usage if run.usage is None else run.usage.plus(event.usage)


def _signal_received(run: Run, event: ev.SignalReceived) -> None:
    run.signals.setdefault(event.name, []).append(Payload(event.id, inline(event.input).copy()))
    if event.request_id is not None:
        run.signal_requests.append(event.request_id)
        del run.signal_requests[:-REMEMBERED_SIGNALS]


def _taken(run: Run, task: Task | None, ref: int) -> Payload | None:
    """The signal that the task has taken, where it waited for one: it is not kept any more."""
    kept = run.signals.get(task.queue) if task is not None and task.kind is _SIGNAL else None
    if task is None or not kept or kept[0].event_id != ref:
        return None
    payload = kept.pop(0)
    if not kept:
        del run.signals[task.queue]
    return payload


def _child_started(run: Run, event: ev.ChildWorkflowStarted) -> None:
    task = _task(run, event)
    task.started_at = event.time
    task.child = ChildRef(workflow_id=event.workflow_id, run_id=event.run_id)


def _child_closed(run: Run, event: ev.ChildWorkflowClosed) -> None:
    _task(run, event)


def _task_submitted(run: Run, event: ev.TaskSubmitted) -> None:
    _use(run, event)
    task = _task(run, event)
    _taken(run, task, event.output_ref)
    task.submitted_at = event.time
    task.worker = None
    task.lease_seconds = None


def _task_returned(run: Run, event: ev.TaskReturned) -> None:
    task = _task(run, event)
    task.started_at = None
    task.worker = None
    task.lease_seconds = None
    task.returns = event.times
    task.queued_at = event.time
    _said(run.nodes[event.entry], event)


def _end_task(run: Run, entry: int, task_id: int, how: ReportRefusal) -> Node:
    node = run.nodes[entry]
    task = node.task
    if task is None or task.id != task_id:
        raise BrokenHistory(f"task {task_id} is not running in node {entry}")
    del run.tasks[task_id]
    node.task = None
    if task.kind is _ACTIVITY or task.callback_seconds is not None:
        run.ended_tasks[task_id] = how
        if len(run.ended_tasks) > REMEMBERED_TASKS:
            del run.ended_tasks[next(iter(run.ended_tasks))]
    return node


def _task_completed(run: Run, event: ev.TaskCompleted) -> None:
    _use(run, event)
    task = run.nodes[event.entry].task
    taken = _taken(run, task, event.output_ref)
    node = _end_task(run, event.entry, event.task, _RECORDED)
    node.result = payload_of(event.id, event.output, event.output_ref, taken, task.input if task else None, node.input)


def _task_failed(run: Run, event: ev.TaskFailed) -> None:
    _use(run, event)
    _note(run, event)
    _said(_end_task(run, event.entry, event.task, ReportRefusal.ALREADY_RECORDED), event)


def _task_timed_out(run: Run, event: ev.TaskTimedOut) -> None:
    _note(run, event)
    _said(_end_task(run, event.entry, event.task, ReportRefusal.TIMED_OUT), event)


def _note(run: Run, event: ev.TaskFailed | ev.TaskTimedOut) -> None:
    """The failure is remembered: it may become part of a dead letter."""
    node = run.nodes[event.entry]
    node.last_error = event.error
    if node.task is not None:
        failure = ev.Failure(
            attempt=node.task.attempt,
            scheduled_at=node.task.scheduled_at,
            failed_at=event.time,
            error=event.error,
            cause=event.cause[:FAILURE_CHARACTERS],
        )
        node.failures.append(failure)
        del node.failures[:-REMEMBERED_FAILURES]


def _dead_lettered(run: Run, event: ev.TaskDeadLettered) -> None:
    run.letter, run.letter_resource = event.id, event.resource


def _said(node: Node, event: ev.TaskFailed | ev.TaskTimedOut | ev.TaskReturned) -> None:
    if event.details is not UNSET:
        node.details = bytes(event.details)


def _task_canceled(run: Run, event: ev.TaskCanceled) -> None:
    _end_task(run, event.entry, event.task, ReportRefusal.CLOSED)


def _retry_scheduled(run: Run, event: ev.TaskRetryScheduled) -> None:
    node = run.nodes[event.entry]
    drop_parts(run, node)
    node.retries[event.retrier] = node.retries.get(event.retrier, 0) + 1
    node.attempt = event.attempt
    node.retry_at = event.at
    node.last_error = event.error
    node.result = None


# --- time --------------------------------------------------------------------------------------------------------


def _timer_started(run: Run, event: ev.TimerStarted) -> None:
    node = run.nodes[event.entry]
    node.timer, node.named = event.fire_at, event.named


def _clock_stepped(run: Run, event: ev.ClockStepped) -> None:
    """Whatever lasts ends later. `Node.named` timers, and what has been, stay as they are."""

    def later(at: datetime | None) -> datetime | None:
        return None if at is None else after(at, event.seconds)

    run.deadline = later(run.deadline)
    for node in run.nodes.values():
        node.retry_at = later(node.retry_at)
        if not node.named:
            node.timer = later(node.timer)
        if node.task is not None:
            node.task.queued_at = after(node.task.queued_at, event.seconds)
            node.task.started_at = later(node.task.started_at)
            node.task.submitted_at = later(node.task.submitted_at)


def _timer_fired(run: Run, event: ev.TimerFired) -> None:
    run.nodes[event.entry].timer = None


# The value type depends on the key, which a dict's type cannot say.
_APPLY: dict[type[ev.Event], Callable[[Run, Any], None]] = {
    ev.WorkflowStarted: _started,
    ev.WorkflowSucceeded: _succeeded,
    ev.WorkflowFailed: _failed,
    ev.WorkflowTimedOut: _timed_out,
    ev.WorkflowCancelRequested: _cancel_requested,
    ev.WorkflowCanceled: _canceled,
    ev.WorkflowTerminated: _terminated,
    ev.WorkflowRedriven: _redriven,
    ev.NodeEntered: _entered,
    ev.NodeExited: _exited,
    ev.NodeFailed: _node_failed,
    ev.TaskScheduled: _task_scheduled,
    ev.TaskStarted: _task_started,
    ev.TaskSubmitted: _task_submitted,
    ev.TaskCompleted: _task_completed,
    ev.TaskFailed: _task_failed,
    ev.TaskTimedOut: _task_timed_out,
    ev.TaskCanceled: _task_canceled,
    ev.TaskDeadLettered: _dead_lettered,
    ev.SignalReceived: _signal_received,
    ev.ChildWorkflowStarted: _child_started,
    ev.ChildWorkflowClosed: _child_closed,
    ev.TaskReturned: _task_returned,
    ev.TaskRetryScheduled: _retry_scheduled,
    ev.TimerStarted: _timer_started,
    ev.TimerFired: _timer_fired,
    ev.ClockStepped: _clock_stepped,
    ev.MapStarted: map_started,
    ev.MapIterationStarted: iteration_started,
    ev.MapIterationEnded: part_ended,
    ev.MapRunStarted: map_run_started,
    ev.MapItemsStarted: items_started,
    ev.MapItemsEnded: items_ended,
    ev.ParallelStarted: parallel_started,
    ev.BranchEnded: part_ended,
}
