"""The network under the HTTP client: names are resolved here, the addresses judged, and connections made to just those.

Whoever asks a name server twice may get two answers. So the check cannot stand before the client's own look-up: the
look-up is made once, here, and the connection goes to an address that was judged (DNS rebinding). TLS is agreed by the
layer above for the name that was asked for. A connection that is kept is one to an address that was judged.

Also kept from the next call here: what a server sent beyond its answer.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import h11
import httpcore2
import httpx2
import structlog
import trio

from daemon.nodes.web.addresses import AddressRule

STAGGER_SECONDS: Final = 0.25
"""How long an address is tried alone before the next one is tried beside it (RFC 8305)."""

HEADERS_BYTES: Final = 100 * 1024
"""As many as httpcore2 takes in."""

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses, the best first. Raises OSError when there are none."""

_log = structlog.get_logger("http")


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """As the machine does it."""
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressRefused(httpcore2.ConnectError):
    """No address of that name may be reached. `sort` is what they are."""

    def __init__(self, sort: str) -> None:
        super().__init__(f"a {sort} address")
        self.sort = sort


class NotConnected(httpcore2.ConnectError):
    """No address of the host took a connection. `attempts` say why; the pool would drop a cause."""

    def __init__(self, attempts: list[Exception]) -> None:
        super().__init__("the host has no address" if not attempts else "no address of the host answers")
        self.attempts = attempts


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """`rule` judges every address, unless host and port are the `trusted` ones."""

    def __init__(self, rule: AddressRule, resolve: Resolver, trusted: tuple[str, int] | None = None) -> None:
        self._rule = rule
        self._resolve = resolve
        self._trusted = trusted
        self._backend = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises AddressRefused, NotConnected, ConnectError, ConnectTimeout (over look-up and connection together)."""
        try:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return _Exchange(await self._connect(await self._addresses(host, port), port))
        except trio.TooSlowError as error:
            raise httpcore2.ConnectTimeout from error

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        if (host, port) == self._trusted:
            return list(found)
        judged = [(address, self._rule.refusal(address)) for address in found]
        open_to_all = [address for address, refusal in judged if refusal is None]
        if not open_to_all and judged:
            address, refusal = judged[0]
            assert refusal is not None
            _log.warning("call refused: no address of the host may be reached", host=host, port=port, address=address)
            raise AddressRefused(refusal)
        return open_to_all

    async def _connect(self, addresses: Sequence[str], port: int) -> httpcore2.AsyncNetworkStream:
        """To the first of them that answers. Each is tried when the one before has failed, or a while after it."""
        made: list[httpcore2.AsyncNetworkStream] = []
        errors: list[Exception] = []

        async def attempt(address: str, over: trio.Event) -> None:
            try:
                stream = await self._backend.connect_tcp(address, port)
            except httpcore2.ConnectError as error:
                errors.append(error)
                over.set()
                return
            if made:
                await _close([stream])
            else:
                made.append(stream)
                nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    over = trio.Event()
                    nursery.start_soon(attempt, address, over)
                    with trio.move_on_after(STAGGER_SECONDS):
                        await over.wait()
        except BaseException:
            # Cancelled from outside in the moment of success: nobody will have this connection.
            await _close(made)
            raise
        if not made:
            raise NotConnected(errors)
        return made[0]


async def _close(streams: Iterable[httpcore2.AsyncNetworkStream]) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
        for stream in streams:
            await stream.aclose()


class _Exchange(httpcore2.AsyncNetworkStream):
    """A connection that remembers what was received since the last request began.

    What comes beyond the end of an answer stays in the client's buffer and would be taken for the answer to the next
    request on this connection, perhaps somebody else's. The pool asks of a connection whether it `is_readable` before
    it uses it again, and drops it if so: that is the place to say that there is something left.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._method = b""
        self._received = bytearray()
        self._answering = True
        self._spoiled = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._answering = True
        self._received += data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._answering:
            self._answering = False
            self._received.clear()
            self._method = bytes(buffer).partition(b" ")[0]
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _Exchange(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            if self._received and not self._spoiled:
                self._spoiled = _has_surplus(self._method, bytes(self._received))
                self._received.clear()
            if self._spoiled:
                return True
        return self._stream.get_extra_info(info)


_PLAIN_HEAD: Final = re.compile(rb"HTTP/1\.1 (?!1|204|304)\d{3} [^\r\n]*(?:\r\n[^\r\n]+)*\Z")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,9})(?=\r\n|\Z)", re.IGNORECASE)


def _has_surplus(method: bytes, received: bytes) -> bool:
    """Whether more was received than one answer to a request with that method."""
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = _LENGTH.findall(head)
    if len(lengths) == 1 and method != b"HEAD" and _PLAIN_HEAD.match(head) and b"transfer-encoding" not in head.lower():
        # The usual case, at a tenth of the cost.
        return len(body) != int(lengths[0])
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_BYTES)
    parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"-")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(received)
    try:
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return False
    except h11.RemoteProtocolError:
        return True
    return bool(parser.trailing_data[0])


# --- the client's transport --------------------------------------------------------------------------------------

_ERRORS: Final[tuple[tuple[type[Exception], type[httpx2.TransportError]], ...]] = (
    (httpcore2.ConnectTimeout, httpx2.ConnectTimeout),
    (httpcore2.ReadTimeout, httpx2.ReadTimeout),
    (httpcore2.WriteTimeout, httpx2.WriteTimeout),
    (httpcore2.TimeoutException, httpx2.TimeoutException),
    (httpcore2.ConnectError, httpx2.ConnectError),
    (httpcore2.ReadError, httpx2.ReadError),
    (httpcore2.WriteError, httpx2.WriteError),
    (httpcore2.NetworkError, httpx2.NetworkError),
    (httpcore2.LocalProtocolError, httpx2.LocalProtocolError),
    (httpcore2.RemoteProtocolError, httpx2.RemoteProtocolError),
    (httpcore2.ProtocolError, httpx2.ProtocolError),
)


@contextmanager
def _as_clients_errors() -> Iterator[None]:
    try:
        yield
    except tuple(known for known, _ in _ERRORS) as error:
        raise next(theirs for known, theirs in _ERRORS if isinstance(error, known))(str(error)) from error


class _Body(httpx2.AsyncByteStream):
    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_clients_errors():
            async for chunk in self._stream:
                yield chunk

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


class GuardedTransport(httpx2.AsyncBaseTransport):
    """What the client's own transport is, over a GuardedBackend: that one takes none. No proxy is ever used."""

    def __init__(self, backend: GuardedBackend, tls: ssl.SSLContext, limits: httpx2.Limits) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raises the client's errors (httpx2.TransportError), what led to them as their cause."""
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        url = request.url
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_clients_errors():
            answer = await self._pool.handle_async_request(asked)
        assert isinstance(answer.stream, AsyncIterable)
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
