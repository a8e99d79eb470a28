"""JSON-RPC over WebSocket: the listener, the handshake with its token, and how a connection begins and ends.

Nothing that happens to one connection gets out of it, least of all an exception. When the server is cancelled, the
connections are not: they are told to end, say goodbye, give back what was not delivered, and are cut off if that takes
too long.
"""

from __future__ import annotations

import socket
from typing import Final

import msgspec
import structlog
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, wrap_server_stream

from daemon.api.auth import Principal, Verifier
from daemon.api.gateway import PROTOCOL, Gateway
from daemon.api.outbox import RECEIVE_BYTES, Outbox
from daemon.api.session import Session
from daemon.metrics import Metrics
from daemon.settings import FrontendSettings
from enginekit.messages.status import ErrorStatus, Refused

PATH: Final = "/rpc"
HANDSHAKE_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
SEND_SECONDS: Final = 10.0
FULL_RETRY_SECONDS: Final = 5.0
SPARE_CONNECTIONS: Final = 64
"""So many beyond the limit are still told that it is reached; more are closed unheard."""
QUEUED_FRAMES: Final = 4

_HTTP_STATUS: Final = {ErrorStatus.UNAUTHENTICATED: 401, ErrorStatus.RESOURCE_EXHAUSTED: 429}

log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


class Rejected(Exception):
    """A handshake is refused: with which HTTP status, and why."""

    def __init__(self, http_status: int, refused: Refused) -> None:
        super().__init__(str(refused))
        self.http_status = http_status
        self.refused = refused


