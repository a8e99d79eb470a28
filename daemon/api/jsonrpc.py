"""JSON-RPC 2.0 to the letter, without I/O: the bytes of a frame become calls, results and refusals become bytes.

Nothing here knows a method, a socket or a principal. A frame that is not JSON is refused as a whole; a batch is taken
apart, and an element of it that is no request is refused alone. An id is kept as the bytes it came in, so that it goes
back exactly as it was written.

| code   | `data.status`         | when |
| ------ | --------------------- | ---- |
| -32700 | `INVALID_ARGUMENT`    | the frame is not JSON |
| -32600 | `INVALID_ARGUMENT`    | JSON, but no JSON-RPC 2.0 request; an empty batch, or one of too many calls |
| -32601 | `INVALID_ARGUMENT`    | there is no such method (`NOT_FOUND` is kept for what a method looked for) |
| -32602 | `INVALID_ARGUMENT`    | wrong, missing or unknown parameters; a definition's faults |
| -32603 | `INTERNAL`            | the daemon's own fault |
| -32001 | `UNAUTHENTICATED`     | |
| -32002 | `PERMISSION_DENIED`   | |
| -32003 | `NOT_FOUND`           | |
| -32004 | `ALREADY_EXISTS`      | |
| -32005 | `FAILED_PRECONDITION` | |
| -32006 | `RESOURCE_EXHAUSTED`  | with `retry_after_seconds` |
| -32007 | `UNAVAILABLE`         | |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw

from enginekit.messages.json import EMPTY_OBJECT, JSON, NULL
from enginekit.messages.status import ErrorStatus, Refused

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
CODES: Final[dict[ErrorStatus, int]] = {
    ErrorStatus.INVALID_ARGUMENT: -32602,
    ErrorStatus.INTERNAL: -32603,
    ErrorStatus.UNAUTHENTICATED: -32001,
    ErrorStatus.PERMISSION_DENIED: -32002,
    ErrorStatus.NOT_FOUND: -32003,
    ErrorStatus.ALREADY_EXISTS: -32004,
    ErrorStatus.FAILED_PRECONDITION: -32005,
    ErrorStatus.RESOURCE_EXHAUSTED: -32006,
    ErrorStatus.UNAVAILABLE: -32007,
}

_WHITESPACE = b" \t\r\n"
_ID_STARTS = frozenset(b'"-0123456789n')
_ABSENT = Raw()


class UnknownMethod(Refused):
    """There is no method of that name. The one refusal with a code of its own beside its status."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorStatus.INVALID_ARGUMENT, message)


class Request(msgspec.Struct, frozen=True, gc=False):
    """One call. `id` is None for a notification, which is never answered; else the id's own bytes."""

    method: str
    params: Raw
    id: Raw | None


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """What cannot be called, and the error that answers it."""

    code: int
    message: str
    id: Raw = NULL


class _Envelope(msgspec.Struct, gc=False):
    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = EMPTY_OBJECT
    id: Raw = _ABSENT


class _Error(msgspec.Struct):
    code: int
    message: str
    data: dict[str, JSON]


_envelope = msgspec.json.Decoder(_Envelope)
_elements = msgspec.json.Decoder(list[Raw])
_document = msgspec.json.Decoder(Raw)
_members = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()


def parse(frame: bytes, batch_calls: int) -> Request | Malformed | list[Request | Malformed]:
    """The calls of one frame: one, or the list of a batch (1 to `batch_calls` of them, in order).

    Never raises. What is not JSON, an empty batch and one that is too long are a single Malformed.
    """
    if not frame.isascii():
        try:
            frame.decode()
        except UnicodeDecodeError as error:
            return Malformed(PARSE_ERROR, _not_json(error))
    start = frame[:1]
    if start in _WHITESPACE:
        start = frame.lstrip(_WHITESPACE)[:1]
    if start != b"[":
        return _parse_one(frame)
    try:
        elements = _elements.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        return Malformed(PARSE_ERROR, _not_json(error))
    if not elements:
        return Malformed(INVALID_REQUEST, "an empty batch: put at least one call into the array")
    if len(elements) > batch_calls:
        return Malformed(INVALID_REQUEST, f"a batch of {len(elements)} calls; at most {batch_calls} go into one")
    # Copied, so that one small payload that is kept does not keep the whole frame with it.
    return [_parse_one(bytes(element)) for element in elements]


def encode_result(id: Raw, result: bytes) -> bytes:
    """The response to one call whose result is encoded already."""
    return b"".join((b'{"jsonrpc":"2.0","id":', id, b',"result":', result, b"}"))


def encode_refusal(id: Raw, refused: Refused) -> bytes:
    """The response to one call that was refused."""
    code = METHOD_NOT_FOUND if isinstance(refused, UnknownMethod) else CODES[refused.status]
    return _encode_error(id, code, refused.message, {"status": refused.status.value, **refused.data})


def encode_malformed(malformed: Malformed) -> bytes:
    """The response to what was no call."""
    data: dict[str, JSON] = {"status": ErrorStatus.INVALID_ARGUMENT.value}
    return _encode_error(malformed.id, malformed.code, malformed.message, data)


def encode_batch(responses: Sequence[bytes]) -> bytes:
    """The frame that answers a batch. `responses` is not empty: a batch of notifications is not answered at all."""
    return b"[" + b",".join(responses) + b"]"


def _encode_error(id: Raw, code: int, message: str, data: dict[str, JSON]) -> bytes:
    error = _encoder.encode(_Error(code, message, data))
    return b"".join((b'{"jsonrpc":"2.0","id":', id, b',"error":', error, b"}"))


def _parse_one(text: bytes) -> Request | Malformed:
    try:
        envelope = _envelope.decode(text)
    except msgspec.ValidationError:
        return _diagnose(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Malformed(PARSE_ERROR, _not_json(error))
    id = envelope.id if envelope.id is not _ABSENT else None
    if id is not None and memoryview(id)[0] not in _ID_STARTS:
        return Malformed(INVALID_REQUEST, "id: must be a string, a number or null")
    if memoryview(envelope.params)[0] not in b"{[":
        return Malformed(INVALID_REQUEST, "params: must be an object", id if id is not None else NULL)
    return Request(envelope.method, envelope.params, id)


def _diagnose(text: bytes) -> Malformed:
    """JSON that is no request: say what is missing, under its id where it has a usable one."""
    try:
        # The envelope's decoder stopped at the first thing that did not fit; what follows may not even be JSON.
        if bytes(_document.decode(text))[:1] != b"{":
            return Malformed(INVALID_REQUEST, "a request must be an object with `jsonrpc`, `method`, `params` and `id`")
        members = _members.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Malformed(PARSE_ERROR, _not_json(error))
    id = members.get("id", NULL)
    if memoryview(id)[0] not in _ID_STARTS:
        id = NULL
    if bytes(members.get("jsonrpc", NULL)) != b'"2.0"':
        return Malformed(INVALID_REQUEST, 'jsonrpc: must be "2.0"', id)
    return Malformed(INVALID_REQUEST, "method: must be a string, the method's name", id)


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not a JSON document that can be read: it nests too deeply"
    return f"not a JSON document: {error}"
