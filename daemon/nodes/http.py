"""The node type `http`: one HTTP call an attempt.

Takes `Method`, `ApiEndpoint`, and optionally `Headers`, `QueryParameters`, `RequestBody`, `Transform` and
`Authentication`, as the Step Functions developer guide has them for `http:invoke` (page "Call HTTPS APIs"), and
`Connection`, our name for the last of them; answers `StatusCode`, `StatusText`, `Headers` (lower-case names, a list of
values each), `ResponseBody` and `ResponseBodyEncoding`. Every attempt carries `Idempotency-Key`, the same for each
attempt of one entry into the state, unless the definition sets its own. An attempt fails with one of these errors;
those that start with `States.` are the reference service's:

| error                      | what happened                                                         | processed? |
| -------------------------- | --------------------------------------------------------------------- | ---------- |
| `States.Http.StatusCode.N` | the answer's status is N: 4xx, 5xx, or a 3xx that leads nowhere       | by status  |
| `States.Http.Socket`       | connected, then no progress for `read_seconds`                        | perhaps    |
| `Http.InvalidArguments`    | a field is missing, unknown or cannot be sent; nothing was sent       | no         |
| `Http.AddressRefused`      | the host's address is not public, and engine.toml does not allow it   | no (1)     |
| `Http.ConnectionMismatch`  | the connection's secret is not for that host                          | no (1)     |
| `Http.ConnectionRefused`   | nobody listens there                                                  | no         |
| `Http.ConnectTimeout`      | no connection within `connect_seconds`                                | no         |
| `Http.ConnectError`        | no connection for another reason: no such host, no route              | no         |
| `Http.TlsError`            | the certificate is not valid for the host, or TLS could not be agreed | no         |
| `Http.ConnectionLost`      | the connection ended before the answer was complete                   | perhaps    |
| `Http.ProtocolError`       | the answer is not HTTP, or not encoded as it says                     | perhaps    |
| `Http.TooManyRedirects`    | more than `redirects` of them in a row                                | perhaps    |
| `Http.ResponseTooLarge`    | the body is longer than `response_bytes`; reading stopped there       | yes        |

(1: unless a redirect led there) and those of connections (`daemon/connections.py`). A connection that fails or stands
still, an answer that is not sound, 429 and 5xx say that the destination is not well (`NodeFailure.unhealthy`).
`Retry-After` of a refusing answer is honoured. The attempt's own timeout is the caller's cancel scope. Proxies and
`~/.netrc` of the environment are not used, and cookies are not kept: calls of different tenants share a client. Each
connection has a client of its own, for its host may be one that nobody else's calls may reach.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import httpx2

from daemon.connections import Connection, Connections, Origin
from daemon.nodes.web.addresses import AddressRule
from daemon.nodes.web.answer import body_value, retry_after, text_of
from daemon.nodes.web.arguments import SCHEMES, AnswerEncoding, connection_of, faults_in, is_literal, transform_of
from daemon.nodes.web.body import body_of
from daemon.nodes.web.body import text_of as field_text
from daemon.nodes.web.errors import CAUSE_CHARACTERS, HttpError, fail_transport, refuse, target
from daemon.nodes.web.network import GuardedBackend, GuardedTransport, Resolver, system_resolver
from daemon.redaction import Redactor
from daemon.settings import HttpSettings, Settings
from enginekit.messages.json import JSON
from enginekit.node import Argument, ArgumentFault, NodeCall, NodeFailure

_PORTS = {"http": 80, "https": 443}
_NO_SECRET = Redactor()


class HttpNode:
    """`transport` replaces the network, `tls` how certificates are checked (by default against the system's roots,
    or those of `SSL_CERT_FILE`), `resolve` how names become addresses, `now` the wall clock."""

    def __init__(
        self,
        settings: HttpSettings,
        connections: Connections | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
        resolve: Resolver = system_resolver,
        now: Callable[[], float] = time.time,
    ) -> None:
        # The client logs the URL of each call, and a query may hold a key; what is below it logs headers.
        for library in ("httpx2", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._settings = settings
        self._connections = connections if connections is not None else Connections({})
        self._transport = transport
        self._tls = tls
        self._resolve = resolve
        self._now = now
        self._rule = AddressRule(settings.allow)
        self._clients: dict[str | None, httpx2.AsyncClient] = {}

    def check(self, arguments: Argument, tenant: str | None) -> Iterator[ArgumentFault]:
        """As far as a definition has them."""
        fault = None if tenant is None else lambda name: self._connections.fault(name, tenant)
        faults = list(faults_in(arguments, fault))
        yield from faults or _body_faults(arguments)

    async def run(self, call: NodeCall) -> JSON:
        """One call, redirects followed. Raises NodeFailure as in the table above. Cancelled: the TCP connection is
        closed, and the request may have been processed."""
        for fault in faults_in(cast(Argument, call.input)):
            refuse(fault.path or "the input", fault.message)
        arguments = call.input
        assert isinstance(arguments, dict)
        name = connection_of(arguments)
        if name is None:
            return await self._call(call, arguments, None)
        connection = self._connections.resolve(name, call.tenant)
        with connection.redactor.over_errors():
            return connection.redactor.value(await self._call(call, arguments, connection))

    async def aclose(self) -> None:
        """Close the idle TCP connections. Calls are over by then."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def _call(self, call: NodeCall, arguments: dict[str, JSON], connection: Connection | None) -> JSON:
        client = self._client(connection)
        redactor = _NO_SECRET if connection is None else connection.redactor
        request = _request(client, call, arguments, connection)
        try:
            response = await self._send(client, request, connection)
            call.beat()
            try:
                body = await self._read(response, call, redactor)
            finally:
                await response.aclose()
        except httpx2.RequestError as error:
            fail_transport(error, redactor)
        if response.status_code >= 300:
            self._fail_status(response, body, redactor)
        value, encoding = body_value(
            body,
            response.headers,
            redactor,
            as_bytes=transform_of(arguments).answer is AnswerEncoding.BASE64,
        )
        headers: dict[str, JSON] = {name: list(response.headers.get_list(name)) for name in response.headers}
        return {
            "StatusCode": response.status_code,
            "StatusText": response.reason_phrase,
            "Headers": headers,
            "ResponseBody": value,
            "ResponseBodyEncoding": encoding,
        }

    async def _send(
        self, client: httpx2.AsyncClient, request: httpx2.Request, connection: Connection | None
    ) -> httpx2.Response:
        """The first answer that is no redirect, its body not yet read."""
        redirects = 0
        while True:
            response = await client.send(request, stream=True)
            if response.next_request is None:
                return response
            await response.aclose()
            redirects += 1
            if redirects > self._settings.redirects:
                raise NodeFailure(
                    HttpError.TOO_MANY_REDIRECTS.value,
                    f"{target(request)} redirects once more after {self._settings.redirects} redirects",
                )
            request = response.next_request
            if request.url.scheme not in SCHEMES:
                raise NodeFailure(
                    HttpError.PROTOCOL_ERROR.value,
                    f"{target(response.request)} redirects to something that is no HTTP URL",
                )
            if connection is not None:
                _hold_to(connection, request.url, f"{target(response.request)} redirects")
                if connection.query:
                    request.url = _with_query(request.url, connection, response.request)

    async def _read(self, response: httpx2.Response, call: NodeCall, redactor: Redactor) -> bytes:
        """Longer than `_limit` it is only where the answer is a refusal, and was cut."""
        limit = self._limit(response, redactor)
        body = bytearray()
        async with aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                call.beat()
                body += chunk
                if len(body) > limit:
                    if response.status_code >= 300:
                        break
                    raise NodeFailure(
                        HttpError.RESPONSE_TOO_LARGE.value,
                        f"the answer of {target(response.request)} is longer than {limit} bytes (http.response_bytes)",
                    )
        return bytes(body)

    def _limit(self, response: httpx2.Response, redactor: Redactor) -> int:
        limit = self._settings.response_bytes
        # Of a refusal only the cause is wanted; a long error page is no error of its own.
        return limit if response.status_code < 300 else min(limit, CAUSE_CHARACTERS + redactor.longest)

    def _fail_status(self, response: httpx2.Response, body: bytes, redactor: Redactor) -> None:
        text = redactor.text(text_of(body, response.headers.get("content-type", "")))
        if redactor.longest and len(body) > self._limit(response, redactor):
            # Where it was cut there may be the beginning of a secret, which cannot be recognised.
            text = text[: -redactor.longest]
        status = response.status_code
        raise NodeFailure(
            f"States.Http.StatusCode.{status}",
            f"{target(response.request)} answered {status} {response.reason_phrase}".rstrip()
            + (f": {text[:CAUSE_CHARACTERS]}" if text else ""),
            unhealthy=status == 429 or status >= 500,
            retry_after_seconds=retry_after(response.headers, self._now()),
        )

    def _client(self, connection: Connection | None) -> httpx2.AsyncClient:
        name = None if connection is None else connection.name
        client = self._clients.get(name)
        if client is None:
            trusted = None if connection is None else (connection.origin.host, connection.origin.port)
            client = self._clients[name] = self._make_client(trusted)
        return client

    def _make_client(self, trusted: tuple[str, int] | None) -> httpx2.AsyncClient:
        settings = self._settings
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
        limits = httpx2.Limits(
            max_connections=settings.connections,
            max_keepalive_connections=settings.connections,
            keepalive_expiry=5.0,
        )
        backend = GuardedBackend(self._rule, self._resolve, trusted)
        return httpx2.AsyncClient(
            transport=self._transport or GuardedTransport(backend, self._tls, limits),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            headers={"User-Agent": "execution-plane", "Accept-Encoding": "gzip"},
            timeout=httpx2.Timeout(settings.read_seconds, connect=settings.connect_seconds, pool=None),
        )


