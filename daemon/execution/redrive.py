"""Redriving a run that has closed without success: it goes on where it stopped.

What a run stood in is kept when it closes (`evolve`). So redriving is: open it again, give it its time anew, and try
again every state that failed or whose task was canceled with it; parts of a Map or Parallel that had ended are not run
again, waits go on. Only a distributed Map begins anew: its items were canceled with it.
"""

from __future__ import annotations

from msgspec import UNSET

from daemon.execution import nodes
from daemon.execution.commands import Redrive
from daemon.execution.state import Node, Run, after
from daemon.execution.step import Step
from daemon.language import StateError
from enginekit.messages import events as ev
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused


def redrive(step: Step, command: Redrive) -> None:
    """Raises Refused: it runs, or has succeeded, or there is nothing that the given input could be for."""
    run, env = step.run, step.env
    if command.request_id is not None and command.request_id == run.redrive_request_id:
        return
    if run.status in (ExecutionStatus.RUNNING, ExecutionStatus.SUCCEEDED):
        raise Refused(
            ErrorStatus.FAILED_PRECONDITION,
            f'the execution "{run.ref.workflow_id}" (run {run.ref.run_id}) is {run.status.value}: only one that has '
            "failed, timed out, or was canceled or terminated can be redriven",
        )
    origin = _origin(run)
    if command.input is not None and origin is None:
        raise Refused(
            ErrorStatus.FAILED_PRECONDITION,
            f"input: no state of run {run.ref.run_id} failed by itself (it is {run.status.value}), so that there is "
            "none whose input could be replaced; redrive it without",
        )
    if command.input is not None:
        try:
            step.check_size(command.input, "it")
        except StateError as error:
            raise Refused(ErrorStatus.INVALID_ARGUMENT, f"input: {error.cause}") from error
    seconds = None if run.deadline is None else (run.deadline - (run.redriven_at or run.started_at)).total_seconds()
    step.emit(
        ev.WorkflowRedriven(
            id=step.next_id,
            time=env.now,
            by=env.by,
            reason=command.reason,
            request_id=command.request_id,
            again=[node.entry for node in run.nodes.values() if _again(node)],
            timeout_at=None if seconds is None else after(env.now, seconds),
            entry=origin.entry if origin is not None and command.input is not None else 0,
            input=UNSET if command.input is None else command.input,
        )
    )
    step.decision.redriven = True


def go_on(step: Step) -> None:
    """Try the next state again that is to be."""
    node = step.run.nodes[step.run.again[0]]
    nodes.attempt(step, node, step.state(node))


def _origin(run: Run) -> Node | None:
    """The state whose own failure ended the run: the innermost."""
    failed = [node for node in run.nodes.values() if node.failed]
    return failed[-1] if failed else None


def _again(node: Node) -> bool:
    """Whether it is to be tried again; not, where its parts or its time go on."""
    if node.mapping is not None:
        return True
    if node.fan is not None:
        return node.fan.complete
    return node.timer is None and node.retry_at is None
