"""`engine task`: ending a task by its token, from anywhere: what waits for a person, a webhook, a batch job."""

from __future__ import annotations

import click
from msgspec import Raw

from daemon.cli.output import document, json_option, line
from daemon.cli.reading import read_input
from daemon.cli.session import talk
from enginekit.messages.calls import CompleteTask, FailTask, HeartbeatTask
from enginekit.messages.json import NULL


@click.group()
def task() -> None:
    """End a task by its token, or keep it waiting: `$$.Task.Token` of a state with `.waitForTaskToken`.

    Exit 3 when the daemon refuses: the task has ended, timed out, or was canceled before.
    """


@task.command()
@click.argument("token")
@click.option("--output", metavar="JSON|@FILE", help="The task's result; @- reads stdin. Default: null")
def complete(token: str, output: str | None) -> None:
    """End the task with a result."""
    params = CompleteTask(token=token, output=_given(output, "--output"))
    talk(lambda client: client.call(params))
    line("completed")


@task.command()
@click.argument("token")
@click.option("--error", required=True, help="Its name, which the state's Retry and Catch match.")
@click.option("--cause", default="", help="What happened, for a person. Kept in the history.")
@click.option(
    "--retry-after-seconds", type=click.FloatRange(min=0), help="The next attempt, if there is one, begins no sooner."
)
def fail(token: str, error: str, cause: str, retry_after_seconds: float | None) -> None:
    """End the task's attempt with an error."""
    params = FailTask(token=token, error=error, cause=cause, retry_after_seconds=retry_after_seconds)
    talk(lambda client: client.call(params))
    line("failed")


@task.command()
@click.argument("token")
@click.option("--details", metavar="JSON|@FILE", help="How far it is; shown by `engine describe --json`.")
@json_option
def heartbeat(token: str, details: str | None, as_json: bool) -> None:
    """Say that somebody still works on it: its HeartbeatSeconds begin anew."""
    params = HeartbeatTask(token=token, details=_given(details, "--details"))
    answer = talk(lambda client: client.call(params))
    if as_json:
        document(answer)
    else:
        line("nobody waits for it any more" if answer.cancel_requested else "heard")


def _given(text: str | None, option: str) -> Raw:
    return read_input(text, option) or NULL