def create(settings: Settings) -> HttpNode:
    return HttpNode(settings.http, Connections(settings.connections))


# --- what is sent ------------------------------------------------------------------------------------------------


def _request(
    client: httpx2.AsyncClient, call: NodeCall, arguments: dict[str, JSON], connection: Connection | None
) -> httpx2.Request:
    method = arguments["Method"]
    assert isinstance(method, str)
    headers = httpx2.Headers(_pairs(arguments.get("Headers")))
    headers.setdefault("Idempotency-Key", call.idempotency_key)
    url = _url(arguments, connection)
    if connection is not None:
        _hold_to(connection, url, f"{method} goes")
        headers.update(connection.headers)
    content = body_of(arguments, headers)
    return client.build_request(method, url, headers=headers, content=content)


def _body_faults(arguments: Argument) -> Iterator[ArgumentFault]:
    """What keeps the body of arguments without another fault from being encoded, where all that it depends on is
    there."""
    if not isinstance(arguments, dict):
        return
    fields = ("RequestBody", "Headers", "Transform")
    needed: dict[str, Argument] = {name: arguments[name] for name in fields if name in arguments}
    if is_literal(needed):
        literal = cast("dict[str, JSON]", needed)
        try:
            body_of(literal, httpx2.Headers(_pairs(literal.get("Headers"))))
        except NodeFailure as failure:
            yield ArgumentFault("RequestBody", failure.cause.removeprefix("RequestBody "))


