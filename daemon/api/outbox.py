"""What waits to be sent on one connection: a bounded outbox, and the one task that writes it to the socket.

It stands under the WebSocket connection in place of its socket, so that whatever wants to send (an answer, a pong, a
closing handshake) puts whole frames in and never waits, and nothing that is cancelled can leave half a frame behind.
Frames that gather while the socket is busy go out together. A client that does not read is cut off, by bytes waiting
or by time without progress; what then was not sent is kept in `lost`.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

CHUNK_BYTES: Final = 64 * 1024
"""Small frames are joined up to this, large ones are sent in pieces of it, each of which must go out in time."""
LINGER_SECONDS: Final = 2.0
RECEIVE_BYTES: Final = 64 * 1024


def text_frame(payload: bytes) -> bytes:
    """One whole unmasked WebSocket text message (RFC 6455, 5.2), as a server without extensions sends it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c" % size + payload
    if size < 65536:
        return b"\x81\x7e" + struct.pack("!H", size) + payload
    return b"\x81\x7f" + struct.pack("!Q", size) + payload


class Outbox(trio.abc.Stream):
    """A stream whose sends return at once. `write` must run beside whoever uses it.

    `limit_bytes`: what may wait; one answer longer than that goes through alone. `send_seconds`: the longest time
    CHUNK_BYTES may take.
    """

    def __init__(self, stream: trio.SocketStream, limit_bytes: int, send_seconds: float) -> None:
        self.lost: list[str] = []
        """Tokens of tasks whose frames were not, or perhaps not, received."""
        self.cut_off: str | None = None
        """Why the connection was aborted from this side."""
        self.on_end: Callable[[], None] | None = None
        """Called when the other side has ended, or this side has closed."""
        self._stream = stream
        self._limit = limit_bytes
        self._send_seconds = send_seconds
        self._waiting: deque[tuple[bytes, tuple[str, ...]]] = deque()
        self._bytes = 0
        self._wake = trio.Event()
        self._drained = trio.lowlevel.ParkingLot()
        self._broken = False
        self._closing = False
        self._finished = False
        self._written = trio.Event()

    def has_room(self, size: int) -> bool:
        """Whether `put` takes a frame of that size. What is cut off takes anything."""
        return self._broken or self._closing or not self._bytes or self._bytes + size <= self._limit

    async def room(self, size: int) -> None:
        """Wait until `put` takes a frame of that size: a client that asks for much at once gets it as fast as it
        reads. Cancelled: nothing has changed."""
        while not self.has_room(size):
            await self._drained.park()

    @property
    def waiting_bytes(self) -> int:
        """What is put in and not sent yet; nothing, once the connection is broken."""
        return self._bytes

    async def drained(self) -> None:
        """Until some of what waits was sent, or the connection is broken."""
        if self._bytes and not self._broken:
            await self._drained.park()

    def put(self, frame: bytes, tokens: tuple[str, ...] = (), *, at_once: bool = False) -> None:
        """Have a frame sent. `tokens`: the tasks it hands out, which are `lost` if it cannot be. `at_once`: no other
        frame is about to follow that it could go out with."""
        if self._broken or self._closing:
            self.lost.extend(tokens)
            return
        if self._bytes and self._bytes + len(frame) > self._limit:
            self.lost.extend(tokens)
            self.abort("slow reader: more answers wait than the connection may hold")
            return
        if at_once and not self._bytes:
            sent = self._try_write(frame)
            if sent == len(frame):
                return
            frame = frame[sent:]
        self._waiting.append((frame, tokens))
        self._bytes += len(frame)
        if len(self._waiting) == 1:
            self._wake.set()

    def abort(self, why: str) -> None:
        """Close the socket at once; whatever waits is lost. Everybody who uses the stream finds it closed."""
        if self._broken:
            return
        self.cut_off = why
        self._break()
        self._stream.socket.close()

    async def write(self) -> None:
        """Send what is put in, until closed. Cancelled: the stream ends in the middle of a frame, so only its socket
        can be closed after that."""
        try:
            while not self._broken:
                if not self._waiting:
                    if self._closing:
                        return
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                await self._write_some()
        finally:
            if self._waiting:
                self._break()
            self._written.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._broken or self._closing:
            raise trio.BrokenResourceError("the connection was cut off" if self._broken else "the connection closes")
        self.put(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes if max_bytes is not None else RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended()
            raise
        if not data:
            self._ended()
        return data

    async def aclose(self) -> None:
        """Send what waits (bounded by `send_seconds`), then close. Cancelled: closed at once."""
        self._ended()
        try:
            await self.finish()
        finally:
            await trio.aclose_forcefully(self._stream)

    async def finish(self) -> None:
        """Send what waits (bounded by `send_seconds`), then tell the other side that nothing more follows."""
        self._closing = True
        self._wake.set()
        try:
            with trio.move_on_after(self._send_seconds):
                await self._written.wait()
                if not self._broken and not self._finished:
                    self._finished = True
                    await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._break()

    async def linger(self) -> None:
        """Read on, and throw away, until the other side closes or LINGER_SECONDS are over: a socket that is closed
        with something unread resets the connection, and the last frame may be lost on its way."""
        with trio.move_on_after(LINGER_SECONDS):
            try:
                while await self._stream.receive_some(RECEIVE_BYTES):
                    pass
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _write_some(self) -> None:
        sending: list[tuple[bytes, tuple[str, ...]]] = []
        size = 0
        while self._waiting and (not sending or size + len(self._waiting[0][0]) <= CHUNK_BYTES):
            entry = self._waiting.popleft()
            sending.append(entry)
            size += len(entry[0])
        data = memoryview(sending[0][0] if len(sending) == 1 else b"".join([frame for frame, _ in sending]))
        sent = False
        try:
            for start in range(self._try_write(data), len(data), CHUNK_BYTES):
                with trio.fail_after(self._send_seconds):
                    await self._stream.send_all(data[start : start + CHUNK_BYTES])
            sent = True
        except trio.TooSlowError:
            self.abort(f"slow reader: {CHUNK_BYTES} bytes did not go out within {self._send_seconds:g} s")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._break()
        finally:
            self._bytes -= size
            if not sent:
                self._break()
                self.lost.extend(token for _, tokens in sending for token in tokens)
            self._drained.unpark_all()

    def _try_write(self, data: bytes | memoryview) -> int:
        """How many bytes the socket takes right now. Most often all of them, and then no deadline has to be set and
        no task has to wait."""
        try:
            return os.write(self._stream.socket.fileno(), data)
        except OSError:
            # It is full, or broken: the send that waits finds out which.
            return 0

    def _ended(self) -> None:
        if self.on_end is not None:
            self.on_end()

    def _break(self) -> None:
        self._broken = True
        for _, tokens in self._waiting:
            self.lost.extend(tokens)
        self._waiting.clear()
        self._bytes = 0
        self._wake.set()
        self._drained.unpark_all()
