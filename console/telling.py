"""What an event or a waiting node says, in words and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from console import colours
from console.cells import Cell
from console.words import clock, since, until
from enginekit.messages import events as ev
from enginekit.messages.calls import NodeView
from enginekit.messages.events import AnyEvent, encode_event
from enginekit.messages.json import JSON

_STATES = {
    "running": "runs",
    "queued": "waits for a worker",
    "waiting": "waits for its time",
    "backing_off": "waits before it is tried again",
    "awaiting_token": "waits for its token",
    "awaiting_signal": "waits for the signal",
}


def row(event: AnyEvent) -> list[Cell]:
    """Of the table of events: id, time, type, path, and what matters in it."""
    return [
        (str(event.id), colours.QUIET),
        (clock(event.time), ""),
        (type(event).__name__, _colour(event)),
        (event.path if isinstance(event, ev.NodeEvent) else "", ""),
        (_gist(event), ""),
    ]


def _colour(event: AnyEvent) -> str:
    name = type(event).__name__
    if name.endswith(("Failed", "TimedOut", "DeadLettered")):
        return colours.BAD
    if name.endswith(("Canceled", "Terminated", "CancelRequested", "RetryScheduled", "Returned")):
        return colours.WAITING
    if name.endswith(("Succeeded", "Completed", "Exited")):
        return colours.GOOD
    return ""


def _gist(event: AnyEvent) -> str:
    cause = getattr(event, "cause", None)
    for name in ("error", "resource", "worker", "reason", "name", "next", "kind", "workflow", "fire_at"):
        value = getattr(event, name, None)
        if value:
            return f"{value}: {cause}" if name == "error" and cause else str(value)
    return ""


def document(events: Sequence[AnyEvent], event: AnyEvent) -> dict[str, JSON]:
    """The event as JSON, with what it refers to in place of the reference."""
    whole: dict[str, JSON] = msgspec.json.decode(encode_event(event))
    for name in ("input", "output"):
        reference = whole.pop(f"{name}_ref", None)
        if isinstance(reference, int) and 0 < reference <= len(events):
            held: dict[str, JSON] = msgspec.json.decode(encode_event(events[reference - 1]))
            whole[name] = held.get("input", held.get("output"))
    return whole


def waits(view: NodeView, now: float) -> list[Cell]:
    """What a node that runs does, and until when: one line."""
    parts: list[Cell] = [(view.path, "bold"), (f" {_STATES.get(view.state, view.state)}", colours.WAITING)]
    if view.queue:
        parts.append((f" {view.queue}" if view.state == "awaiting_signal" else f" (queue {view.queue})", ""))
    if view.worker:
        parts.append((f" on {view.worker}", ""))
    if view.child_workflow_id:
        parts.append((f" · child {view.child_workflow_id}", ""))
    if view.done is not None and view.total is not None:
        parts.append((f" · {view.done:,} of {view.total:,} done", ""))
    if view.attempt > 1:
        parts.append((f" · attempt {view.attempt}", ""))
    if view.next_retry_at:
        parts.append((f" · again {until(view.next_retry_at, now)}", ""))
    if view.deadline:
        parts.append((f" · until {clock(view.deadline)}, {until(view.deadline, now)}", colours.BUSY))
    if view.heartbeat_at:
        parts.append((f" · heartbeat {since(view.heartbeat_at, now)}", colours.QUIET))
    if view.last_error:
        parts.append((f" · last {view.last_error}", colours.BAD))
    return parts
