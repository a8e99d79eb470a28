"""What applying any event needs: payloads, inline or by reference, and the error of a history that does not add up."""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from daemon.execution.state import Payload


class BrokenHistory(Exception):
    """The events do not follow from one another: a gap, or an event about something that is not there."""


def inline(raw: Raw | UnsetType) -> Raw:
    if raw is UNSET:
        raise BrokenHistory("an event lacks its payload")
    return raw


def payload_of(event_id: int, raw: Raw | UnsetType, ref: int, *held: Payload | None) -> Payload:
    """The event's own payload, or the one of these that it refers to."""
    if raw is not UNSET:
        # A decoded event's Raw is a view into its whole message: a copy lets the message go.
        return Payload(event_id, raw.copy())
    for payload in held:
        if payload is not None and payload.event_id == ref:
            return payload
    raise BrokenHistory(f"event {event_id} refers to a payload of event {ref} that is not at hand")
