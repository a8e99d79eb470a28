"""What pages say of a ConsoleState: choices, sums and sentences. Pure."""

from __future__ import annotations

from console.colours import WELL
from console.reducers import SILENT_SECONDS
from console.state import ConsoleState, Executions, Link, Standing
from console.words import span
from enginekit.messages.calls import ExecutionSummary
from enginekit.messages.status import BreakerState


def staleness(link: Link, now: float) -> str:
    """How fresh the picture is, in a few words."""
    age = "" if link.as_of is None else f", as of {span(now - link.as_of)} ago"
    if link.standing is Standing.REFUSED:
        return f"not let in{age}"
    if link.standing is not Standing.LIVE:
        return f"{link.standing.value}{age}"
    if link.as_of is not None and now - link.as_of > SILENT_SECONDS:
        return f"live, nothing new for {span(now - link.as_of)}"
    return "live"


def visible(executions: Executions) -> list[str]:
    """The run ids of those that the text is found in: in their names, error and labels."""
    text = executions.choice.text.lower()
    if not text:
        return executions.order
    return [run for run in executions.order if found(executions.by_run[run], text)]


def found(each: ExecutionSummary, text: str) -> bool:
    """Whether the text, in lower case, stands in it somewhere."""
    return (
        text in each.workflow_id.lower()
        or text in each.run_id
        or text in (each.workflow or "").lower()
        or text in (each.error or "").lower()
        or any(text in f"{name}={value}".lower() for name, value in each.labels.items())
    )


def choice_in_words(executions: Executions, shown: int) -> str:
    """The line above the table."""
    choice = executions.choice
    parts = [
        f"status {choice.status.value if choice.status else 'any'}",
        f"workflow {choice.workflow or 'any'}",
        f"text {choice.text!r}" if choice.text else "text any",
    ]
    more = "" if executions.complete else "+"
    count = f"{shown:,} of {len(executions.order):,}{more}" if choice.text else f"{shown:,}{more}"
    anew = executions.behind or executions.reading
    if executions.missed:
        parts.append(f"{executions.missed:,} changes were missed, {'reading' if anew else 'read'} again")
    elif anew:
        parts.append("reading …")
    return f"{count} · {' · '.join(parts)}"


def summary(state: ConsoleState) -> list[str]:
    """The whole in a few short lines, for a terminal that has room for no more."""
    daemon = state.services.daemon
    lines = []
    if daemon is not None:
        down = [each.name for each in daemon.services if each.state not in WELL]
        lines.append(f"services  {len(daemon.services) - len(down)} of {len(daemon.services)} run")
        lines += [f"          not: {', '.join(down)}"] if down else []
        lines.append(f"store     {daemon.store.kind}, {daemon.store.state}")
        opened = [each for each in daemon.breakers or [] if each.state is not BreakerState.CLOSED]
        lines.append(f"breakers  {len(opened)} open")
    queues = state.queues.queues.values()
    lines.append(f"queues    {sum(each.depth for each in queues):,} tasks wait in {len(queues)}")
    running = sum(not each.status.closed for each in state.executions.by_run.values())
    lines.append(f"running   {running:,} of the last {len(state.executions.order):,}")
    return lines
