"""One lasting connection to a daemon: it connects, carries requests and answers, and connects again when it is lost.

What lives here: the WebSocket, the task that alone writes to it, the matching of answers, the pause before another
attempt. What a call means, and whether to repeat it, is the client's business: a request whose connection ended ends
with `Lost`.

Requests are pipelined. Their number is bounded, long polls apart from the rest, so that waiting for executions can
never keep a short call from going out.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from enginekit import jsonrpc
from enginekit.dialing import Stream, dial, reason
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import HelloResult
from enginekit.messages.status import ErrorStatus, Refused

UrlSource: TypeAlias = Callable[[], str]
"""Where the daemon listens, asked before every attempt. May raise Unreachable."""
TokenSource: TypeAlias = Callable[[], str]
"""A token that is valid now, asked before every attempt. May raise Unreachable."""
Late: TypeAlias = Callable[[jsonrpc.Reply], None] | None

E = TypeVar("E", bound=BaseException)

NOTIFY = "Notify"


class _Addressed(msgspec.Struct):
    subscription: str


_addressed = msgspec.json.Decoder(_Addressed)
_hello = msgspec.json.Decoder(HelloResult)


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How a connection behaves. Sizes in bytes, times in seconds."""

    message_bytes: int = 16 * 1024 * 1024
    """The longest message accepted from the daemon."""
    short_calls: int = 64
    long_polls: int = 128
    """Calls that may be under way at once; the daemon has a limit of its own for their sum."""
    batch_calls: int = 50
    batch_bytes: int = 128 * 1024
    """Calls with small answers that wait to be written together go out as one batch, up to this many and this long.
    Measured with 64 callers on a 2-core machine: 60 µs of the daemon's CPU a call instead of 255, and 75 of ours
    instead of 345."""
    connect_seconds: float = 5.0
    stall_seconds: float = 30.0
    """A daemon that reads nothing and answers no ping for this long has gone."""
    ping_seconds: float = 20.0
    close_seconds: float = 2.0
    backoff_seconds: float = 0.05
    backoff_limit_seconds: float = 1.0


class Lost(Exception):
    """The connection ended before the answer came. The daemon may have carried out the call."""


class _Pending:
    """A request on its way. Whoever removes it from `Connection._pending` gives back its `slot`."""

    __slots__ = ("abandoned", "alone", "answered", "body", "call_id", "late", "reply", "sent", "slot")

    def __init__(
        self, call_id: int, body: bytes, *, alone: bool, slot: trio.Semaphore | None = None, late: Late = None
    ):
        self.call_id = call_id
        self.body = body
        self.alone = alone
        self.slot = slot
        self.late = late
        self.answered = trio.Event()
        self.reply: jsonrpc.Reply | None = None
        self.sent = False
        self.abandoned = False


