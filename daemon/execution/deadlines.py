"""Deadlines of a run: which there are, which is next, and what happens when they pass.

They follow from the state alone, but for what is deliberately not an event: when a worker was last heard of (a
heartbeat would otherwise be a write), and which waiting tasks Matching was already asked about. Both are in `Pulse`,
which may vanish: every worker then counts as heard of at `since`.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from daemon.execution import fanout, nodes, tasks
from daemon.execution.commands import Pulse
from daemon.execution.state import Node, Run, Task, after
from daemon.execution.step import Step
from daemon.execution.timeouts import TIMEOUT, run_timeout_cause
from daemon.language import Wait
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind, TimeoutKind
from enginekit.messages.status import ExecutionStatus

WORKER_GRACE_SECONDS = 60.0
"""How long after a task's own timeouts the daemon's Worker may be late to report them."""


class Due(Enum):
    """What a deadline is about."""

    TIMER = "timer"
    RETRY = "retry"
    PROBE = "probe"
    SCHEDULE_TO_START = "schedule-to-start"
    START_TO_CLOSE = "start-to-close"
    HEARTBEAT = "heartbeat"
    LEASE = "lease"


def next_wake(run: Run, pulse: Pulse) -> datetime | None:
    """When the run has to be looked at next."""
    if run.status is not ExecutionStatus.RUNNING:
        return None
    earliest = run.deadline
    for node in run.nodes.values():
        deadline = node_deadline(node, pulse)
        if deadline is not None and (earliest is None or deadline[0] < earliest):
            earliest = deadline[0]
    return earliest


def node_deadline(node: Node, pulse: Pulse) -> tuple[datetime, Due] | None:
    """The node's next deadline."""
    if node.timer is not None:
        return node.timer, Due.TIMER
    if node.retry_at is not None:
        return node.retry_at, Due.RETRY
    if node.task is not None:
        return _task_deadline(node.task, pulse)
    return None


def _task_deadline(task: Task, pulse: Pulse) -> tuple[datetime, Due]:
    if task.submitted_at is not None:
        return _callback_deadline(task, pulse)
    if not task.kind.queued:
        return after(task.queued_at, task.timeout_seconds), Due.START_TO_CLOSE
    if task.kind is TaskKind.NODE:
        if task.started_at is not None:
            return _handed_deadline(task, pulse)
        if task.id not in pulse.probed:
            return after(task.queued_at, task.schedule_to_start_seconds), Due.PROBE
        # The Worker times it itself; this only ends what it has lost.
        allowed = task.schedule_to_start_seconds + task.timeout_seconds + WORKER_GRACE_SECONDS
        return after(task.queued_at, allowed), Due.START_TO_CLOSE
    if task.started_at is None:
        return after(task.queued_at, task.schedule_to_start_seconds), Due.SCHEDULE_TO_START
    deadline = after(task.started_at, task.timeout_seconds), Due.START_TO_CLOSE
    heard = pulse.heard(task)
    if task.heartbeat_seconds is not None:
        deadline = min(deadline, (after(heard, task.heartbeat_seconds), Due.HEARTBEAT), key=_moment)
    if task.lease_seconds is not None:
        deadline = min(deadline, (after(pulse.leased(task), task.lease_seconds), Due.LEASE), key=_moment)
    return deadline


def _handed_deadline(task: Task, pulse: Pulse) -> tuple[datetime, Due]:
    """Of a node's task that a Worker in another process has. It keeps the task's own times itself."""
    assert task.started_at is not None
    deadline = after(task.started_at, task.timeout_seconds + WORKER_GRACE_SECONDS), Due.START_TO_CLOSE
    if task.lease_seconds is None:
        return deadline
    return min(deadline, (after(pulse.leased(task), task.lease_seconds), Due.LEASE), key=_moment)


def _callback_deadline(task: Task, pulse: Pulse) -> tuple[datetime, Due]:
    """Of a task that waits for its token."""
    assert task.submitted_at is not None
    assert task.callback_seconds is not None
    deadline = after(task.started_at or task.submitted_at, task.callback_seconds), Due.START_TO_CLOSE
    if task.heartbeat_seconds is None:
        return deadline
    heard = max(task.submitted_at, pulse.heard(task))
    return min(deadline, (after(heard, task.heartbeat_seconds), Due.HEARTBEAT), key=_moment)


def _moment(deadline: tuple[datetime, Due]) -> datetime:
    return deadline[0]


def step_clock(step: Step, seconds: float) -> None:
    """The clock was set. Where nothing lasts, that is nothing to tell."""
    run = step.run
    lasting = run.deadline is not None or any(
        node.retry_at is not None or node.task is not None or (node.timer is not None and not node.named)
        for node in run.nodes.values()
    )
    if lasting and not run.status.closed:
        step.emit(ev.ClockStepped(id=step.next_id, time=step.env.now, seconds=seconds))


def wake(step: Step, pulse: Pulse) -> None:
    """Do what is due. What does not fit into one step stays due."""
    run, now = step.run, step.env.now
    if run.status.closed:
        return
    if run.deadline is not None and run.deadline <= now:
        _time_out_run(step)
        return
    for node in list(run.nodes.values()):
        if run.status.closed or step.spent:
            return
        if run.nodes.get(node.entry) is not node:
            continue
        deadline = node_deadline(node, pulse)
        if deadline is not None and deadline[0] <= now:
            step.transitions += 1
            _pass(step, node, deadline[0], deadline[1], pulse)


def _pass(step: Step, node: Node, at: datetime, due: Due, pulse: Pulse) -> None:
    now = step.env.now
    task = node.task
    match due:
        case Due.TIMER:
            _fire(step, node, at)
        case Due.RETRY:
            nodes.attempt(step, node, step.state(node))
        case Due.PROBE:
            assert task is not None
            step.decision.probes.append(task.id)
        case Due.SCHEDULE_TO_START:
            assert task is not None
            waited = tasks.seconds_since(task.queued_at, now)
            tasks.time_out(step, node, task, TimeoutKind.SCHEDULE_TO_START, waited)
        case Due.START_TO_CLOSE:
            assert task is not None
            waited = tasks.seconds_since(task.started_at or task.queued_at, now)
            tasks.time_out(step, node, task, TimeoutKind.START_TO_CLOSE, waited, pulse.said(task.id))
        case Due.HEARTBEAT:
            assert task is not None
            waited = tasks.seconds_since(pulse.heard(task), now)
            tasks.time_out(step, node, task, TimeoutKind.HEARTBEAT, waited, pulse.said(task.id))
        case Due.LEASE:
            assert task is not None
            assert task.worker is not None
            step.decision.silent.append((task.kind, task.queue, task.worker, task.id))
            lapsed = f'the lease of worker "{task.worker}" lapsed ({task.lease_seconds:g} s without a heartbeat)'
            tasks.give_back(step, node, task, lapsed, pulse.said(task.id))


def _fire(step: Step, node: Node, at: datetime) -> None:
    now = step.env.now
    step.emit(
        ev.TimerFired(
            **step.about(node),
            late_seconds=tasks.seconds_since(at, now),
        )
    )
    state = step.state(node)
    assert isinstance(state, Wait)
    nodes.elapse(step, node, state)


def _time_out_run(step: Step) -> None:
    run, now = step.run, step.env.now
    cause = run_timeout_cause(run, step.env.definition)
    fanout.cancel_all(step, "the execution timed out")
    step.emit(
        ev.WorkflowTimedOut(
            id=step.next_id,
            time=now,
            error=TIMEOUT,
            cause=cause,
            waited_seconds=tasks.seconds_since(run.redriven_at or run.started_at, now),
        )
    )
