"""`decide(run, command)`: what comes of a command. The way into the core.

A decision emits events and evolves the state along with them; a refused command raises before the first event, so a
refusal leaves the state as it was. How far one decision goes is bounded by `Limits.step_…`: `Decision.unfinished`
asks for a `Proceed`.
"""

from __future__ import annotations

from daemon.execution import children, deadlines, distributed, fanout, nodes, signals, tasks
from daemon.execution.commands import (
    Cancel,
    ChildClosed,
    ChildNotStarted,
    ChildStarted,
    Command,
    CompleteTask,
    Environment,
    ExpireTask,
    FailTask,
    FileFailed,
    ItemsEnded,
    ItemsRead,
    Proceed,
    RecordOutcome,
    Redrive,
    ResultsWritten,
    ReturnTask,
    Signal,
    Start,
    StartTask,
    StepClock,
    Terminate,
    Wake,
)
from daemon.execution.redrive import redrive
from daemon.execution.state import Run, after
from daemon.execution.step import Decision, Step
from daemon.language import Definition
from enginekit.messages import events as ev
from enginekit.messages.events import TimeoutKind
from enginekit.messages.status import ErrorStatus, Refused


def start(command: Start, env: Environment) -> tuple[Run, Decision]:
    """A new run, as far as it gets by itself."""
    seconds = command.timeout_seconds
    if seconds is None and isinstance(env.definition, Definition):
        seconds = env.definition.timeout_seconds
    step = Step.first(
        ev.WorkflowStarted(
            id=1,
            time=env.now,
            by=env.by,
            tenant=command.run.tenant,
            workflow_id=command.run.workflow_id,
            run_id=command.run.run_id,
            workflow=command.workflow,
            version=command.version,
            definition_hash=command.definition_hash,
            next=env.definition.start_at,
            input=command.input,
            labels=command.labels,
            request_id=command.request_id,
            timeout_at=None if seconds is None else after(env.now, seconds),
            parent=command.parent,
            parent_task=command.parent_task,
        ),
        env,
    )
    nodes.advance(step)
    return step.run, step.end()


def decide(run: Run, command: Command, env: Environment) -> Decision:
    """What comes of `command`; `run` is evolved along. Raises Refused, leaving `run` as it was."""
    step = Step(run, env, spreads=isinstance(command, Proceed))
    match command:
        case RecordOutcome():
            tasks.record_outcome(step, command)
        case Proceed():
            pass
        case ItemsEnded():
            distributed.items_ended(step, command)
        case ItemsRead():
            distributed.items_read(step, command)
        case ResultsWritten():
            distributed.results_written(step, command)
        case FileFailed():
            distributed.file_failed(step, command)
        case StepClock():
            deadlines.step_clock(step, command.seconds)
        case Wake():
            deadlines.wake(step, command.pulse)
        case StartTask():
            tasks.start(step, command)
        case CompleteTask():
            tasks.complete(step, command)
        case FailTask():
            tasks.report_failure(step, command)
        case ReturnTask():
            tasks.report_return(step, command)
        case ExpireTask():
            found = tasks.running(run, command.task)
            if found is not None and found[1].started_at is None:
                tasks.time_out(step, *found, TimeoutKind.SCHEDULE_TO_START, command.waited_seconds)
        case Signal():
            signals.receive(step, command)
        case ChildStarted():
            children.started(step, command)
        case ChildNotStarted():
            children.not_started(step, command)
        case ChildClosed():
            children.closed(step, command)
        case Cancel():
            _cancel(step, command)
        case Terminate():
            _terminate(step, command)
        case Redrive():
            redrive(step, command)
        case _:
            raise AssertionError(f"{type(command).__name__} is not decided about a run that exists")
    nodes.advance(step)
    return step.end()


def _may_close(run: Run, request_id: str | None) -> bool:
    """False: this very request has closed it before. Raises Refused when something else has."""
    if not run.status.closed:
        return True
    if request_id is not None and run.close_request_id == request_id:
        return False
    raise Refused(
        ErrorStatus.FAILED_PRECONDITION,
        f'the execution "{run.ref.workflow_id}" (run {run.ref.run_id}) has closed already: {run.status.value}',
        {"reason": "CLOSED"},
    )


def _cancel(step: Step, command: Cancel) -> None:
    if not _may_close(step.run, command.request_id):
        return
    env = step.env
    step.emit(
        ev.WorkflowCancelRequested(
            id=step.next_id, time=env.now, by=env.by, reason=command.reason, request_id=command.request_id
        )
    )
    fanout.cancel_all(step, "the execution was canceled")
    step.emit(ev.WorkflowCanceled(id=step.next_id, time=env.now, by=env.by, reason=command.reason))


def _terminate(step: Step, command: Terminate) -> None:
    if not _may_close(step.run, command.request_id):
        return
    env = step.env
    fanout.cancel_all(step, "the execution was terminated")
    step.emit(
        ev.WorkflowTerminated(
            id=step.next_id, time=env.now, by=env.by, reason=command.reason, request_id=command.request_id
        )
    )
