"""The daemon's end of one lane to a driver process: requests out, answers in, in order, many under way at once.

The lane's own task sends, so that what is asked in one turn of the loop goes out in one system call. A frame that has
begun is always finished, whoever is cancelled: a caller that has gone away leaves its answer to be dropped.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
import trio

from daemon.drivers.framing import HEADER, Frame

_RECEIVE_BYTES = 256 * 1024
_SOCKET_BYTES = 1024 * 1024
_BUFFERS = 64

R = TypeVar("R", bound=Frame)


class _Pending:
    """A request that has not been answered."""

    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: bytes | None = None


class Lane(Generic[R]):
    """One lane, until its other end goes away. `lost` makes the exception of calls that it took along."""

    def __init__(
        self, stream: socket.socket, replies: msgspec.msgpack.Decoder[R], lost: Callable[[str], Exception]
    ) -> None:
        stream.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            stream.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)
        self._socket = stream
        self._replies = replies
        self._lost_call = lost
        self._outgoing: deque[memoryview] = deque()
        self._pending: deque[_Pending] = deque()
        self._unsent = trio.Event()
        self._lost = False

    async def ask(self, message: bytearray) -> R:
        """Send a framed request and wait for its reply.

        Raises what `lost` makes when the lane is lost before it comes. Cancelled: the driver executes it all the same.
        """
        if self._lost:
            await trio.lowlevel.checkpoint()
            raise self._lost_call("its driver process has gone away")
        pending = _Pending()
        self._pending.append(pending)
        self._outgoing.append(memoryview(message))
        self._unsent.set()
        await pending.answered.wait()
        if pending.reply is None:
            raise self._lost_call("its driver process went away in the middle of this call")
        return self._replies.decode(pending.reply)

    async def serve(self) -> None:
        """Move bytes until the other end goes away, or the lane is closed; then it is."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self.close()

    def close(self) -> None:
        """Every call that waits raises what `lost` makes. Closing twice does nothing."""
        if self._lost:
            return
        self._lost = True
        self._outgoing.clear()
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        for pending in self._pending:
            pending.answered.set()
        self._pending.clear()

    def _flush(self) -> bool:
        """Send what the socket takes; whether that was all."""
        outgoing = self._outgoing
        while outgoing:
            try:
                sent = self._socket.sendmsg([outgoing[index] for index in range(min(len(outgoing), _BUFFERS))])
            except BlockingIOError:
                return False
            except OSError:
                outgoing.clear()  # `_receive` sees the same loss, and reports it.
                return True
            while outgoing and sent >= len(outgoing[0]):
                sent -= len(outgoing.popleft())
            if sent:
                outgoing[0] = outgoing[0][sent:]
        return True

    async def _send(self) -> None:
        while True:
            await self._unsent.wait()
            self._unsent = trio.Event()
            while not self._flush():
                try:
                    await trio.lowlevel.wait_writable(self._socket)
                except trio.ClosedResourceError:
                    return

    async def _receive(self) -> None:
        received = bytearray()
        header = HEADER.size
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                some = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except (ConnectionError, trio.ClosedResourceError):
                return
            if not some:
                return
            received += some
            start = 0
            while len(received) - start >= header:
                end = start + header + HEADER.unpack_from(received, start)[0]
                if len(received) < end:
                    break
                pending = self._pending.popleft()
                pending.reply = bytes(received[start + header : end])
                pending.answered.set()
                start = end
            del received[:start]
