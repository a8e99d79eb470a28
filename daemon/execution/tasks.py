"""Tasks: one attempt of a Task state after the other, and the reports that end them.

Exactly one outcome counts. A report about an attempt that is not running (any more) is refused with the reason, and
writes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import UNSET, Raw, UnsetType

from daemon.execution import nodes
from daemon.execution.commands import CompleteTask, FailTask, RecordOutcome, ReturnTask, StartTask
from daemon.execution.state import Node, Payload, Run
from daemon.execution.state import Task as Attempt
from daemon.execution.step import Step
from daemon.execution.timeouts import timeout_cause
from daemon.execution.tokens import CALLBACK
from daemon.execution.transient import is_transient
from daemon.language import StateError, Task, task_result
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind, TimeoutKind, Usage
from enginekit.messages.status import ErrorStatus, Refused, ReportRefusal

WORKER_LOST = "Engine.WorkerLost"


class Kept(NamedTuple):
    """What is kept of an attempt beside its output or error."""

    log: str = ""
    usage: Usage | None = None


NOTHING_KEPT = Kept()


def default_retry_delay(step: Step, node: Node, state: Task, error: str) -> float | None:
    """Seconds until the next attempt by engine.toml's policy; None where it does not apply or is used up."""
    defaults = step.env.defaults
    used = node.retries.get(nodes.DEFAULT_RETRIER, 0)
    if state.retry or state.resource.arn or used >= defaults.retry_attempts:
        return None
    if not is_transient(error, state.resource.name, None if node.arguments is None else step.value(node.arguments)):
        return None
    ceiling = min(defaults.retry_interval_seconds * defaults.retry_backoff_rate**used, defaults.retry_max_delay_seconds)
    return ceiling * (0.5 + step.env.random() / 2)


# --- reports -----------------------------------------------------------------------------------------------------


def running(run: Run, task_id: int) -> tuple[Node, Attempt] | None:
    """The node and attempt of a task that is scheduled or running."""
    entry = run.tasks.get(task_id)
    if entry is None:
        return None
    node = run.nodes[entry]
    assert node.task is not None
    return node, node.task


def reported(run: Run, task_id: int, returns: int) -> tuple[Node, Attempt]:
    """The same for a report with a token. Raises Refused."""
    found = running(run, task_id)
    if found is not None and returns == CALLBACK:
        return found
    if found is not None and found[1].submitted_at is not None:
        raise _late(ReportRefusal.ALREADY_RECORDED, "the task was run, and waits for the token of $$.Task.Token now")
    if found is not None:
        if found[1].returns == returns and found[1].started_at is not None:
            return found
        raise _late(
            ReportRefusal.TIMED_OUT, "the task's lease lapsed or it was given back, and it is another worker's now"
        )
    how = run.ended_tasks.get(task_id)
    if how is None:
        how = ReportRefusal.CLOSED if run.status.closed else ReportRefusal.ALREADY_RECORDED
    raise _late(how, _ENDED[how].format(status=run.status.value))


_ENDED = {
    ReportRefusal.ALREADY_RECORDED: "the task has ended; its outcome was recorded before",
    ReportRefusal.TIMED_OUT: "the task timed out before this report came",
    ReportRefusal.CLOSED: "nobody waits for the task any more (the execution is {status})",
}


def _late(reason: ReportRefusal, message: str) -> Refused:
    return Refused(ErrorStatus.FAILED_PRECONDITION, message, {"reason": reason.value})


def start(step: Step, command: StartTask) -> bool:
    """A worker in another process takes the task. False when it is over, or somebody has it."""
    found = running(step.run, command.task)
    if found is None or found[1].started_at is not None:
        return False
    node, task = found
    step.emit(
        ev.TaskStarted(
            **step.about(node),
            task=task.id,
            worker=command.worker,
            lease_seconds=float(step.env.defaults.lease_seconds),
        )
    )
    step.decision.started.append(task.id)
    return True


