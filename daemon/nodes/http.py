"""The node type `http`: one HTTP call an attempt, over one client for the whole process.

Takes `Method`, `ApiEndpoint`, and optionally `Headers`, `QueryParameters`, `RequestBody`, as the Step Functions
developer guide has them for `http:invoke` (page "Call HTTPS APIs"); answers `StatusCode`, `StatusText`, `Headers`
(lower-case names, a list of values each) and `ResponseBody` (the value where the answer is JSON, else its text).
Every attempt carries `Idempotency-Key`, the same for each attempt of one entry into the state, unless the definition
sets its own. An attempt fails with one of these errors; those that start with `States.` are the reference service's:

| error                      | what happened                                                         | processed? |
| -------------------------- | --------------------------------------------------------------------- | ---------- |
| `States.Http.StatusCode.N` | the answer's status is N: 4xx, 5xx, or a 3xx that leads nowhere       | by status  |
| `States.Http.Socket`       | connected, then no progress for `read_seconds`                        | perhaps    |
| `Http.InvalidArguments`    | a field is missing, unknown or cannot be sent; nothing was sent       | no         |
| `Http.ConnectionRefused`   | nobody listens there                                                  | no         |
| `Http.ConnectTimeout`      | no connection within `connect_seconds`                                | no         |
| `Http.ConnectError`        | no connection for another reason: no such host, no route              | no         |
| `Http.TlsError`            | the certificate is not valid for the host, or TLS could not be agreed | no         |
| `Http.ConnectionLost`      | the connection ended before the answer was complete                   | perhaps    |
| `Http.ProtocolError`       | the answer is not HTTP, or not encoded as it says                     | perhaps    |
| `Http.TooManyRedirects`    | more than `redirects` of them in a row                                | perhaps    |
| `Http.ResponseTooLarge`    | the body is longer than `response_bytes`; reading stopped there       | yes        |

A connection that fails or stands still, an answer that is not sound, 429 and 5xx say that the destination is not well
(`NodeFailure.unhealthy`). The attempt's own timeout is the caller's cancel scope. Proxies and `~/.netrc` of the
environment are not used, and cookies are not kept: calls of different tenants share this client.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import aclosing
from enum import Enum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NoReturn, cast

import httpx2
import msgspec

from daemon.nodes.web.arguments import SCHEMES, faults_in
from daemon.settings import HttpSettings, Settings
from enginekit.messages.json import JSON, NotJSON, decode, encode
from enginekit.node import Argument, ArgumentFault, NodeCall, NodeFailure

CAUSE_BYTES = 1024
"""How much of a refusing answer's body goes into the cause."""

