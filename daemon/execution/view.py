"""A run as a person or program sees it: what `DescribeWorkflow` answers."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from msgspec import UNSET, Raw

from daemon.execution.commands import Pulse
from daemon.execution.deadlines import node_deadline
from daemon.execution.state import Node, Run
from enginekit.messages.calls import DescribeWorkflowResult, NodeView
from enginekit.messages.events import TaskKind
from enginekit.messages.json import NULL

NODES = 500
"""How many nodes a description lists; wide Maps in Maps run more at once."""


def describe(run: Run, pulse: Pulse) -> DescribeWorkflowResult:
    """The run as it is. What one that has closed stood in is kept for a redrive, and not shown."""
    standing: Collection[Node] = () if run.status.closed else run.nodes.values()
    return DescribeWorkflowResult(
        workflow_id=run.ref.workflow_id,
        run_id=run.ref.run_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        input=run.input.raw,
        output=NULL if run.output is None else run.output.raw,
        error=run.error,
        cause=run.cause,
        labels=run.labels,
        started_at=run.started_at,
        closed_at=run.closed_at,
        history_length=run.last_event_id,
        nodes=[_node(node, pulse) for node in islice(standing, NODES)],
        nodes_total=len(standing),
        usage=run.usage,
    )


def _node(node: Node, pulse: Pulse) -> NodeView:
    task, fan = node.task, node.fan
    deadline = node_deadline(node, pulse)
    said = node.details if task is None else pulse.details.get(task.id, node.details)
    return NodeView(
        node=node.name,
        path=node.path,
        kind=node.kind,
        state=_doing(node),
        entered_at=node.entered_at,
        attempt=node.attempt,
        queue=None if task is None else task.queue or None,
        worker=None if task is None else task.worker,
        next_retry_at=node.retry_at,
        deadline=None if deadline is None else deadline[0],
        last_error=node.last_error,
        heartbeat_at=None if task is None else pulse.beats.get(task.id),
        heartbeat_details=UNSET if said is None else Raw(said),
        done=None if fan is None else len(fan.results),
        total=None if fan is None else fan.total,
        child_workflow_id=None if task is None or task.child is None else task.child.workflow_id,
        child_run_id=None if task is None or task.child is None else task.child.run_id,
    )


def _doing(node: Node) -> str:
    """`waiting` (a timer), `backing_off` (a retry), `queued`, `awaiting_token`, `awaiting_signal` (`queue` is
    its name) or `running` (a task, a child execution or branches)."""
    if node.timer is not None:
        return "waiting"
    if node.retry_at is not None:
        return "backing_off"
    if node.task is not None and node.task.submitted_at is not None:
        return "awaiting_token"
    if node.task is not None and node.task.kind is TaskKind.SIGNAL:
        return "awaiting_signal"
    if node.task is not None and node.task.kind is TaskKind.ACTIVITY and node.task.started_at is None:
        return "queued"
    return "running"