class RpcServer:
    """Accepts connections and looks after each."""

    def __init__(self, gateway: Gateway, verifier: Verifier, settings: FrontendSettings, metrics: Metrics) -> None:
        self._gateway = gateway
        self._verifier = verifier
        self._settings = settings
        self._metrics = metrics
        self._open = 0
        self._sessions: set[Session] = set()
        self._holding = trio.Event()
        self._stopping = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._connections = trio.CancelScope(shield=True)

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        """Runs until cancelled, and then for at most CLOSE_SECONDS and what it takes to give back tasks."""
        async with trio.open_nursery() as nursery:
            # Not nursery.start(): when that is cancelled it waits for what it started, which is shielded.
            nursery.start_soon(self._hold_connections)
            try:
                await self._holding.wait()
                await trio.serve_listeners(self._connection, listeners, handler_nursery=self._nursery)
            finally:
                self._gateway.hurry(CLOSE_SECONDS)
                self._connections.deadline = trio.current_time() + CLOSE_SECONDS
                for session in self._sessions:
                    session.go_away()
                self._stopping.set()

    async def _hold_connections(self) -> None:
        with self._connections:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._holding.set()
                await self._stopping.wait()

    async def _connection(self, stream: trio.SocketStream) -> None:
        if self._open >= self._settings.connections + SPARE_CONNECTIONS:
            self._metrics.connection_ended("unheard")
            await trio.aclose_forcefully(stream)
            return
        self._open += 1
        self._metrics.connection_opened()
        outbox = Outbox(stream, self._settings.outbox_bytes, SEND_SECONDS)
        try:
            _keep_alive(stream)
            await self._live(outbox)
        except Exception:
            self._metrics.connection_ended("failed")
            log.exception("frontend.connection_failed")
        finally:
            self._open -= 1
            self._metrics.connection_closed()
            await trio.aclose_forcefully(stream)

    async def _live(self, outbox: Outbox) -> None:
        session: Session | None = None
        try:
            async with trio.open_nursery() as io:
                io.start_soon(outbox.write)
                request = await self._handshake(io, outbox)
                if request is not None:
                    session = await self._accept(request, outbox)
                if session is not None:
                    await self._run(session)
                await outbox.finish()
                io.cancel_scope.cancel()
            await outbox.linger()
        except Exception as error:
            if session is not None:
                raise
            # The library lets some of what it cannot parse, sent by whoever, out as an exception.
            self._metrics.connection_ended("handshake")
            log.info("frontend.handshake_failed", error=repr(error)[:500])
        finally:
            if outbox.cut_off is not None:
                self._metrics.connection_ended("slow")
                log.warning("frontend.connection_cut_off", why=outbox.cut_off)
            if session is not None:
                self._gateway.limits.disconnect(session.principal.tenant)
                await self._gateway.give_back(session.principal, outbox.lost, "the poll's answer could not be sent")

    async def _run(self, session: Session) -> None:
        self._sessions.add(session)
        try:
            if not self._stopping.is_set():
                await session.run()
        finally:
            self._sessions.discard(session)
        with trio.move_on_after(CLOSE_SECONDS):
            await session.connection.aclose(*session.ending)

    async def _handshake(self, io: trio.Nursery, outbox: Outbox) -> WebSocketRequest | None:
        """The client's request; None when none came in time, or none that can be read."""
        with trio.move_on_after(HANDSHAKE_SECONDS) as waiting:
            outbox.on_end = waiting.cancel
            request = await wrap_server_stream(
                io,
                outbox,
                message_queue_size=QUEUED_FRAMES,
                max_message_size=self._settings.frame_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
            outbox.on_end = None
            return request
        self._metrics.connection_ended("handshake")
        return None

    async def _accept(self, request: WebSocketRequest, outbox: Outbox) -> Session | None:
        try:
            principal = await self._principal(request)
        except Rejected as rejected:
            refused = rejected.refused
            headers = [(b"content-type", b"application/json")]
            if refused.status is ErrorStatus.UNAUTHENTICATED:
                headers.append((b"www-authenticate", b"Bearer"))
            if "retry_after_seconds" in refused.data:
                headers.append((b"retry-after", str(refused.data["retry_after_seconds"]).encode()))
            error = {"status": refused.status.value, "message": refused.message, **refused.data}
            await request.reject(rejected.http_status, extra_headers=headers, body=_encoder.encode({"error": error}))
            self._metrics.connection_ended("rejected" if rejected.http_status != 404 else "not_found")
            return None
        offered = PROTOCOL if request.proposed_subprotocols else None
        try:
            connection: WebSocketConnection = await request.accept(subprotocol=offered)
        except BaseException:
            self._gateway.limits.disconnect(principal.tenant)
            raise
        return Session(connection, outbox, principal, self._gateway, self._verifier, self._settings)

    async def _principal(self, request: WebSocketRequest) -> Principal:
        path = request.path.partition("?")[0]
        if path != PATH:
            raise Rejected(404, Refused(ErrorStatus.NOT_FOUND, f"nothing is at {path[:100]}; the daemon is at {PATH}"))
        if self._open > self._settings.connections:
            raise Rejected(
                503,
                Refused(
                    ErrorStatus.RESOURCE_EXHAUSTED,
                    f"{self._settings.connections} connections are open, and no more are taken",
                    {"retry_after_seconds": FULL_RETRY_SECONDS},
                ),
            )
        offered = request.proposed_subprotocols
        if offered and PROTOCOL not in offered:
            raise Rejected(
                400, Refused(ErrorStatus.INVALID_ARGUMENT, f"the subprotocol spoken here is {PROTOCOL}; offer it")
            )
        try:
            principal = await self._verifier.verify(_bearer(request))
            self._gateway.limits.connect(principal.tenant, trio.current_time())
        except Refused as refused:
            raise Rejected(_HTTP_STATUS.get(refused.status, 503), refused) from refused
        return principal


def _bearer(request: WebSocketRequest) -> str:
    """The token of the Authorization header. Raises Refused when there is none."""
    for name, value in request.headers:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                raise Refused(ErrorStatus.UNAUTHENTICATED, "Authorization: must be `Bearer TOKEN`")
            return token.strip()
    raise Refused(ErrorStatus.UNAUTHENTICATED, "no token: send `Authorization: Bearer TOKEN` with the handshake")


def _keep_alive(stream: trio.SocketStream) -> None:
    """Have the kernel find out that a silent client is gone: within about a minute, at no cost to the loop."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        option: int | None = getattr(socket, name, None)
        if option is not None:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