class Connection:
    """Make one, `run` it in a nursery, `request` from any task, `close` it."""

    def __init__(self, url: UrlSource, token: TokenSource, tuning: Tuning, tls: ssl.SSLContext | None = None) -> None:
        self.hello: HelloResult | None = None
        """What the daemon said of itself when it was last reached."""
        self.problem = "not connected yet"
        """Why there is no connection, in words."""
        self._url = url
        self._token = token
        self._tuning = tuning
        self._tls = tls
        self._last_id = 0
        self._pending: dict[int, _Pending] = {}
        self._outbox: deque[_Pending] = deque()
        self._work = trio.Event()
        self._changed = trio.Event()
        self._open = False
        self._rejection: Refused | ProtocolError | None = None
        self._told_seconds = 0.0
        """How long whoever turned the last connection away asks us to stay away."""
        self._closing = trio.Event()
        self._life = trio.CancelScope(shield=True)
        self._loss = trio.Event()
        self.listeners: dict[str, Callable[[msgspec.Raw], None]] = {}
        """Who takes the notifications of which subscription."""
        self._short_slots = trio.Semaphore(tuning.short_calls)
        self._poll_slots = trio.Semaphore(tuning.long_polls)

    # --- what callers use ----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._open

    def loss(self) -> trio.Event:
        """Set when the connection that is open now has been lost."""
        return self._loss

    async def opened(self) -> None:
        """Return while there is a connection.

        Raises Refused or ProtocolError when the daemon turned the last attempt away for a reason that waiting does
        not cure, trio.ClosedResourceError after `close`.
        """
        while not self._open:
            if self._closing.is_set():
                raise trio.ClosedResourceError("this client is closed")
            if isinstance(self._rejection, Refused):
                raise Refused(self._rejection.status, self._rejection.message, self._rejection.data)
            if self._rejection is not None:
                raise ProtocolError(str(self._rejection))
            await self._changed.wait()

    async def request(
        self,
        method: str,
        params: bytes,
        *,
        long_poll: bool = False,
        batch: bool = False,
        late: Late = None,
    ) -> jsonrpc.Reply:
        """Send one request, as soon as there is a connection and room, and wait for its answer.

        With `batch` it may share a message with others. `late` gets an answer that comes after this was cancelled.
        Raises Lost, and what `opened` raises; Refused INVALID_ARGUMENT for a request that is longer than the daemon
        takes. Cancelling is safe.
        """
        slots = self._poll_slots if long_poll else self._short_slots
        await slots.acquire()
        try:
            await self.opened()
            self._last_id += 1
            body = jsonrpc.request(self._last_id, method, params)
            self._check_length(method, body)
            pending = _Pending(self._last_id, body, alone=not batch, slot=slots, late=late)
        except BaseException:
            slots.release()
            raise
        self._enqueue(pending)
        try:
            await pending.answered.wait()
        except BaseException:
            self._abandon(pending)
            raise
        if pending.reply is None:
            raise Lost(self.problem)
        return pending.reply

    def close(self) -> None:
        """End the connection; `run` returns within `close_seconds`."""
        self._closing.set()
        if not self._open:
            self._life.cancel()
        self._note_change()

    # --- the life of the connection ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep connected until `close`. Never raises for what a network or a daemon can do.

        A cancellation from outside waits for `close`, so that whoever uses the connection can still tidy up over it
        while it is being cancelled; after `close` nothing here waits for long.
        """
        pause = self._tuning.backoff_seconds
        with self._life:
            while not self._closing.is_set():
                started = trio.current_time()
                self._told_seconds = 0.0
                await self._attempt()
                if trio.current_time() - started > self._tuning.backoff_limit_seconds:
                    pause = self._tuning.backoff_seconds
                with trio.move_on_after(max(pause * random.uniform(0.5, 1.0), self._told_seconds)):
                    await self._closing.wait()
                pause = min(pause * 2, self._tuning.backoff_limit_seconds)

    async def _attempt(self) -> None:
        """One connection, from its handshake to its end."""
        where = "the daemon"
        try:
            where = self._url()
            token = self._token()
            with trio.fail_after(self._tuning.connect_seconds):
                stream = await dial(where, self._tls)
            try:
                await self._over(stream, where, token)
            finally:
                # The library leaves the socket open when a connection ends in any way but a closing handshake.
                await trio.aclose_forcefully(stream)
        except* ConnectionRejected as group:
            self._turned_away(where, _first(group, ConnectionRejected))
        except* trio.TooSlowError:
            self.problem = f"{where}: no handshake within {self._tuning.connect_seconds:g} s"
        except* OSError as refused:
            self.problem = f"{where}: {reason(_first(refused, OSError))}"
        except* trio.BrokenResourceError as broken:
            cause = _first(broken, trio.BrokenResourceError)
            self.problem = f"{where}: {cause.__cause__ or 'the connection was lost'}"
        except* (Unreachable, ConnectionClosed) as ended:
            self.problem = str(ended.exceptions[0])
        finally:
            self._drop_everything()

    async def _over(self, stream: Stream, url: str, token: str) -> None:
        parts = urlsplit(url)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(self._tuning.connect_seconds):
                websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc.rpartition("@")[2],
                    (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                    subprotocols=[jsonrpc.SUBPROTOCOL],
                    extra_headers=[(b"Authorization", b"Bearer " + token.encode())],
                    max_message_size=self._tuning.message_bytes,
                    receive_buffer_size=64 * 1024,
                    message_queue_size=8,
                )
            await self._converse(websocket)
            with trio.move_on_after(self._tuning.close_seconds):
                await websocket.aclose()
            nursery.cancel_scope.cancel()

    async def _converse(self, websocket: WebSocketConnection) -> None:
        if websocket.subprotocol != jsonrpc.SUBPROTOCOL:
            self._reject(ProtocolError(f"whoever listens there does not speak {jsonrpc.SUBPROTOCOL}: is it an engine?"))
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, websocket, nursery.cancel_scope)
            nursery.start_soon(self._send, websocket, nursery.cancel_scope)
            nursery.start_soon(self._keep_alive, websocket, nursery.cancel_scope)
            if await self._greet():
                self._rejection = None
                self._open = True
                self._note_change()
                await self._closing.wait()
            nursery.cancel_scope.cancel()

    async def _greet(self) -> bool:
        """Say Hello, so that nothing else is sent to something that is no engine or takes less than we would send."""
        self._last_id += 1
        pending = _Pending(self._last_id, jsonrpc.request(self._last_id, "Hello", b"{}"), alone=True)
        self._enqueue(pending)
        await pending.answered.wait()
        reply = pending.reply
        if reply is None:
            return False
        if reply.error is not None:
            refused = jsonrpc.refusal(reply.error)
            if refused.status in (ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED):
                self.problem = str(refused)
                self._told_seconds = jsonrpc.retry_after(refused)
            else:
                self._reject(refused)
            return False
        try:
            self.hello = _hello.decode(reply.result or b"")
        except (msgspec.MsgspecError, ValueError) as error:
            self._reject(ProtocolError(f"the daemon's Hello is not understood: {error}"))
            return False
        return True

    async def _receive(self, websocket: WebSocketConnection, conversation: trio.CancelScope) -> None:
        try:
            while True:
                for reply in jsonrpc.replies(await websocket.get_message()):
                    self._answer(reply)
        except ConnectionClosed as closed:
            reason = closed.reason
            if reason is None or reason.code == 1006:
                self.problem = "the connection was lost"
            else:
                self.problem = f"the connection was closed ({reason.code}): {reason.reason or reason.name}"
        except ProtocolError as error:
            self.problem = str(error)
        conversation.cancel()

    async def _send(self, websocket: WebSocketConnection, conversation: trio.CancelScope) -> None:
        """The only writer. A write that is given up has broken the stream, so it ends the connection."""
        try:
            while True:
                batch = self._next_batch()
                if not batch:
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                with trio.fail_after(self._tuning.stall_seconds):
                    await websocket.send_message(jsonrpc.message(batch))
        except trio.TooSlowError:
            self.problem = f"the daemon read nothing for {self._tuning.stall_seconds:g} s"
        except ConnectionClosed:
            return  # the receiving task knows the reason
        conversation.cancel()

    async def _keep_alive(self, websocket: WebSocketConnection, conversation: trio.CancelScope) -> None:
        try:
            while True:
                await trio.sleep(self._tuning.ping_seconds)
                with trio.fail_after(self._tuning.stall_seconds):
                    await websocket.ping()
        except trio.TooSlowError:
            self.problem = f"the daemon answered no ping for {self._tuning.stall_seconds:g} s"
        except ConnectionClosed:
            return
        conversation.cancel()

    # --- the state they share ------------------------------------------------------------------------------------

    def _enqueue(self, pending: _Pending) -> None:
        self._pending[pending.call_id] = pending
        self._outbox.append(pending)
        self._work.set()

    def _next_batch(self) -> list[bytes]:
        """What is to be written next: one request, or several that may go together."""
        batch: list[bytes] = []
        length = 0
        while self._outbox and len(batch) < self._tuning.batch_calls:
            pending = self._outbox[0]
            if batch and (pending.alone or length + len(pending.body) > self._tuning.batch_bytes):
                break
            self._outbox.popleft()
            if pending.call_id not in self._pending:
                continue
            pending.sent = True
            batch.append(pending.body)
            length += len(pending.body)
            if pending.alone:
                break
        return batch

    def _answer(self, reply: jsonrpc.Reply) -> None:
        if reply.id is None:
            if reply.method == NOTIFY and isinstance(reply.params, msgspec.Raw):
                self._notified(reply.params)
            return
        pending = self._forget(reply.id)
        if pending is None:
            return
        pending.reply = reply
        pending.answered.set()
        if pending.abandoned:
            self._deliver_late(pending, reply)

    def _notified(self, params: msgspec.Raw) -> None:
        try:
            name = _addressed.decode(params).subscription
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the daemon sent a notification that is not understood: {error}") from error
        listener = self.listeners.get(name)
        if listener is not None:
            listener(params)

    def _deliver_late(self, pending: _Pending, reply: jsonrpc.Reply) -> None:
        if pending.late is not None:
            pending.late(reply)

    def _abandon(self, pending: _Pending) -> None:
        """Its caller is gone. What the daemon already has keeps its slot until it is answered."""
        pending.abandoned = True
        if pending.reply is not None:
            self._deliver_late(pending, pending.reply)  # it came in the very moment of the cancellation
        elif not pending.sent:
            self._forget(pending.call_id)

    def _forget(self, call_id: int) -> _Pending | None:
        pending = self._pending.pop(call_id, None)
        if pending is not None and pending.slot is not None:
            pending.slot.release()
        return pending

    def _drop_everything(self) -> None:
        """The connection has ended: so have the requests on it."""
        self._open = False
        self._loss.set()
        self._loss = trio.Event()
        self._outbox.clear()
        for call_id in list(self._pending):
            pending = self._forget(call_id)
            if pending is not None:
                pending.answered.set()
        self._note_change()

    def _turned_away(self, url: str, rejected: ConnectionRejected) -> None:
        refused = jsonrpc.handshake_refusal(rejected.status_code, rejected.body or b"")
        if refused.status in (ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED):
            self.problem = f"{url}: {refused}"
            self._told_seconds = jsonrpc.retry_after(refused)
        elif refused.status in (ErrorStatus.UNAUTHENTICATED, ErrorStatus.PERMISSION_DENIED):
            self._reject(refused)
        else:
            self._reject(ProtocolError(f"{url} turned the connection away: {refused.message}"))

    def _reject(self, rejection: Refused | ProtocolError) -> None:
        self._rejection = rejection
        self.problem = str(rejection)
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _check_length(self, method: str, body: bytes) -> None:
        limit = self.hello.limits.frame_bytes if self.hello is not None else None
        if limit is not None and len(body) > limit:
            message = f"{method}: the call is {len(body):,} bytes long, the daemon takes messages up to {limit:,}"
            raise Refused(ErrorStatus.INVALID_ARGUMENT, message)


def _first(group: BaseExceptionGroup[E], kind: type[E]) -> E:
    """The first exception in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error
