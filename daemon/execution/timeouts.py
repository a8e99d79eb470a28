"""What a timeout is called, and its cause in words: on what was waited, for how long, and which setting says so. Pure.

When something times out is decided in `deadlines`, what follows from it in `tasks`.
"""

from __future__ import annotations

from datetime import timedelta

from daemon.execution.state import Node, Run, after
from daemon.execution.state import Task as Attempt
from daemon.language import Definition, Machine, Task
from enginekit.messages.events import TaskKind, TimeoutKind

TIMEOUT = "States.Timeout"
HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"

_NODES_NAMED = 3
"""How many of the states that an execution waited for its cause names."""


def timeout_cause(state: Task, task: Attempt, kind: TimeoutKind, waited_seconds: float) -> tuple[str, str]:
    """The error's name and its cause."""
    setting = f"{_setting(state, task, kind)}; waited {waited_seconds:.3f} s"
    match kind:
        case TimeoutKind.SCHEDULE_TO_START:
            limit = _number(task.schedule_to_start_seconds)
            return TIMEOUT, f'no worker took the task from queue "{task.queue}" within {limit} seconds ({setting})'
        case TimeoutKind.HEARTBEAT:
            assert task.heartbeat_seconds is not None
            who = "about the token of" if task.submitted_at is not None else f"from {_worker(task)} about"
            limit = _number(task.heartbeat_seconds)
            cause = f'no heartbeat came {who} the task of queue "{task.queue}" for {limit} seconds ({setting})'
            return HEARTBEAT_TIMEOUT, cause
        case TimeoutKind.START_TO_CLOSE:
            return TIMEOUT, f"{_unended(task)} ({setting})"


def _unended(task: Attempt) -> str:
    if task.submitted_at is not None and task.callback_seconds is not None:
        limit = _number(task.callback_seconds)
        return f'nobody completed the token of the task of queue "{task.queue}" within {limit} seconds of its start'
    limit = _number(task.timeout_seconds)
    if task.kind is TaskKind.SIGNAL:
        return f'signal "{task.queue}" did not come within {limit} seconds'
    if task.kind is TaskKind.WORKFLOW:
        return f"the child execution did not end within {limit} seconds of its start"
    return f'{_worker(task)} did not end the task of queue "{task.queue}" within {limit} seconds of its start'


def _worker(task: Attempt) -> str:
    return "the daemon's worker" if task.kind is TaskKind.NODE else f'worker "{task.worker}"'


def _setting(state: Task, task: Attempt, kind: TimeoutKind) -> str:
    """What the limit comes from, as somebody would look for it."""
    match kind:
        case TimeoutKind.HEARTBEAT:
            return "HeartbeatSeconds"
        case TimeoutKind.SCHEDULE_TO_START:
            field, given, default = "ScheduleToStartSeconds", state.schedule_to_start, "schedule_to_start_seconds"
            own = not state.resource.arn
        case TimeoutKind.START_TO_CLOSE:
            field, given, default = "TimeoutSeconds", state.timeout is not None, "timeout_seconds"
            own = not state.resource.arn and task.kind.queued and task.submitted_at is None
    if given:
        return field
    return f"tasks.{default} in engine.toml" if own else f"the longest there is: no {field} is given"


def run_timeout_cause(run: Run, definition: Machine) -> str:
    """Of an execution whose own time is up."""
    assert run.deadline is not None
    since = run.redriven_at or run.started_at
    allowed = run.deadline - since
    seconds = definition.timeout_seconds if isinstance(definition, Definition) else None
    of_definition = seconds is not None and after(since, seconds) == run.deadline
    setting = "TimeoutSeconds of its definition" if of_definition else "timeout_seconds of its start"
    text = f"the execution did not end within {_number(allowed / timedelta(seconds=1))} seconds ({setting})"
    waiting = [node for node in run.nodes.values() if node.fan is None]
    if not waiting:
        return text
    named = ", ".join(_at(node) for node in waiting[:_NODES_NAMED])
    more = f" and {len(waiting) - _NODES_NAMED:,} more" if len(waiting) > _NODES_NAMED else ""
    return f"{text}; it was in {named}{more}"


def _at(node: Node) -> str:
    if node.task is not None:
        return f"{node.path} ({_waited_for(node.task)}, attempt {node.attempt})"
    return f"{node.path} (attempt {node.attempt})" if node.attempt > 1 else node.path


def _waited_for(task: Attempt) -> str:
    match task.kind:
        case TaskKind.SIGNAL:
            return f'signal "{task.queue}"'
        case TaskKind.WORKFLOW:
            return "a child execution"
        case _:
            return f'queue "{task.queue}"'


def _number(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