def _url(arguments: dict[str, JSON], connection: Connection | None) -> httpx2.URL:
    endpoint = arguments["ApiEndpoint"]
    assert isinstance(endpoint, str)
    if endpoint.startswith("/") and connection is not None:
        endpoint = connection.url + endpoint
    query = {} if connection is None else connection.query
    pairs = [pair for pair in _pairs(arguments.get("QueryParameters")) if pair[0] not in query]
    try:
        url = httpx2.URL(endpoint)
        if pairs or query:
            url = url.copy_with(params=url.params.multi_items() + pairs)
        return url.copy_merge_params(query) if query else url
    except httpx2.InvalidURL as error:
        refuse("QueryParameters" if pairs else "ApiEndpoint", f"does not make a URL: {error}")


def _with_query(url: httpx2.URL, connection: Connection, redirecting: httpx2.Request) -> httpx2.URL:
    try:
        return url.copy_merge_params(connection.query)
    except httpx2.InvalidURL as error:
        raise NodeFailure(
            HttpError.PROTOCOL_ERROR.value, f"{target(redirecting)} redirects to something that is no URL: {error}"
        ) from error


def _hold_to(connection: Connection, url: httpx2.URL, what: str) -> None:
    """Raises NodeFailure when the connection's secret is not for that URL."""
    origin = Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])
    if origin != connection.origin:
        raise NodeFailure(
            HttpError.CONNECTION_MISMATCH.value,
            f'{what} to {origin}, and connection "{connection.name}" is for {connection.origin} only: its secret was '
            "not sent there, nor was the call made without it",
            unhealthy=None,
        )


def _pairs(fields: JSON) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, given in fields.items() if isinstance(fields, dict) else ():
        pairs += [(name, field_text(value)) for value in (given if isinstance(given, list) else [given])]
    return pairs
