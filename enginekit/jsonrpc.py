"""JSON-RPC 2.0 as a client speaks it: requests to text, text to replies. No I/O lives here.

Params and results pass through as bytes that somebody else has encoded or will decode.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from enginekit.errors import ProtocolError
from enginekit.messages.json import NotJSON, decode
from enginekit.messages.status import ErrorStatus, Refused

SUBPROTOCOL = "engine.v1"

_STATUS_OF_CODE = {
    -32700: ErrorStatus.INVALID_ARGUMENT,
    -32600: ErrorStatus.INVALID_ARGUMENT,
    -32601: ErrorStatus.INVALID_ARGUMENT,
    -32602: ErrorStatus.INVALID_ARGUMENT,
}
"""For an error that carries no status of ours: what the specification's codes mean."""


class ErrorObject(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: Raw | UnsetType = UNSET


class Reply(msgspec.Struct, frozen=True):
    """An answer to the request with this `id`; without one, a notification or a fault of the whole message."""

    id: int | None = None
    result: Raw | UnsetType = UNSET
    error: ErrorObject | None = None
    method: str | None = None
    params: Raw | UnsetType = UNSET


class _Handshake(msgspec.Struct, frozen=True):
    """The body of a refused handshake."""

    error: dict[str, Raw]


_STATUS_OF_HTTP = {
    401: ErrorStatus.UNAUTHENTICATED,
    403: ErrorStatus.PERMISSION_DENIED,
    429: ErrorStatus.RESOURCE_EXHAUSTED,
    502: ErrorStatus.UNAVAILABLE,
    503: ErrorStatus.UNAVAILABLE,
    504: ErrorStatus.UNAVAILABLE,
}
"""For a handshake that something else than an engine refused: a proxy in front of it, mostly."""

_handshake = msgspec.json.Decoder(_Handshake)
_replies = msgspec.json.Decoder(Reply | list[Reply])


def request(call_id: int, method: str, params: bytes) -> bytes:
    """One request. `params` is a JSON object, encoded."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}' % (call_id, method.encode(), params)


def message(requests: Sequence[bytes]) -> str:
    """One request as it is; several as a batch."""
    if len(requests) == 1:
        return requests[0].decode()
    return (b"[" + b",".join(requests) + b"]").decode()


def replies(text: str | bytes) -> list[Reply]:
    """What a message from the daemon answers. Raises ProtocolError for one that is no JSON-RPC."""
    try:
        decoded = _replies.decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"the daemon sent a message that is not JSON-RPC: {error}") from error
    return decoded if isinstance(decoded, list) else [decoded]


def refusal(error: ErrorObject) -> Refused:
    """The refusal that an error object carries."""
    data = {}
    if isinstance(error.data, Raw):
        try:
            value = decode(error.data)
        except NotJSON:
            value = None
        if isinstance(value, dict):
            data = value
    named = data.pop("status", None)
    try:
        status = ErrorStatus(named)
    except ValueError:
        status = _STATUS_OF_CODE.get(error.code, ErrorStatus.INTERNAL)
    return Refused(status, error.message, data)


def retry_after(refused: Refused) -> float:
    """What the daemon asked for, in seconds; 0 when it asked for nothing."""
    value = refused.data.get("retry_after_seconds")
    return max(float(value), 0.0) if isinstance(value, int | float) else 0.0


def handshake_refusal(http_status: int, body: bytes) -> Refused:
    """Why the WebSocket handshake was refused, in the words of whoever did."""
    fallback = _STATUS_OF_HTTP.get(http_status, ErrorStatus.INVALID_ARGUMENT)
    try:
        data = {name: decode(value) for name, value in _handshake.decode(body).error.items()}
    except (msgspec.MsgspecError, ValueError):
        said = body.decode(errors="replace").strip()[:500]
        return Refused(fallback, said or f"HTTP {http_status}")
    named, message = data.pop("status", None), data.pop("message", None)
    try:
        status = ErrorStatus(named)
    except ValueError:
        status = fallback
    return Refused(status, message if isinstance(message, str) else f"HTTP {http_status}", data)
