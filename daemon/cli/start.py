"""`engine start`: one execution, from the command line to its id, or with `--wait` to its output."""

from __future__ import annotations

import click
from msgspec import UNSET

from daemon.cli.output import compact, document, json_option, line
from daemon.cli.reading import is_definition_file, read_definition, read_input, read_labels
from daemon.cli.session import Failed, talk
from enginekit.client import Client
from enginekit.errors import WorkflowFailed
from enginekit.messages.calls import DescribeWorkflowResult, StartWorkflow, StartWorkflowResult
from enginekit.messages.json import EMPTY_OBJECT, encode
from enginekit.messages.status import ExecutionStatus


@click.command()
@click.argument("workflow", metavar="FILE|NAME")
@click.option("--version", type=click.IntRange(min=1), help="Of a registered workflow; the latest without it.")
@click.option("--input", "input_", metavar="JSON|@FILE", help="The execution's input; @- reads stdin. Default: {}")
@click.option("--id", "workflow_id", help="The execution's id; one is made without it.")
@click.option("--request-id", help="Repeating a start with the same one starts nothing twice.")
@click.option("--timeout-seconds", type=click.FloatRange(min=0, min_open=True), help="How long it may run.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be repeated.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; exit 1 unless it succeeded.")
@json_option
def start(
    workflow: str,
    version: int | None,
    input_: str | None,
    workflow_id: str | None,
    request_id: str | None,
    timeout_seconds: float | None,
    labels: tuple[str, ...],
    wait: bool,
    as_json: bool,
) -> None:
    """Start an execution of the registered workflow NAME, or of the definition in FILE (.json, .yaml).

    Prints the execution's id and its run's; with --wait its output.
    """
    from_file = is_definition_file(workflow)
    if from_file and version is not None:
        raise click.UsageError("--version goes with a registered workflow's NAME, not with a FILE")
    params = StartWorkflow(
        workflow=None if from_file else workflow,
        definition=encode(read_definition(workflow)) if from_file else UNSET,
        version=version,
        input=read_input(input_) or EMPTY_OBJECT,
        workflow_id=workflow_id,
        request_id=request_id,
        timeout_seconds=timeout_seconds,
        labels=read_labels(labels),
    )

    async def run(client: Client) -> tuple[StartWorkflowResult, DescribeWorkflowResult | None]:
        started = await client.call(params)
        return started, await client.wait(started.workflow_id, started.run_id) if wait else None

    started, closed = talk(run)
    if as_json:
        document(closed or started)
    elif closed is None:
        line(f"{started.workflow_id} {started.run_id}")
    elif closed.status is ExecutionStatus.SUCCEEDED:
        line(compact(closed.output, limit=10**9))
    if closed is not None and closed.status is not ExecutionStatus.SUCCEEDED:
        failed = WorkflowFailed(closed.workflow_id, closed.run_id, closed.status, closed.error, closed.cause)
        raise Failed(str(failed))
