"""Dead letters and redriving: `dlq list|show|redrive|discard`, `redrive`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import click
import msgspec
from msgspec import UNSET

from daemon.cli.output import compact, document, json_option, line, moment, table
from daemon.cli.reading import read_input
from daemon.cli.session import talk
from enginekit.client import Client
from enginekit.messages.calls import RedriveWorkflow
from enginekit.messages.dead_letters import (
    DeadLetterSummary,
    DiscardDeadLetter,
    GetDeadLetter,
    ListDeadLetters,
    RedriveDeadLetter,
)
from enginekit.messages.status import ErrorStatus, Refused

PAGE = 1000

F = TypeVar("F", bound=Callable[..., None])
_One: TypeAlias = Callable[[Client, str], Awaitable[str]]


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="A run of it; the latest without it.")
@click.option("--input", "input_", metavar="JSON|@FILE", help="In place of what the state that failed was given.")
@click.option("--reason", default="", help="Kept in the history.")
def redrive(workflow_id: str, run_id: str | None, input_: str | None, reason: str) -> None:
    """Reopen an execution that has closed without success: it goes on where it stopped."""
    given = read_input(input_)
    call = RedriveWorkflow(
        workflow_id=workflow_id, run_id=run_id, reason=reason, input=UNSET if given is None else given
    )
    done = talk(lambda client: client.call(call))
    line(f"{done.workflow_id}: run {done.run_id} goes on")


@click.group()
def dlq() -> None:
    """Dead letters: tasks that failed for good and made their execution fail."""


def filters(command: F) -> F:
    """The options by which letters are chosen."""
    for option in (
        click.option("--error", help="That failed with this error."),
        click.option("--node", help="Of this state."),
        click.option("--workflow", help="Of this registered workflow."),
        click.option("--workflow-id", metavar="ID", help="Of this execution."),
    ):
        command = option(command)
    return command


@dlq.command("list")
@filters
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@json_option
def list_(
    workflow_id: str | None, workflow: str | None, node: str | None, error: str | None, limit: int, as_json: bool
) -> None:
    """List dead letters, newest first."""
    query = ListDeadLetters(workflow_id=workflow_id, workflow=workflow, node=node, error=error)
    found = talk(lambda client: _found(client, query, limit))
    if as_json:
        document(found)
        return
    columns = ("dead letter", "execution", "workflow", "node", "error", "attempts", "at")
    table(
        columns,
        [
            (
                each.id,
                each.workflow_id,
                each.workflow or "",
                each.path,
                each.error,
                str(each.attempts),
                moment(each.at),
            )
            for each in found
        ],
    )


@dlq.command()
@click.argument("letter", metavar="LETTER")
@json_option
def show(letter: str, as_json: bool) -> None:
    """Show a dead letter: what the task was given, and how each of its attempts failed."""
    seen = talk(lambda client: client.call(GetDeadLetter(id=letter)))
    if as_json:
        document(seen)
        return
    facts = {
        "letter": seen.id,
        "execution": seen.workflow_id,
        "run": seen.run_id,
        "workflow": seen.workflow or "(inline definition)",
        "node": seen.path,
        "resource": seen.resource,
        "at": moment(seen.at),
        "error": seen.error,
        "cause": seen.cause,
        "input": compact(seen.input),
    }
    for name, value in facts.items():
        line(f"{name + ':':<11}{value}")
    if seen.failures:
        columns = ("attempt", "scheduled", "failed", "error", "cause")
        table(
            columns,
            [
                (str(each.attempt), moment(each.scheduled_at), moment(each.failed_at), each.error, each.cause)
                for each in seen.failures
            ],
        )


@dlq.command("redrive")
@click.argument("letters", metavar="[LETTER]...", nargs=-1)
@filters
@click.option("--all", "every", is_flag=True, help="All that the options choose, or every one.")
@click.option("--input", "input_", metavar="JSON|@FILE", help="In place of what the task was given; with one LETTER.")
@click.option("--reason", default="", help="Kept in the history.")
def redrive_(
    letters: tuple[str, ...],
    workflow_id: str | None,
    workflow: str | None,
    node: str | None,
    error: str | None,
    every: bool,
    input_: str | None,
    reason: str,
) -> None:
    """Reopen the executions of these dead letters: each goes on at the task that failed."""
    query = ListDeadLetters(workflow_id=workflow_id, workflow=workflow, node=node, error=error)
    given = read_input(input_)
    if given is not None and len(letters) != 1:
        raise click.UsageError("--input goes with one LETTER")

    async def one(client: Client, letter: str) -> str:
        call = RedriveDeadLetter(id=letter, reason=reason, input=UNSET if given is None else given)
        done = await client.call(call)
        return f"{letter}: {done.workflow_id} goes on"

    _each(letters, query, every, one)


@dlq.command()
@click.argument("letters", metavar="[LETTER]...", nargs=-1)
@filters
@click.option("--all", "every", is_flag=True, help="All that the options choose, or every one.")
def discard(
    letters: tuple[str, ...],
    workflow_id: str | None,
    workflow: str | None,
    node: str | None,
    error: str | None,
    every: bool,
) -> None:
    """Throw these dead letters away. Their executions stay as they are, failed, and can be redriven by their id."""
    query = ListDeadLetters(workflow_id=workflow_id, workflow=workflow, node=node, error=error)

    async def one(client: Client, letter: str) -> str:
        await client.call(DiscardDeadLetter(id=letter))
        return f"{letter}: discarded"

    _each(letters, query, every, one)


def _each(letters: tuple[str, ...], query: ListDeadLetters, every: bool, one: _One) -> None:
    """Do it to each; one that is refused does not stop the others, and is told of at the end."""
    chosen = any((query.workflow_id, query.workflow, query.node, query.error))
    if bool(letters) == (every or chosen):
        raise click.UsageError("name LETTERs, or choose them by --workflow, --node, --error, --workflow-id, or --all")
    refusals: list[Refused] = []

    async def run(client: Client) -> None:
        names = letters or [each.id for each in await _found(client, query, None)]
        for name in names:
            try:
                line(await one(client, name))
            except Refused as refused:
                if refused.status not in (ErrorStatus.NOT_FOUND, ErrorStatus.FAILED_PRECONDITION):
                    raise
                line(f"{name}: {refused.message}")
                refusals.append(refused)
        if refusals and len(names) == len(refusals):
            raise refusals[0]

    talk(run)


async def _found(client: Client, query: ListDeadLetters, limit: int | None) -> list[DeadLetterSummary]:
    found: list[DeadLetterSummary] = []
    token: str | None = None
    while True:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        page = await client.call(msgspec.structs.replace(query, page_size=size, page_token=token))
        found += page.dead_letters
        token = page.next_page_token
        if token is None or (limit is not None and len(found) >= limit):
            return found
