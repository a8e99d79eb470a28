"""A node type that calls a language model: one streamed answer an attempt, through a vendor's own client.

The shell around the pure parts of this folder: it resolves the connection, sends, reads, and names what went wrong.
The vendors' clients take up to a second and a half to import, so that happens when the first call needs it; their own
retries are off (retries are the engine's).
"""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol, TypeVar

import httpx2
import trio

from daemon.clock import time_is_real
from daemon.connections import Connection, Connections
from daemon.nodes.ai.answer import output_of
from daemon.nodes.ai.arguments import Arguments, faults_in, read
from daemon.nodes.ai.dialect import Reader
from daemon.nodes.ai.errors import CAUSE_CHARACTERS, transport_failure
from daemon.nodes.ai.transport import CallTransport
from daemon.settings import AiSettings, Settings
from enginekit.messages.json import JSON
from enginekit.node import Argument, ArgumentFault, NodeCall, NodeFailure, NodeResult

CLOSE_SECONDS: Final = 1.0
EVENT_BYTES: Final = 64 * 1024
EVENTS_AT_ONCE: Final = 32
"""How many events are read before others have their turn: many may have come in one piece."""

T = TypeVar("T")


class Vendor(Protocol):
    """What there is to know of a vendor beyond its wire format: its client."""

    name: str
    """Also that of the connection that is used where none is named."""

    def load(self) -> None:
        """Import the client. Once, before anything of the below; may be on another thread."""

    def request(self, arguments: Arguments, settings: AiSettings, url: str) -> dict[str, JSON]:
        """The request's body. Raises NodeFailure `Ai.InvalidArguments`."""

    def reader(self, settings: AiSettings) -> Reader: ...

    async def open(
        self, http: httpx2.AsyncClient, url: str, body: dict[str, JSON], headers: dict[str, str]
    ) -> httpx2.Response:
        """Send it, and answer once the answer begins. Raises whatever the client raises."""

    def failure(self, error: Exception) -> NodeFailure | None:
        """What an error of the client's says the server answered; None where it says something else."""


class AiNode:
    """`transport` replaces the network, `tls` how certificates are checked (by default against the system's roots,
    or those of `SSL_CERT_FILE`)."""

    def __init__(
        self,
        vendor: Vendor,
        settings: Settings,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._vendor = vendor
        self._settings = settings.ai
        self._connections = Connections(settings.connections)
        self._loading = trio.Lock()
        self._loaded = False
        self._transport = transport or httpx2.AsyncHTTPTransport(
            verify=tls if tls is not None else httpx2.create_ssl_context(),
            trust_env=False,
            limits=httpx2.Limits(
                max_connections=settings.ai.connections,
                max_keepalive_connections=settings.ai.connections,
                keepalive_expiry=5.0,
            ),
        )

    async def run(self, call: NodeCall) -> NodeResult:
        """One answer. Raises NodeFailure as named in `AiError` and `ConnectionFault`. Cancelled: the connection is
        closed; what the model said is lost, and may be paid for."""
        arguments = read(call.resource, call.input)
        connection = self._connection(arguments, call.tenant)
        await self._load()
        with connection.redactor.over_errors():
            result = await self._call(call, arguments, connection)
        return NodeResult(output=connection.redactor.value(result.output), usage=result.usage)

    def check(self, arguments: Argument, tenant: str | None) -> Iterator[ArgumentFault]:
        """As far as a definition has them, the connection included."""
        yield from faults_in(f"ai:{self._vendor.name}", arguments)
        if tenant is None or not isinstance(arguments, dict):
            return
        named = arguments.get("Connection", self._vendor.name)
        fault = self._connections.fault(named, tenant) if isinstance(named, str) else None
        if fault is not None:
            yield ArgumentFault("Connection", fault if "Connection" in arguments else f"is not given, and {fault}")

    async def aclose(self) -> None:
        """Close the idle connections. Calls are over by then."""
        await self._transport.aclose()

    def _connection(self, arguments: Arguments, tenant: str) -> Connection:
        if arguments.connection is not None:
            return self._connections.resolve(arguments.connection, tenant)
        try:
            return self._connections.resolve(self._vendor.name, tenant)
        except NodeFailure as failure:
            raise NodeFailure(
                failure.error,
                f'{failure.cause} (without Connection it is "{self._vendor.name}" that is used)',
                unhealthy=failure.unhealthy,
            ) from failure

    async def _load(self) -> None:
        async with self._loading:
            if not self._loaded:
                await _aside(lambda: _imported(self._vendor.load))
                self._loaded = True

    async def _call(self, call: NodeCall, arguments: Arguments, connection: Connection) -> NodeResult:
        body = self._vendor.request(arguments, self._settings, connection.url)
        reader = self._vendor.reader(self._settings)
        http = httpx2.AsyncClient(
            transport=CallTransport(self._transport, connection, self._settings, call.beat),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx2.Timeout(self._settings.read_seconds, connect=self._settings.connect_seconds, pool=None),
        )
        begun = False
        try:
            response = await self._vendor.open(http, connection.url, body, {"Idempotency-Key": call.idempotency_key})
            begun = True
            try:
                await self._read(response, reader)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                    await response.aclose()
            answer = reader.answer()
            if arguments.schema is None:
                output = output_of(answer, arguments, connection.redactor)
            else:
                output = await _aside(lambda: output_of(answer, arguments, connection.redactor))
        except Exception as error:
            failure = self._vendor.failure(error) or transport_failure(error)
            if failure is None:
                raise
            if begun:
                failure.usage = reader.usage
            failure.cause = connection.redactor.head(failure.cause, CAUSE_CHARACTERS)
            raise failure from error
        return NodeResult(output=output, usage=answer.usage)

    async def _read(self, response: httpx2.Response, reader: Reader) -> None:
        """All of its events. What goes wrong after the last one does not take the answer away."""
        # An event holds a part of the answer, and something around it.
        source = httpx2.EventSource(response, max_event_size=2 * self._settings.output_bytes + EVENT_BYTES)
        count = 0
        ended = False
        try:
            with trio.CancelScope() as scope:
                async for event in source:
                    if event.data and not ended:
                        ended = reader.take(event.data)
                        if ended:
                            # To its end, if it has one soon, so that the connection can be used again.
                            scope.deadline = trio.current_time() + CLOSE_SECONDS
                    count += 1
                    if count % EVENTS_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
        except (httpx2.RequestError, NodeFailure):
            if not ended:
                raise


def _imported(load: Callable[[], None]) -> None:
    """Import without collecting garbage meanwhile, and leave what is imported (150,000 objects) out of collections to
    come: a whole one holds every thread for a fifth of a second, measured with `anthropic`; so it is 14 ms."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        load()
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


async def _aside(work: Callable[[], T]) -> T:
    """What would hold the loop, in a thread; in the loop where time does not go on by itself, for a mock clock would
    run ahead of the thread."""
    if time_is_real():
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    return work()
