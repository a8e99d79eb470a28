"""Child executions: tasks that another execution completes.

The task is scheduled like any other, but in no queue. An effect named by the task has the shard's owner look what is to
be done: start the child, or end one that nobody waits for any more. What came of the start, and how the child closed,
come back as commands. So a child is started by nothing but the task's own state, and however often the effect is looked
at, there is one child a task.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Raw

from daemon.execution import tasks
from daemon.execution.commands import ChildClosed, ChildFault, ChildNotStarted, ChildStarted
from daemon.execution.state import Node, Run
from daemon.execution.state import Task as Attempt
from daemon.execution.step import Step
from daemon.language import NAME_IN_USE, NO_SUCH_MACHINE, ExecutionMode, Task
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ExecutionStatus

DEPTH = 64
"""How many executions may be one another's children in a row."""

TOO_DEEP = "Engine.ChildDepth"
_FAULTS = {
    ChildFault.NO_SUCH_WORKFLOW: "Engine.NoSuchWorkflow",
    ChildFault.NAME_IN_USE: "Engine.WorkflowIdInUse",
}
_REFERENCE_FAULTS = {
    ChildFault.NO_SUCH_WORKFLOW: NO_SUCH_MACHINE,
    ChildFault.NAME_IN_USE: NAME_IN_USE,
}
_ENDED = {
    ExecutionStatus.CANCELED: "Engine.ChildCanceled",
    ExecutionStatus.TERMINATED: "Engine.ChildTerminated",
}


def waited_for(run: Run, task_id: int) -> tuple[Node, Attempt] | None:
    """The task whose child is to be started, or runs; None where nobody waits for it."""
    found = tasks.running(run, task_id)
    return found if found is not None and found[1].kind is TaskKind.WORKFLOW else None


def started(step: Step, command: ChildStarted) -> None:
    """The child is on disk. A repeat, or one that nobody waits for, changes nothing."""
    found = waited_for(step.run, command.task)
    if found is None or found[1].child is not None:
        return
    node, task = found
    step.emit(
        ev.ChildWorkflowStarted(
            **step.about(node), task=task.id, workflow_id=command.workflow_id, run_id=command.run_id
        )
    )
    state = step.state(node)
    assert isinstance(state, Task)
    if state.resource.execution is ExecutionMode.START:
        result: JSON = {"ExecutionArn": command.run_id, "StartDate": _date(command.started_at)}
        tasks.was_run(step, node, task, encode(result))


def not_started(step: Step, command: ChildNotStarted) -> None:
    """There is no such workflow, its name is taken, or another reason."""
    found = waited_for(step.run, command.task)
    if found is not None and found[1].child is None:
        state = step.state(found[0])
        assert isinstance(state, Task)
        names = _REFERENCE_FAULTS if state.resource.arn else _FAULTS
        tasks.fail_task(step, *found, names[command.fault], command.cause)


def closed(step: Step, command: ChildClosed) -> None:
    """The child has closed: that is the task's outcome."""
    found = waited_for(step.run, command.task)
    if found is None or found[1].submitted_at is not None:
        return
    node, task = found
    if task.child is None:
        # Its end came before the word of its start.
        step.emit(
            ev.ChildWorkflowStarted(
                **step.about(node), task=task.id, workflow_id=command.workflow_id, run_id=command.run_id
            )
        )
    step.emit(
        ev.ChildWorkflowClosed(
            **step.about(node),
            task=task.id,
            workflow_id=command.workflow_id,
            run_id=command.run_id,
            status=command.status,
        )
    )
    state = step.state(node)
    assert isinstance(state, Task)
    kept = tasks.Kept("", command.usage)
    if state.resource.execution is ExecutionMode.RUN:
        if command.status is ExecutionStatus.SUCCEEDED:
            tasks.was_run(step, node, task, command.output, kept)
        else:
            tasks.fail_task(step, node, task, *_failure(command), kept=kept, documented=command.documented)
        return
    told = _told(command, task, as_text=state.resource.execution is ExecutionMode.SYNC)
    if command.status is ExecutionStatus.SUCCEEDED:
        tasks.was_run(step, node, task, told, kept)
    else:
        tasks.fail_task(step, node, task, "States.TaskFailed", bytes(told).decode(), kept=kept)


def _failure(command: ChildClosed) -> tuple[str, str]:
    which = f'child execution "{command.workflow_id}" (run {command.run_id})'
    if command.status in _ENDED:
        return _ENDED[
            command.status
        ], f"{which} was {command.status.value.lower()}: {command.cause or 'no reason given'}"
    return command.error or "States.TaskFailed", f"{which} failed: {command.cause or ''}"


def _told(command: ChildClosed, task: Attempt, *, as_text: bool) -> Raw:
    """All there is to tell of it, as the reference service does. Source: Step Functions API, DescribeExecution."""
    record: dict[str, JSON] = {
        "ExecutionArn": command.run_id,
        "Input": bytes(command.input).decode(),
        "InputDetails": {"Included": True},
        "Name": command.workflow_id,
        "StartDate": _date(command.started_at),
        "StateMachineArn": command.workflow,
        "Status": command.status.value if command.status is not ExecutionStatus.CANCELED else "ABORTED",
        "StopDate": _date(command.closed_at),
    }
    if command.status is ExecutionStatus.SUCCEEDED:
        record["Output"] = bytes(command.output).decode() if as_text else decode(command.output)
        record["OutputDetails"] = {"Included": True}
    else:
        record |= {"Error": command.error or "", "Cause": command.cause or ""}
    return encode(record)


def _date(moment: datetime) -> int:
    """As the service's integrations write it: milliseconds since 1970."""
    return round(moment.timestamp() * 1000)
