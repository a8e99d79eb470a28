"""An execution's history for people: one line an event, in words."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from enginekit.messages import events as ev


def history_table(title: str, history: list[ev.AnyEvent]) -> Table:
    """Number, seconds since the start, where, and what happened."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("after", justify="right")
    table.add_column("where", style="cyan", no_wrap=True)
    table.add_column("what happened")
    for event in history:
        after = (event.time - history[0].time).total_seconds()
        where = event.path if isinstance(event, ev.NodeEvent) else ""
        table.add_row(str(event.id), f"{after:.3f} s", escape(where), in_words(event))
    return table


def in_words(event: ev.AnyEvent) -> str:
    """Rich markup."""
    match event:
        case ev.WorkflowStarted():
            return f"started: {escape(event.workflow or 'an inline definition')}, first {event.next}"
        case ev.WorkflowSucceeded():
            return "[green]succeeded"
        case ev.WorkflowFailed():
            return f"[red]failed:[/red] {escape(event.error)}: {escape(event.cause)}"
        case ev.NodeExited():
            return "done" if event.next is None else f"done, next {event.next}"
        case ev.NodeFailed():
            return f"[red]failed:[/red] {escape(event.error)}" + (f", caught: next {event.next}" if event.next else "")
        case ev.TaskScheduled():
            return f"task for {event.resource}, attempt {event.attempt}"
        case ev.TaskStarted():
            return f"worker {event.worker} has it"
        case ev.TaskFailed():
            return f"[yellow]attempt failed:[/yellow] {escape(event.error)}"
        case ev.TaskTimedOut():
            return f"[yellow]attempt timed out[/yellow] after {event.waited_seconds:.1f} s"
        case ev.TaskRetryScheduled():
            return f"[yellow]tries again[/yellow] at {event.at:%H:%M:%S}, attempt {event.attempt}"
        case ev.TimerStarted():
            return f"waits until {event.fire_at:%H:%M:%S}"
        case ev.MapStarted():
            return f"items: {event.total}, up to {event.concurrency} at a time"
        case ev.MapIterationEnded() | ev.BranchEnded():
            return f"part {event.index}: {event.status.value.lower()}"
        case ev.ParallelStarted():
            return f"{len(event.next)} branches: {', '.join(event.next)}"
        case _:
            return _spaced(type(event).__name__)


def _spaced(name: str) -> str:
    """`TimerFired` as `timer fired`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
