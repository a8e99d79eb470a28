"""A run's state as bytes and back, so that loading costs a snapshot and a bounded tail of events.

Every payload is written once, however many places of the state hold it. `FINGERPRINT` names the shape of the state's
structs: a snapshot with another one is ignored, and the run is replayed from its events.
"""

from __future__ import annotations

import hashlib
from typing import get_args

import msgspec
from msgspec import Raw

from daemon.execution.state import Payload, Run


def _structs(hint: object) -> set[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return {hint}
    return set().union(*map(_structs, get_args(hint)))


def parts() -> set[type[msgspec.Struct]]:
    """The structs that a state is made of."""
    found: set[type[msgspec.Struct]] = set()
    waiting: set[type[msgspec.Struct]] = {Run}
    while waiting:
        one = waiting.pop()
        found.add(one)
        for field in msgspec.structs.fields(one):
            waiting |= _structs(field.type) - found
    return found


def _fingerprint() -> str:
    shape = [
        f"{struct.__name__}.{field.name}: {field.type!r}"
        for struct in parts()
        for field in msgspec.structs.fields(struct)
    ]
    return hashlib.sha256("\n".join(sorted(shape)).encode()).hexdigest()[:16]


FINGERPRINT = _fingerprint()


class _Frame(msgspec.Struct, array_like=True):
    payloads: dict[int, bytes]
    state: Raw


_decoder = msgspec.msgpack.Decoder(_Frame)


def dump(run: Run) -> bytes:
    """The state's bytes. Equal states give equal bytes."""
    payloads: dict[int, bytes] = {}

    def reference(value: object) -> object:
        assert isinstance(value, Payload)
        payloads[value.event_id] = bytes(value.raw)
        return value.event_id

    state = msgspec.msgpack.encode(run, enc_hook=reference)
    return msgspec.msgpack.encode(_Frame(payloads, Raw(state)))


def load(data: bytes) -> Run:
    """The state of `dump`'s bytes. Raises msgspec.ValidationError for other bytes."""
    frame = _decoder.decode(data)
    payloads = {event_id: Payload(event_id, Raw(raw)) for event_id, raw in frame.payloads.items()}

    def resolve(expected: type, value: object) -> object:
        assert expected is Payload
        assert isinstance(value, int)
        return payloads[value]

    return msgspec.msgpack.decode(frame.state, type=Run, dec_hook=resolve)
