"""A run's state as bytes and back, so that loading costs a snapshot and a bounded tail of events.

Every payload is written once, however many places of the state hold it. `FINGERPRINT` names the shape of the state's
structs: a snapshot with another one is ignored, and the run is replayed from its events.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Raw

from daemon.execution.state import Branch, ChildRef, Fan, Node, Payload, Run, Task
from enginekit.messages.events import ChildStart, Failure, ParentTask, Usage
from enginekit.messages.links import RunRef


def _fingerprint() -> str:
    shape = [
        f"{struct.__name__}.{field.name}: {field.type!r}"
        for struct in (Run, Branch, Node, Fan, Task, RunRef, Usage, ParentTask, ChildRef, ChildStart, Failure)
        for field in msgspec.structs.fields(struct)
    ]
    return hashlib.sha256("\n".join(shape).encode()).hexdigest()[:16]


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