_JSON_TYPE = re.compile(r"[\w.+-]+/(?:[\w.+-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)


class HttpError(str, Enum):
    """The errors that are not a status, as `Retry` and `Catch` match them."""

    SOCKET = "States.Http.Socket"
    INVALID_ARGUMENTS = "Http.InvalidArguments"
    CONNECTION_REFUSED = "Http.ConnectionRefused"
    CONNECT_TIMEOUT = "Http.ConnectTimeout"
    CONNECT_ERROR = "Http.ConnectError"
    TLS_ERROR = "Http.TlsError"
    CONNECTION_LOST = "Http.ConnectionLost"
    PROTOCOL_ERROR = "Http.ProtocolError"
    TOO_MANY_REDIRECTS = "Http.TooManyRedirects"
    RESPONSE_TOO_LARGE = "Http.ResponseTooLarge"


class HttpNode:
    """`transport` replaces the network, `tls` how certificates are checked (by default against the system's roots,
    or those of `SSL_CERT_FILE`)."""

    def __init__(
        self,
        settings: HttpSettings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # The client logs the URL of each call, and a query may hold a key.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self._settings = settings
        self._client = httpx2.AsyncClient(
            transport=transport,
            verify=tls if tls is not None else httpx2.create_ssl_context(),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            headers={"User-Agent": "execution-plane", "Accept-Encoding": "gzip"},
            timeout=httpx2.Timeout(settings.read_seconds, connect=settings.connect_seconds, pool=None),
            limits=httpx2.Limits(
                max_connections=settings.connections,
                max_keepalive_connections=settings.connections,
                keepalive_expiry=5.0,
            ),
        )

    async def run(self, call: NodeCall) -> JSON:
        """One call, redirects followed. Raises NodeFailure as in the table above. Cancelled: the connection is
        closed, and the request may have been processed."""
        request = self._request(call)
        try:
            response = await self._send(request)
            try:
                body = await self._read(response)
            finally:
                await response.aclose()
        except httpx2.RequestError as error:
            _fail_transport(error)
        content_type = response.headers.get("content-type", "")
        if response.status_code >= 300:
            text = body[:CAUSE_BYTES].decode("utf-8", "replace")
            raise NodeFailure(
                f"States.Http.StatusCode.{response.status_code}",
                f"{_target(response.request)} answered {response.status_code} {response.reason_phrase}".rstrip()
                + (f": {text}" if text else ""),
                unhealthy=response.status_code == 429 or response.status_code >= 500,
            )
        headers: dict[str, JSON] = {name: list(response.headers.get_list(name)) for name in response.headers}
        return {
            "StatusCode": response.status_code,
            "StatusText": response.reason_phrase,
            "Headers": headers,
            "ResponseBody": _value(body, content_type, response.charset_encoding),
        }

    def check(self, arguments: Argument, tenant: str | None) -> Iterator[ArgumentFault]:
        """As far as a definition has them."""
        return faults_in(arguments)

    async def aclose(self) -> None:
        """Close the idle connections. Calls are over by then."""
        await self._client.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """The first answer that is no redirect, its body not yet read."""
        redirects = 0
        while True:
            response = await self._client.send(request, stream=True)
            if response.next_request is None:
                return response
            await response.aclose()
            redirects += 1
            if redirects > self._settings.redirects:
                raise NodeFailure(
                    HttpError.TOO_MANY_REDIRECTS.value,
                    f"{_target(request)} redirects once more after {self._settings.redirects} redirects",
                )
            request = response.next_request
            if request.url.scheme not in SCHEMES:
                raise NodeFailure(
                    HttpError.PROTOCOL_ERROR.value,
                    f"{_target(response.request)} redirects to something that is no HTTP URL",
                )

    async def _read(self, response: httpx2.Response) -> bytes:
        limit = self._settings.response_bytes
        if response.status_code >= 300:
            # Only the cause is wanted; a long error page is no error of its own.
            limit = min(limit, CAUSE_BYTES)
        body = bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    if response.status_code >= 300:
                        break
                    raise NodeFailure(
                        HttpError.RESPONSE_TOO_LARGE.value,
                        f"the answer of {_target(response.request)} is longer than {limit} bytes (http.response_bytes)",
                    )
        return bytes(body)

    def _request(self, call: NodeCall) -> httpx2.Request:
        for fault in faults_in(cast(Argument, call.input)):
            _refuse(fault.path or "the input", fault.message)
        arguments = call.input
        assert isinstance(arguments, dict)
        method = arguments["Method"]
        assert isinstance(method, str)
        headers = _headers(arguments.get("Headers"))
        headers.setdefault("Idempotency-Key", call.idempotency_key)
        url = _url(arguments["ApiEndpoint"], arguments.get("QueryParameters"))
        content: bytes | None = None
        if "RequestBody" in arguments:
            content = _content(arguments["RequestBody"], headers)
        return self._client.build_request(method, url, headers=headers, content=content)


def create(settings: Settings) -> HttpNode:
    return HttpNode(settings.http)


# --- what is sent ------------------------------------------------------------------------------------------------


def _refuse(field: str, problem: str) -> NoReturn:
    raise NodeFailure(HttpError.INVALID_ARGUMENTS.value, f"{field} {problem}")


def _url(endpoint: JSON, query: JSON) -> httpx2.URL:
    assert isinstance(endpoint, str)
    url = httpx2.URL(endpoint)
    if not isinstance(query, dict):
        return url
    try:
        return url.copy_with(params=list(url.params.multi_items()) + _pairs(query))
    except httpx2.InvalidURL as error:
        _refuse("QueryParameters", f"do not fit into a URL: {error}")


def _headers(given: JSON) -> httpx2.Headers:
    return httpx2.Headers(_pairs(given) if isinstance(given, dict) else None)


def _pairs(fields: dict[str, JSON]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, given in fields.items():
        pairs += [(name, _text(value)) for value in (given if isinstance(given, list) else [given])]
    return pairs


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else bytes(encode(value)).decode()


def _content(body: JSON, headers: httpx2.Headers) -> bytes:
    """JSON, but for a string whose `Content-Type` is something else: that is the body itself."""
    content_type = headers.setdefault("Content-Type", "application/json")
    try:
        if isinstance(body, str) and not _JSON_TYPE.match(content_type):
            return body.encode()
        return bytes(encode(body))
    except (NotJSON, UnicodeEncodeError) as error:
        _refuse("RequestBody", f"cannot be sent: {error}")


# --- what comes back ---------------------------------------------------------------------------------------------


def _value(body: bytes, content_type: str, charset: str | None) -> JSON:
    if body and _JSON_TYPE.match(content_type):
        try:
            return decode(msgspec.Raw(body))
        except NotJSON:
            pass  # It says that it is JSON and is not: its text is the truth.
    try:
        return body.decode(charset or "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _target(request: httpx2.Request) -> str:
    """Method and URL for a cause: without a query and user information, which may hold secrets."""
    url = request.url
    port = f":{url.port}" if url.port is not None else ""
    return f"{request.method} {url.scheme}://{url.host}{port}{url.path}"


def _fail_transport(error: httpx2.RequestError) -> NoReturn:
    name, problem = _diagnosis(error)
    raise NodeFailure(
        name.value,
        f"{_target(error.request)}: {problem}"[:CAUSE_BYTES],
        unhealthy=name is not HttpError.INVALID_ARGUMENTS,
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
        cause = current.__cause__ or current.__context__
        if cause is not None:
            pending.append(cause)
