"""How a call of a language model fails: the names, and which of them an answer, an exception or an event comes to.

Pure: what an HTTP answer says is passed in, and goes into the cause whole. Nothing here knows one vendor's client from
the other's.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from enum import Enum
from math import isfinite, nan
from typing import Final

import httpx2

from daemon.nodes.web.answer import retry_after
from enginekit.node import NodeFailure, Usage

CAUSE_CHARACTERS: Final = 2048
"""How much of what a server says goes into the cause. It is cut by whoever knows the secrets that it may hold."""


class AiError(str, Enum):
    """The errors, as `Retry` and `Catch` match them."""

    INVALID_ARGUMENTS = "Ai.InvalidArguments"
    """A field is missing, unknown or cannot be; nothing was sent."""
    INVALID_REQUEST = "Ai.InvalidRequest"
    """The server does not take the request: an unknown model, too long a prompt, a field it does not have."""
    AUTHENTICATION = "Ai.Authentication"
    """The server does not take the key (401), or not for this (403)."""
    QUOTA_EXCEEDED = "Ai.QuotaExceeded"
    """The account's money or quota is used up: trying again later does not help by itself."""
    RATE_LIMITED = "Ai.RateLimited"
    """Too many calls or tokens for now (429)."""
    OVERLOADED = "Ai.Overloaded"
    """The server has more to do than it can (503, 529, or said so in the middle of the answer)."""
    SERVER_ERROR = "Ai.ServerError"
    """It failed otherwise (5xx, 408, or said so in the middle of the answer)."""
    CONNECTION_ERROR = "Ai.ConnectionError"
    """No connection: refused, no such host, no route, not in time."""
    TLS_ERROR = "Ai.TlsError"
    """The certificate is not valid for the host, or TLS could not be agreed."""
    CONNECTION_LOST = "Ai.ConnectionLost"
    """The connection ended before the answer was complete."""
    READ_TIMEOUT = "Ai.ReadTimeout"
    """Nothing was heard for `read_seconds`."""
    PROTOCOL_ERROR = "Ai.ProtocolError"
    """The answer is not what such servers answer."""
    OUTPUT_TOO_LARGE = "Ai.OutputTooLarge"
    """The answer is longer than `output_bytes`, or what came with it than `stream_bytes`."""
    CONTENT_REFUSED = "Ai.ContentRefused"
    """The model, or a filter of the server's, refused to answer."""
    INVALID_OUTPUT = "Ai.InvalidOutput"
    """The answer does not fit ResponseSchema, or a tool's input is no JSON."""


UNHEALTHY: Final = frozenset(
    {
        AiError.RATE_LIMITED,
        AiError.OVERLOADED,
        AiError.SERVER_ERROR,
        AiError.CONNECTION_ERROR,
        AiError.TLS_ERROR,
        AiError.CONNECTION_LOST,
        AiError.READ_TIMEOUT,
        AiError.PROTOCOL_ERROR,
    }
)
"""Where the destination does not do its work, which its circuit breaker counts."""

_BY_STATUS: Final = {
    401: AiError.AUTHENTICATION,
    402: AiError.QUOTA_EXCEEDED,
    403: AiError.AUTHENTICATION,
    408: AiError.SERVER_ERROR,
    429: AiError.RATE_LIMITED,
    503: AiError.OVERLOADED,
    529: AiError.OVERLOADED,
}
# What vendors and compatible servers write into `code` and `type` of an error: more exact than the status, and all
# there is where the error comes in the middle of an answer.
_BY_CODE: Final = {
    "insufficient_quota": AiError.QUOTA_EXCEEDED,
    "billing_error": AiError.QUOTA_EXCEEDED,
    "content_filter": AiError.CONTENT_REFUSED,
    "content_policy_violation": AiError.CONTENT_REFUSED,
    "rate_limit_error": AiError.RATE_LIMITED,
    "rate_limit_exceeded": AiError.RATE_LIMITED,
    "overloaded_error": AiError.OVERLOADED,
    "authentication_error": AiError.AUTHENTICATION,
    "permission_error": AiError.AUTHENTICATION,
    "invalid_request_error": AiError.INVALID_REQUEST,
    "not_found_error": AiError.INVALID_REQUEST,
    "request_too_large": AiError.INVALID_REQUEST,
}


