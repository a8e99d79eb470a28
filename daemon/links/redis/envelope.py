"""What stands in a stream: an envelope in MessagePack around a message, a call or an answer as JSON.

Bodies are JSON because payloads are: a `Raw` goes through unread, byte for byte. Types go by their names. Processes of
different versions meet here, so what is not known is no fault: fields are passed over, in calls too (whose structs
refuse unknown fields where users send them); of a type that is unknown the caller is told. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import msgspec

from enginekit.messages import calls, dead_letters, links, schedules, subscriptions
from enginekit.messages.calls import Call, Result
from enginekit.messages.links import Message, ToHistory, ToMatching, ToTimer, ToWorker
from enginekit.messages.status import ErrorStatus, Refused

VERSION: Final = 1
"""Of envelopes. One with a greater number cannot be read by what knows this one."""

REFUSED: Final = "Refused"
"""The kind of a refusal, whose body is a `Refusal`."""

# Their types have to be there to be found.
_MODULES: Final = (calls, dead_letters, links, schedules, subscriptions)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """`sender` and `number` name it: the same again is a repeat. Requests have a `reply_to` (the stream), a time to
    live counted from the moment of their entry, and whose they are; answers have `answers`, the number of the
    request."""

    version: int = msgspec.field(name="v")
    sender: bytes = msgspec.field(name="s")
    number: int = msgspec.field(name="n")
    kind: str = msgspec.field(name="k")
    body: bytes = msgspec.field(name="b")
    live_ms: int | None = msgspec.field(name="l", default=None)
    reply_to: str | None = msgspec.field(name="r", default=None)
    tenant: str | None = msgspec.field(name="t", default=None)
    subject: str = msgspec.field(name="u", default="")
    answers: int | None = msgspec.field(name="a", default=None)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """`Refused`, as it travels."""

    status: str
    message: str
    data: dict[str, Any] = {}


class Unreadable(ValueError):
    """Nothing that this version knows."""


Body: TypeAlias = Message | Call | Result

_encoder = msgspec.json.Encoder()
_envelopes = msgspec.msgpack.Decoder(Envelope)
_envelope_encoder = msgspec.msgpack.Encoder()
_refusals = msgspec.json.Decoder(Refusal)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists = msgspec.json.Decoder(list[msgspec.Raw])


def _descendants(kind: type[Call] | type[Result]) -> Iterator[type[Call] | type[Result]]:
    for child in type.__subclasses__(kind):
        yield child
        yield from _descendants(child)


def _registry() -> dict[str, type[Body]]:
    one_way = [kind for union in (ToHistory, ToMatching, ToWorker, ToTimer) for kind in get_args(union)]
    found: dict[str, type[Body]] = {}
    for kind in (*one_way, *_descendants(Call), *_descendants(Result)):
        if not kind.__module__.startswith("enginekit.messages."):
            continue
        if found.setdefault(kind.__name__, kind) is not kind:
            raise TypeError(f"two messages are called {kind.__name__}")
    return found


_KINDS: Final = _registry()
_decoders: dict[str, msgspec.json.Decoder[Body]] = {}


def encode_body(body: Body) -> bytes:
    return _encoder.encode(body)


def encode_refused(refused: Refused) -> bytes:
    return _encoder.encode(Refusal(status=refused.status.value, message=refused.message, data=refused.data))


def seal(envelope: Envelope) -> bytes:
    return _envelope_encoder.encode(envelope)


def unseal(data: bytes) -> Envelope:
    """Raises Unreadable."""
    try:
        envelope = _envelopes.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unreadable(f"an entry is no envelope: {error}") from error
    if envelope.version > VERSION:
        raise Unreadable(f"an envelope of version {envelope.version}, of which this process knows {VERSION}")
    return envelope


def decode_body(kind: str, body: bytes) -> Body:
    """Raises Unreadable."""
    decoder = _decoders.get(kind)
    if decoder is None:
        if kind not in _KINDS:
            raise Unreadable(f"a message of a type that this version does not know: {kind[:80]}")
        decoder = _decoders[kind] = msgspec.json.Decoder(_KINDS[kind])
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        try:
            return decoder.decode(_known_part(_KINDS[kind], body))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Unreadable(f"a {kind} that this version cannot read: {error}") from error


def decode_answer(kind: str, body: bytes) -> Result | Refused:
    """Raises Unreadable."""
    if kind == REFUSED:
        return _decode_refused(body)
    answer = decode_body(kind, body)
    if not isinstance(answer, Result):
        raise Unreadable(f"an answer that is none: {kind}")
    return answer


def _decode_refused(body: bytes) -> Refused:
    try:
        refusal = _refusals.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unreadable(f"a refusal that this version cannot read: {error}") from error
    try:
        status = ErrorStatus(refusal.status)
    except ValueError:
        status = ErrorStatus.INTERNAL
    return Refused(status, refusal.message, refusal.data)


def _known_part(kind: Any, body: bytes | msgspec.Raw) -> msgspec.Raw:
    """The document without the fields that this version's structs do not have; payloads stay as they are."""
    if get_origin(kind) is list:
        (of,) = get_args(kind)
        return msgspec.Raw(_encoder.encode([_known_part(of, each) for each in _lists.decode(body)]))
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return body if isinstance(body, msgspec.Raw) else msgspec.Raw(body)
    hints = get_type_hints(kind)
    document = _objects.decode(body)
    known = {
        field.encode_name: _known_part(hints[field.name], document[field.encode_name])
        for field in msgspec.structs.fields(kind)
        if field.encode_name in document
    }
    return msgspec.Raw(_encoder.encode(known))
