"""A history as it goes over the wire: stored bytes as they are, with the payloads filled in that they refer to."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.stores.interface import Store
from enginekit.messages import events as ev

PAYLOADS = 16
"""Events that are read at once for the payloads in them: small events may refer to many large ones."""

_PAYLOADS = ("input", "output")


async def read_page(store: Store, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[Raw]:
    """Events from `after_id + 1`: at most `limit`, and no more than `max_bytes` once they are filled in (but one at
    least)."""
    stored = await store.events(tenant, run_id, after_id, limit, max_bytes)
    decoded = [ev.decode_event(data) for data in stored]
    held: dict[int, Raw | UnsetType] = {
        event.id: payload for event in decoded if (payload := _inline(event)) is not UNSET
    }
    missing = list(dict.fromkeys(ref for event in decoded if (ref := _reference(event)) and ref not in held))
    page: list[Raw] = []
    total = 0
    for data, event in zip(stored, decoded, strict=True):
        ref = _reference(event)
        if ref and ref not in held:
            wanted, missing = missing[:PAYLOADS], missing[PAYLOADS:]
            for holder in map(ev.decode_event, await store.events_by_id(tenant, run_id, sorted(wanted))):
                held[holder.id] = _inline(holder)
        filled = _fill(event, held[ref]) if ref else data
        total += len(filled)
        if page and total > max_bytes:
            break
        page.append(Raw(filled))
    return page


def _inline(event: ev.AnyEvent) -> Raw | UnsetType:
    for name in _PAYLOADS:
        payload: Raw | UnsetType = getattr(event, name, UNSET)
        if payload is not UNSET:
            return payload
    return UNSET


def _reference(event: ev.AnyEvent) -> int:
    """The id of the event that holds its payload; 0 when it holds its own or has none."""
    return getattr(event, "input_ref", 0) or getattr(event, "output_ref", 0)


def _fill(event: ev.AnyEvent, payload: Raw | UnsetType) -> bytes:
    if getattr(event, "input_ref", 0):
        return ev.encode_event(msgspec.structs.replace(event, input=payload, input_ref=0))
    return ev.encode_event(msgspec.structs.replace(event, output=payload, output_ref=0))
