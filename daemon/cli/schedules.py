"""Schedules: `engine schedule create|list|show|next|pause|resume|trigger|delete`."""

from __future__ import annotations

import click

from daemon.cli.output import compact, document, json_option, line, moment, table
from daemon.cli.reading import LABEL_FORM, read_input, read_labels
from daemon.cli.session import talk
from enginekit.client import Client
from enginekit.messages.json import EMPTY_OBJECT
from enginekit.messages.schedules import (
    CATCH_UP_SECONDS,
    CreateSchedule,
    DeleteSchedule,
    DescribeSchedule,
    DescribeScheduleResult,
    ListSchedules,
    Overlap,
    PauseSchedule,
    ResumeSchedule,
    ScheduleSummary,
    TriggerOutcome,
    TriggerSchedule,
)

PAGE = 1000


@click.group()
def schedule() -> None:
    """Start executions by the clock."""


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("cron", metavar="CRON")
@click.option("--time-zone", default="UTC", show_default=True, metavar="ZONE", help="As Europe/Berlin.")
@click.option("--version", type=click.IntRange(min=1), help="Of the workflow; the newest of the day without it.")
@click.option("--input", "input_", metavar="JSON|@FILE", help="What each execution begins with; {} without it.")
@click.option("--label", "labels", multiple=True, metavar=LABEL_FORM, help="On each execution. May be repeated.")
@click.option(
    "--overlap",
    type=click.Choice([policy.value for policy in Overlap]),
    default=Overlap.SKIP.value,
    show_default=True,
    help="While the execution before is running.",
)
@click.option(
    "--catch-up-seconds",
    type=click.FloatRange(min=10),
    default=CATCH_UP_SECONDS,
    show_default=True,
    help="Firings missed by no more than that are made up for.",
)
@click.option("--paused", is_flag=True, help="Until it is resumed.")
@click.option("--note", default="", help="For whoever looks at it.")
@json_option
def create(
    schedule_id: str,
    workflow: str,
    cron: str,
    time_zone: str,
    version: int | None,
    input_: str | None,
    labels: tuple[str, ...],
    overlap: str,
    catch_up_seconds: float,
    paused: bool,
    note: str,
    as_json: bool,
) -> None:
    """Start WORKFLOW whenever CRON says so, as in: engine schedule create nightly report "30 2 * * *"

    CRON is minute, hour, day of the month, month, day of the week; a sixth field before them is the second.
    """
    params = CreateSchedule(
        schedule_id=schedule_id,
        workflow=workflow,
        cron=cron,
        time_zone=time_zone,
        version=version,
        input=read_input(input_) or EMPTY_OBJECT,
        labels=read_labels(labels),
        overlap=Overlap(overlap),
        catch_up_seconds=catch_up_seconds,
        paused=paused,
        note=note,
    )
    made = talk(lambda client: client.call(params))
    if as_json:
        document(made)
    else:
        line(f"{schedule_id}: {_fires(made.next_at is None, moment(made.next_at))}")


@schedule.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the schedules and when each fires next."""

    async def run(client: Client) -> list[ScheduleSummary]:
        found: list[ScheduleSummary] = []
        token: str | None = None
        while True:
            page = await client.call(ListSchedules(page_size=PAGE, page_token=token))
            found += page.schedules
            token = page.next_page_token
            if token is None:
                return found

    found = talk(run)
    if as_json:
        document(found)
        return
    rows = [
        (
            each.schedule_id,
            each.workflow if each.version is None else f"{each.workflow} version {each.version}",
            each.cron,
            each.time_zone,
            each.overlap.value,
            "paused" if each.paused else moment(each.next_at),
            moment(each.last_at),
            each.last_error or "",
        )
        for each in found
    ]
    table(("schedule", "workflow", "cron", "time zone", "overlap", "next", "last", "last error"), rows)


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@json_option
def show(schedule_id: str, as_json: bool) -> None:
    """Show a schedule, what it did last and when it fires next."""
    seen = talk(lambda client: client.call(DescribeSchedule(schedule_id=schedule_id)))
    if as_json:
        document(seen)
    else:
        _show(seen)


def _show(seen: DescribeScheduleResult) -> None:
    last = seen.last_run
    counts = (("started", seen.started), ("skipped", seen.skipped), ("missed", seen.missed), ("failed", seen.failed))
    facts = {
        "schedule": seen.schedule_id,
        "workflow": seen.workflow if seen.version is None else f"{seen.workflow} version {seen.version}",
        "cron": f"{seen.cron}  ({seen.time_zone})",
        "overlap": seen.overlap.value,
        "catch-up": f"{seen.catch_up_seconds:.12g} s",
        "input": compact(seen.input),
        "labels": " ".join(f"{key}={value}" for key, value in seen.labels.items()),
        "created": moment(seen.created_at) + (f" by {seen.created_by}" if seen.created_by else ""),
        "note": seen.note,
        "next": "paused" if seen.paused else moment(seen.next_at),
        "waiting": moment(seen.buffered_at),
        "last": "" if last is None else f"{moment(last.at)}  {last.workflow_id}",
        "firings": ", ".join(f"{count} {name}" for name, count in counts),
        "error": "" if seen.last_error is None else f"{moment(seen.last_error_at)}  {seen.last_error}",
    }
    for name, value in facts.items():
        if value:
            line(f"{name + ':':<11}{value}")


@schedule.command("next")
@click.argument("schedule_id", metavar="ID")
@click.option("--count", type=click.IntRange(min=1, max=100), default=10, show_default=True)
@json_option
def next_(schedule_id: str, count: int, as_json: bool) -> None:
    """List a schedule's next firings, in UTC. One that is paused: as if it were resumed now."""
    seen = talk(lambda client: client.call(DescribeSchedule(schedule_id=schedule_id, upcoming=count)))
    if as_json:
        document(seen.upcoming)
        return
    for at in seen.upcoming:
        line(moment(at))


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--note", help="Why. Without it the old note stays.")
def pause(schedule_id: str, note: str | None) -> None:
    """Fire no more, until it is resumed."""
    talk(lambda client: client.call(PauseSchedule(schedule_id=schedule_id, note=note)))
    line(f"{schedule_id}: paused")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@click.option("--note", help="Why. Without it the old note stays.")
def resume(schedule_id: str, note: str | None) -> None:
    """Fire again from now on. What fell into the pause is not made up for."""

    async def run(client: Client) -> DescribeScheduleResult:
        await client.call(ResumeSchedule(schedule_id=schedule_id, note=note))
        return await client.call(DescribeSchedule(schedule_id=schedule_id))

    seen = talk(run)
    line(f"{schedule_id}: {_fires(seen.paused, moment(seen.next_at))}")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@json_option
def trigger(schedule_id: str, as_json: bool) -> None:
    """Fire now, also while it is paused. The overlap policy holds."""
    done = talk(lambda client: client.call(TriggerSchedule(schedule_id=schedule_id)))
    if as_json:
        document(done)
    elif done.outcome is TriggerOutcome.STARTED:
        line(f"{done.workflow_id} {done.run_id}")
    else:
        line(f"{schedule_id}: starts as soon as the execution before has closed")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
def delete(schedule_id: str) -> None:
    """Delete a schedule. What it has started goes on."""
    talk(lambda client: client.call(DeleteSchedule(schedule_id=schedule_id)))
    line(f"{schedule_id}: deleted")


def _fires(paused: bool, at: str) -> str:
    return "paused" if paused else f"fires at {at}"