def failed(
    error: AiError, cause: str, *, usage: Usage | None = None, retry_after_seconds: float | None = None
) -> NodeFailure:
    """The failure of that name."""
    return NodeFailure(
        error.value,
        cause,
        unhealthy=error in UNHEALTHY if error is not AiError.INVALID_ARGUMENTS else None,
        usage=usage,
        retry_after_seconds=retry_after_seconds,
    )


def status_failure(status: int, reason: str, headers: httpx2.Headers, body: object, wall_seconds: float) -> NodeFailure:
    """What an answer comes to whose status is no success. `body` as the vendors' clients have it: parsed, where it is
    JSON, else a text; `wall_seconds` is the time since 1970."""
    code, message = _told(body)
    error = _BY_STATUS.get(status)
    if error is None:
        error = AiError.SERVER_ERROR if status >= 500 else AiError.INVALID_REQUEST
    if status < 400:
        error = AiError.PROTOCOL_ERROR
        message = message or "redirects are not followed: the connection's url must be the server's own"
    elif error in (AiError.RATE_LIMITED, AiError.INVALID_REQUEST):
        # Of those only: a server that is overloaded may call it what it likes.
        error = _BY_CODE.get(code, error)
    cause = f"the server answered {status} {reason}".rstrip() + (f": {message}" if message else "")
    return failed(error, cause, retry_after_seconds=pause_asked_for(headers, wall_seconds))


def event_failure(body: object) -> NodeFailure:
    """What an error comes to that the server reports in the middle of its answer."""
    code, message = _told(body)
    error = _BY_CODE.get(code, AiError.SERVER_ERROR)
    return failed(error, f"the server broke off: {message or code or 'it does not say why'}")


def pause_asked_for(headers: httpx2.Headers, wall_seconds: float) -> float | None:
    """In seconds: `retry-after-ms`, else `Retry-After` as seconds or a date; None where the server asks for none, or in
    a way that cannot be read."""
    try:
        milliseconds = float(headers.get("retry-after-ms", ""))
    except ValueError:
        milliseconds = nan
    if isfinite(milliseconds) and milliseconds >= 0:
        return milliseconds / 1000
    return retry_after(headers, wall_seconds)


def transport_failure(error: BaseException) -> NodeFailure | None:
    """What an exception comes to whose cause is the connection or the form of the answer; None for any other."""
    for found in _causes(error):
        if isinstance(found, NodeFailure):
            return found
        name = _diagnosis(found)
        if name is not None:
            return failed(*name)
    return None


def _diagnosis(error: BaseException) -> tuple[AiError, str] | None:
    match error:
        case httpx2.ConnectTimeout():
            return AiError.CONNECTION_ERROR, "no connection in time (ai.connect_seconds)"
        case httpx2.TimeoutException():
            return AiError.READ_TIMEOUT, "the server said nothing for too long (ai.read_seconds)"
        case httpx2.ConnectError():
            return _connect_diagnosis(error)
        case httpx2.NetworkError():
            return AiError.CONNECTION_LOST, "the connection was lost before the answer was complete"
        case httpx2.RemoteProtocolError() if "disconnected" in str(error) or "peer closed" in str(error):
            return AiError.CONNECTION_LOST, "the connection was closed before the answer was complete"
        case httpx2.SSEError():
            return AiError.OUTPUT_TOO_LARGE, f"{error} (ai.output_bytes)"
        case httpx2.RequestError():
            return AiError.PROTOCOL_ERROR, f"the answer is not sound HTTP: {error}"
        case _:
            return None


def _connect_diagnosis(error: httpx2.ConnectError) -> tuple[AiError, str]:
    problem = str(error)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AiError.TLS_ERROR, f"the server's certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return AiError.TLS_ERROR, f"TLS could not be agreed: {cause.reason or cause}"
        if isinstance(cause, ConnectionRefusedError):
            return AiError.CONNECTION_ERROR, "connection refused: nobody listens there"
        problem = str(cause)
    return AiError.CONNECTION_ERROR, f"no connection: {problem}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to the error, from the outside in."""
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop()
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        cause = current.__cause__ or current.__context__
        if cause is not None:
            pending.append(cause)


def _told(body: object) -> tuple[str, str]:
    """The code and the message in the body of an error, each empty where there is none."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            said = [inner[key] for key in ("code", "type") if isinstance(inner.get(key), str)]
            code = next((each for each in said if each in _BY_CODE), "")
            message = inner.get("message")
            return code, message if isinstance(message, str) else _shown(inner)
        return "", _shown(inner)
    return "", "" if body is None else str(body)


def _shown(value: object) -> str:
    return json.dumps(value, default=str)
