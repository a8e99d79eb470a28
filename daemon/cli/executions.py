"""Looking at executions and ending them: `describe`, `list`, `cancel`, `terminate`."""

from __future__ import annotations

import click

from daemon.cli.output import compact, document, json_option, line, moment, table
from daemon.cli.reading import read_input
from daemon.cli.session import talk
from enginekit.client import Client
from enginekit.messages.calls import (
    CancelWorkflow,
    DescribeWorkflow,
    DescribeWorkflowResult,
    ExecutionSummary,
    ListWorkflows,
    NodeView,
    SignalWorkflow,
    TerminateWorkflow,
)
from enginekit.messages.events import Usage
from enginekit.messages.json import NULL
from enginekit.messages.status import ExecutionStatus

PAGE = 1000


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@json_option
def describe(workflow_id: str, run_id: str | None, as_json: bool) -> None:
    """Show an execution: its status, its input and output, and what runs in it now."""
    seen = talk(lambda client: client.call(DescribeWorkflow(workflow_id=workflow_id, run_id=run_id)))
    if as_json:
        document(seen)
    else:
        _show(seen)


def _show(seen: DescribeWorkflowResult) -> None:
    named = seen.workflow or "(inline definition)"
    facts = {
        "execution": seen.workflow_id,
        "run": seen.run_id,
        "workflow": named if seen.version is None else f"{named} version {seen.version}",
        "status": seen.status.value,
        "started": moment(seen.started_at),
        "closed": moment(seen.closed_at),
        "events": str(seen.history_length),
        "models": "" if seen.usage is None else _usage(seen.usage),
        "labels": " ".join(f"{key}={value}" for key, value in seen.labels.items()),
        "input": compact(seen.input),
        "output": compact(seen.output) if seen.status is ExecutionStatus.SUCCEEDED else "",
        "error": seen.error or "",
        "cause": seen.cause or "",
    }
    for name, value in facts.items():
        if value:
            line(f"{name + ':':<11}{value}")
    if seen.nodes:
        columns = ("node", "kind", "state", "since", "attempt", "waits until", "last error")
        table(columns, [_node_row(node) for node in seen.nodes])


def _usage(used: Usage) -> str:
    return f"{used.requests} requests, {used.input_tokens} tokens in, {used.output_tokens} out"


def _node_row(node: NodeView) -> tuple[str, ...]:
    state = node.state if node.total is None else f"{node.state} {node.done or 0}/{node.total}"
    return (
        node.path,
        node.kind,
        state,
        moment(node.entered_at),
        str(node.attempt),
        moment(node.next_retry_at or node.deadline),
        node.last_error or "",
    )


@click.command("list")
@click.option("--status", type=click.Choice([status.value for status in ExecutionStatus], case_sensitive=False))
@click.option("--workflow", help="Of this registered workflow only.")
@click.option("--label", metavar="KEY=VALUE", help="With this label only.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@json_option
def list_(status: str | None, workflow: str | None, label: str | None, limit: int, as_json: bool) -> None:
    """List executions, newest first."""
    query = ListWorkflows(
        status=ExecutionStatus(status) if status else None, workflow=workflow, label=label, page_size=min(limit, PAGE)
    )

    async def run(client: Client) -> list[ExecutionSummary]:
        found: list[ExecutionSummary] = []
        async for execution in client.executions(query):
            found.append(execution)
            if len(found) == limit:
                break
        return found

    found = talk(run)
    if as_json:
        document(found)
        return
    columns = ("execution", "workflow", "status", "started", "closed", "error")
    table(columns, [_summary_row(execution) for execution in found])


def _summary_row(execution: ExecutionSummary) -> tuple[str, ...]:
    return (
        execution.workflow_id,
        execution.workflow or "",
        execution.status.value,
        moment(execution.started_at),
        moment(execution.closed_at),
        execution.error or "",
    )


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.argument("name")
@click.option("--input", "input_", metavar="JSON|@FILE", help="What the signal carries; @- reads stdin. Default: null")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--request-id", help="The same request again changes nothing.")
def signal(workflow_id: str, name: str, input_: str | None, run_id: str | None, request_id: str | None) -> None:
    """Send a signal NAME: a state with the Resource `signal:NAME` takes it, now or when the execution comes to it."""
    call = SignalWorkflow(
        workflow_id=workflow_id, run_id=run_id, request_id=request_id, name=name, input=read_input(input_) or NULL
    )
    talk(lambda client: client.call(call))
    line(f"{workflow_id}: signal {name} sent")


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--reason", default="", help="Kept in the history.")
def cancel(workflow_id: str, run_id: str | None, reason: str) -> None:
    """Ask an execution to end: what runs in it is cancelled."""
    talk(lambda client: client.call(CancelWorkflow(workflow_id=workflow_id, run_id=run_id, reason=reason)))
    line(f"{workflow_id}: cancellation requested")


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--reason", default="", help="Kept in the history.")
def terminate(workflow_id: str, run_id: str | None, reason: str) -> None:
    """End an execution at once, without a chance to tidy up."""
    talk(lambda client: client.call(TerminateWorkflow(workflow_id=workflow_id, run_id=run_id, reason=reason)))
    line(f"{workflow_id}: terminated")