def record_outcome(step: Step, command: RecordOutcome) -> None:
    """A Worker has ended it. One that nobody waits for, or that is somebody else's, changes nothing."""
    found = running(step.run, command.task)
    if found is None:
        return
    node, task = found
    if task.submitted_at is not None:
        return
    if command.returns is None:
        if task.started_at is not None:
            return
        _started_before(step, node, task, command)
    elif not has(task, command.worker) or task.returns != command.returns:
        return
    kept = Kept(command.log, command.usage)
    if command.timed_out is not None:
        silent = command.timed_out is TimeoutKind.HEARTBEAT and task.heartbeat_seconds is not None
        waited = task.heartbeat_seconds if silent else None
        time_out(step, node, task, command.timed_out, command.ran_seconds if waited is None else waited)
    elif command.error is not None:
        fail_task(step, node, task, command.error, command.cause, command.retry_after_seconds, kept)
    else:
        assert isinstance(command.output, Raw)
        was_run(step, node, task, command.output, kept)


def _started_before(step: Step, node: Node, task: Attempt, command: RecordOutcome) -> None:
    """The start that is recorded with its end."""
    now = step.env.now
    step.emit(
        ev.TaskStarted(
            id=step.next_id,
            time=now,
            node=node.name,
            path=node.path,
            entry=node.entry,
            task=task.id,
            worker=command.worker,
            began_at=max(now - timedelta(0, 0, 0, round(command.ran_seconds * 1000)), task.queued_at),
        )
    )


def has(task: Attempt, worker: str) -> bool:
    """Whether the task is this worker's to run."""
    return task.started_at is not None and task.submitted_at is None and task.worker == worker


def complete(step: Step, command: CompleteTask) -> None:
    """Raises Refused."""
    node, task = reported(step.run, command.task, command.returns)
    if command.returns == CALLBACK:
        _complete(step, node, task, command.output)
    else:
        was_run(step, node, task, command.output)


def report_failure(step: Step, command: FailTask) -> None:
    """Raises Refused."""
    node, task = reported(step.run, command.task, command.returns)
    fail_task(step, node, task, command.error, command.cause, command.retry_after_seconds, said=command.details)


def report_return(step: Step, command: ReturnTask) -> None:
    """Raises Refused."""
    node, task = reported(step.run, command.task, command.returns)
    if command.returns == CALLBACK:
        raise Refused(
            ErrorStatus.FAILED_PRECONDITION, "the token of $$.Task.Token completes or fails a task; nothing else"
        )
    give_back(step, node, task, command.reason or "its worker gave it back", command.details)


def was_run(step: Step, node: Node, task: Attempt, output: Raw, kept: Kept = NOTHING_KEPT) -> None:
    """Its worker has done its part: that is the result, or else the wait for the token begins."""
    if task.callback_seconds is None:
        _complete(step, node, task, output, kept)
    elif not _too_large(step, node, task, output, kept):
        same = task.input.raw == output
        _submit(step, node, task, UNSET if same else output, task.input.event_id if same else 0, kept)


def was_run_as(step: Step, node: Node, task: Attempt, held: Payload) -> None:
    """The same, with a payload that an earlier event holds."""
    if task.callback_seconds is None:
        _end(step, node, task, UNSET, held.event_id, NOTHING_KEPT)
    else:
        _submit(step, node, task, UNSET, held.event_id, NOTHING_KEPT)


def _submit(step: Step, node: Node, task: Attempt, output: Raw | UnsetType, ref: int, kept: Kept) -> None:
    step.emit(
        ev.TaskSubmitted(
            **step.about(node),
            task=task.id,
            log=kept.log,
            usage=kept.usage,
            output=output,
            output_ref=ref,
        )
    )
    if task.kind.queued:
        _remove(step, task)


def _too_large(step: Step, node: Node, task: Attempt, output: Raw, kept: Kept) -> bool:
    """Fail the task if its output is."""
    try:
        step.check_size(output, result_of=node.name)
    except StateError as error:
        fail_task(step, node, task, error.error, error.cause, kept=kept)
        return True
    return False


def _complete(step: Step, node: Node, task: Attempt, output: Raw, kept: Kept = NOTHING_KEPT) -> None:
    if not _too_large(step, node, task, output, kept):
        same = task.input.raw == output
        _end(step, node, task, UNSET if same else output, task.input.event_id if same else 0, kept)


