"""Scheduling a Task state's next attempt: where it waits, what it is given, how long it may take.

How an attempt ends is in `tasks`.
"""

from __future__ import annotations

from daemon.execution import children, signals
from daemon.execution.destination import destination_of
from daemon.execution.state import Node
from daemon.execution.step import Step
from daemon.language import (
    ClosePolicy,
    ExecutionMode,
    ResourceKind,
    StateError,
    Task,
    arguments,
    child_call,
    task_target,
    task_times,
)
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind
from enginekit.messages.json import JSON

REFERENCE_TIMEOUT_SECONDS = 99_999_999.0
"""What the reference service waits where a state with an ARN says nothing."""

# Looked up once: in Python 3.11 an enum's member is far from free.
_NODE = TaskKind.NODE
_WORKFLOW = TaskKind.WORKFLOW
_SIGNAL = TaskKind.SIGNAL


def schedule(step: Step, node: Node, state: Task) -> None:
    """Put the node's next attempt into its task queue. Raises StateError."""
    env, resource = step.env, state.resource
    task_id = step.next_id
    awaited = resource.wait_for_token
    scope = step.scope(node, task_id if awaited else None)
    raw = step.value(node.input)
    kind = _KINDS[resource.kind]
    child: ev.ChildStart | None = None
    if kind is _WORKFLOW:
        queue = ""
        child, value = _child(step, state, arguments(state, raw, scope))
    else:
        queue, value = task_target(state, arguments(state, raw, scope))
    if node.given and node.arguments is not None:
        value = step.value(node.arguments)
    times = task_times(state, raw, scope)
    inline, ref = step.place(value, node.arguments, node.input, what="The input of its task")
    timeout, to_start = env.defaults.timeout_seconds, env.defaults.schedule_to_start_seconds
    if resource.arn or not kind.queued:
        # A person who is to send a signal, and a whole execution, are not to be measured by what a call may take.
        timeout = to_start = REFERENCE_TIMEOUT_SECONDS
    step.emit(
        ev.TaskScheduled(
            id=task_id,
            time=env.now,
            node=node.name,
            path=node.path,
            entry=node.entry,
            kind=kind,
            resource=resource.name,
            queue=queue,
            attempt=node.attempt,
            input=inline,
            input_ref=ref,
            priority=state.priority,
            timeout_seconds=_seconds(times.timeout_seconds, timeout),
            schedule_to_start_seconds=_seconds(times.schedule_to_start_seconds, to_start),
            heartbeat_seconds=None if times.heartbeat_seconds is None else float(times.heartbeat_seconds),
            callback_seconds=_seconds(times.timeout_seconds, REFERENCE_TIMEOUT_SECONDS) if awaited else None,
            destination=destination_of(resource.name, value) if kind is _NODE else None,
            child=child,
        )
    )
    if kind is _WORKFLOW:
        assert child is not None
        step.decision.children_due[task_id] = child.policy
    elif kind is _SIGNAL:
        assert node.task is not None
        signals.take(step, node, node.task)
    else:
        step.decision.scheduled.append(task_id)


_KINDS = {
    ResourceKind.NODE: TaskKind.NODE,
    ResourceKind.ACTIVITY: TaskKind.ACTIVITY,
    ResourceKind.WORKFLOW: TaskKind.WORKFLOW,
    ResourceKind.SIGNAL: TaskKind.SIGNAL,
}


def _child(step: Step, state: Task, args: JSON) -> tuple[ev.ChildStart, JSON]:
    """What to start, and its input. Raises StateError."""
    above = step.run.parent_task
    if above is not None and above.depth >= children.DEPTH:
        raise StateError(children.TOO_DEEP, f"{above.depth} executions above this one are each the child of the next.")
    call = child_call(state, args)
    waited = state.resource.execution is not ExecutionMode.START
    return ev.ChildStart(
        workflow=call.workflow,
        version=call.version,
        workflow_id=call.workflow_id,
        waited=waited,
        policy=(state.close_policy if waited else ClosePolicy.ABANDON).value,
    ), call.input


def _seconds(given: float | None, default: float) -> float:
    """A float even where the definition says 3: replayed state and live state are the same to the last byte."""
    return float(default if given is None else given)
