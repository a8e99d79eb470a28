"""How a call of the `http` node fails: the names, and which of them an exception of the client's comes to."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from enum import Enum
from typing import NoReturn

import httpx2

from daemon.nodes.web.network import AddressRefused, NotConnected
from daemon.redaction import Redactor
from enginekit.node import NodeFailure

CAUSE_CHARACTERS = 1024
"""How much of a refusing answer's body goes into the cause."""


class HttpError(str, Enum):
    """The errors that are not a status, as `Retry` and `Catch` match them."""

    SOCKET = "States.Http.Socket"
    INVALID_ARGUMENTS = "Http.InvalidArguments"
    ADDRESS_REFUSED = "Http.AddressRefused"
    CONNECTION_MISMATCH = "Http.ConnectionMismatch"
    CONNECTION_REFUSED = "Http.ConnectionRefused"
    CONNECT_TIMEOUT = "Http.ConnectTimeout"
    CONNECT_ERROR = "Http.ConnectError"
    TLS_ERROR = "Http.TlsError"
    CONNECTION_LOST = "Http.ConnectionLost"
    PROTOCOL_ERROR = "Http.ProtocolError"
    TOO_MANY_REDIRECTS = "Http.TooManyRedirects"
    RESPONSE_TOO_LARGE = "Http.ResponseTooLarge"


_NOT_CALLED = frozenset({HttpError.INVALID_ARGUMENTS, HttpError.ADDRESS_REFUSED})
"""Nothing was heard of the destination, good or bad."""


def refuse(field: str, problem: str) -> NoReturn:
    """Raises NodeFailure `Http.InvalidArguments`."""
    raise NodeFailure(HttpError.INVALID_ARGUMENTS.value, f"{field} {problem}", unhealthy=None)


def target(request: httpx2.Request) -> str:
    """Method and URL for a cause: without a query and user information, which may hold secrets."""
    url = request.url
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port is not None else ""
    return f"{request.method} {url.scheme}://{host}{port}{url.path}"


def fail_transport(error: httpx2.RequestError, redactor: Redactor) -> NoReturn:
    """Raises NodeFailure: what the client's exception comes to. It may quote what the server said."""
    name, problem = _diagnosis(error)
    raise NodeFailure(
        name.value,
        redactor.head(f"{target(error.request)}: {problem}", CAUSE_CHARACTERS),
        unhealthy=None if name in _NOT_CALLED else True,
    ) from error


def _diagnosis(error: httpx2.RequestError) -> tuple[HttpError, str]:
    match error:
        case httpx2.ConnectTimeout():
            return HttpError.CONNECT_TIMEOUT, "no connection in time (http.connect_seconds)"
        case httpx2.TimeoutException():
            return HttpError.SOCKET, "the connection stood still for too long (http.read_seconds)"
        case httpx2.ConnectError():
            return _connect_diagnosis(error)
        case httpx2.NetworkError():
            return HttpError.CONNECTION_LOST, "the connection was lost before the answer was complete"
        case httpx2.RemoteProtocolError() if "disconnected" in str(error) or "peer closed" in str(error):
            return HttpError.CONNECTION_LOST, "the connection was closed before the answer was complete"
        case httpx2.LocalProtocolError():
            return HttpError.INVALID_ARGUMENTS, f"the request cannot be sent: {error}"
        case _:
            return HttpError.PROTOCOL_ERROR, f"the answer is not sound HTTP: {error}"


def _connect_diagnosis(error: httpx2.ConnectError) -> tuple[HttpError, str]:
    problem = str(error)
    for cause in _causes(error):
        if isinstance(cause, AddressRefused):
            return HttpError.ADDRESS_REFUSED, (
                f"its host has a {cause.sort} address, which calls may not reach unless engine.toml says so "
                "([http] allow, or a connection)"
            )
        if isinstance(cause, ssl.SSLCertVerificationError):
            return HttpError.TLS_ERROR, f"its certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return HttpError.TLS_ERROR, f"TLS could not be agreed: {cause.reason or cause}"
        if isinstance(cause, ConnectionRefusedError):
            return HttpError.CONNECTION_REFUSED, "connection refused: nobody listens there"
        problem = str(cause)
    return HttpError.CONNECT_ERROR, f"no connection: {problem}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to the error, from the outside in."""
    pending: list[BaseException] = [error]
    while pending:
        current = pending.pop()
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        elif isinstance(current, NotConnected):
            pending.extend(current.attempts)
        cause = current.__cause__ or current.__context__
        if cause is not None:
            pending.append(cause)