def _end(step: Step, node: Node, task: Attempt, output: Raw | UnsetType, ref: int, kept: Kept) -> None:
    state = step.state(node)
    assert isinstance(state, Task)
    step.emit(
        ev.TaskCompleted(
            id=step.next_id,
            time=step.env.now,
            node=node.name,
            path=node.path,
            entry=node.entry,
            task=task.id,
            log=kept.log,
            usage=kept.usage,
            output=output,
            output_ref=ref,
        )
    )
    _retire(step, task)
    assert node.result is not None
    nodes.finish(step, node, state, task_result(state, step.value(node.result)))


def _retire(step: Step, task: Attempt) -> None:
    """It has ended: it waits in no queue any more, and a worker that still runs it while its token came is told."""
    if not task.kind.queued:
        return
    _remove(step, task)
    if task.callback_seconds is not None and task.submitted_at is None:
        _call_off(step, task)


def abandon(step: Step, task: Attempt) -> None:
    """It was given up: whoever runs it is told, a child execution by its policy."""
    if task.kind.queued:
        _remove(step, task)
        _call_off(step, task)
    elif task.child_start is not None and task.submitted_at is None:
        step.decision.children_due[task.id] = task.child_start.policy


def _remove(step: Step, task: Attempt) -> None:
    step.decision.removed.append(task.id)
    if task.lease_seconds is None:
        step.decision.retired.append(task.id)


def _call_off(step: Step, task: Attempt) -> None:
    step.decision.canceled.append(task.id)
    if task.kind is TaskKind.NODE and task.worker is not None:
        step.decision.called_off.setdefault(task.worker, []).append(task.id)


def fail_task(
    step: Step,
    node: Node,
    task: Attempt,
    error: str,
    cause: str,
    retry_after_seconds: float | None = None,
    kept: Kept = NOTHING_KEPT,
    said: Raw | UnsetType = UNSET,
    documented: str | None = None,
) -> None:
    """`said`: by its last heartbeat. `documented`: see StateError."""
    step.emit(
        ev.TaskFailed(
            **step.about(node),
            task=task.id,
            error=error,
            cause=cause,
            retry_after_seconds=retry_after_seconds,
            log=kept.log,
            usage=kept.usage,
            details=_news(node, said),
        )
    )
    _retire(step, task)
    nodes.fail(
        step,
        node,
        step.state(node),
        error,
        cause,
        documented=documented,
        of_task=True,
        retry_after=retry_after_seconds or 0.0,
    )


def time_out(
    step: Step, node: Node, task: Attempt, kind: TimeoutKind, waited_seconds: float, said: Raw | UnsetType = UNSET
) -> None:
    """One of its clocks ran out. `said`: by its last heartbeat."""
    state = step.state(node)
    assert isinstance(state, Task)
    error, cause = timeout_cause(state, task, kind, waited_seconds)
    step.emit(
        ev.TaskTimedOut(
            **step.about(node),
            task=task.id,
            kind=kind,
            waited_seconds=waited_seconds,
            error=error,
            cause=cause,
            details=_news(node, said),
        )
    )
    abandon(step, task)
    nodes.fail(step, node, state, error, cause)


def give_back(step: Step, node: Node, task: Attempt, reason: str, said: Raw | UnsetType = UNSET) -> None:
    """The same attempt waits for another worker, a bounded number of times. `said`: by its last heartbeat."""
    if task.returns >= step.env.defaults.returns:
        fail_task(
            step,
            node,
            task,
            WORKER_LOST,
            f'queue "{task.queue}": {task.returns + 1} workers took the task and none ended it (at most '
            f"{step.env.defaults.returns} returns are allowed: tasks.returns in engine.toml); the last time: {reason}",
            said=said,
        )
        return
    step.emit(
        ev.TaskReturned(
            **step.about(node),
            task=task.id,
            reason=reason,
            times=task.returns + 1,
            details=_news(node, said),
        )
    )
    step.decision.returned.append(task.id)


def _news(node: Node, said: Raw | UnsetType) -> Raw | UnsetType:
    """What a heartbeat said, for the event that ends the attempt: only where an earlier one has not recorded it."""
    return UNSET if said is UNSET or bytes(said) == node.details else said


def seconds_since(moment: datetime, now: datetime) -> float:
    """Never negative, even when the clock was set back."""
    return max(0.0, (now - moment).total_seconds())
