"""A driver of Redis, from its own side: two lanes, a thread and a connection for each. On one are calls, which are
answered at once; on the other are reads, which may block on the server.

It ends when its lanes do. A connection that is lost is told, and made again when the daemon says so (`Open`). Nothing
here imports Trio.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import msgspec

from daemon.drivers.faults import ServerAway, ServerUnusable
from daemon.drivers.framing import Frame
from daemon.drivers.hosting import begin, serve, shut
from daemon.redis.connection import CommandError, Connection, raise_for
from daemon.redis.frames import BLOCK_SECONDS, Open, Opened, Unavailable, Unusable

C = TypeVar("C")
R = TypeVar("R")

Use: TypeAlias = Callable[[Connection], Frame]
"""What is done over a connection. Raises ServerAway, ServerUnusable, and CommandError for what nobody expects."""


def drive(
    calls: msgspec.msgpack.Decoder[C],
    call: Callable[[C], Frame],
    reads: msgspec.msgpack.Decoder[R],
    read: Callable[[R], Frame],
) -> None:
    """Be a driver's process: answer what comes on both lanes, until one of them ends. Does not return."""
    calls_lane, reads_lane = begin()

    def serve_reads() -> None:
        try:
            serve(reads_lane, reads, read)
        finally:
            shut(calls_lane, socket.SHUT_RD)

    threading.Thread(target=serve_reads, daemon=True).start()
    serve(calls_lane, calls, call)
    # The other thread may be in a read that blocks: it ends with the process.
    os._exit(0)


class Connections:
    """Both, from one `Open` to the next. Calls, opening and closing are one thread's, reads another's."""

    def __init__(self) -> None:
        self._calls: Connection | None = None
        self._reads: Connection | None = None
        self._being_read = threading.Lock()

    def open(
        self, request: Open, look: Callable[[Connection], Opened], begin: Callable[[Connection], None] | None = None
    ) -> Frame:
        """`look` with the connection for calls, whether this Redis can be used; then `begin` with the one for reads."""
        self.close()
        return _answer(lambda: self._open(request, look, begin))

    def _open(
        self, request: Open, look: Callable[[Connection], Opened], begin: Callable[[Connection], None] | None
    ) -> Opened:
        server = request.server
        calls = Connection(server, server.timeout_seconds)
        try:
            opened = look(calls)
            reads = Connection(server, BLOCK_SECONDS + server.timeout_seconds)
        except (CommandError, ServerAway, ServerUnusable):
            calls.close()
            raise
        if begin is not None:
            begin(reads)
        self._calls, self._reads = calls, reads
        return opened

    def call(self, use: Use) -> Frame:
        connection = self._calls
        if connection is None:
            return Unavailable("not connected")
        answer = _answer(lambda: use(connection))
        if isinstance(answer, Unavailable):
            self.close()
        return answer

    def read(self, use: Use) -> Frame:
        with self._being_read:
            connection = self._reads
            return Unavailable("not connected") if connection is None else _answer(lambda: use(connection))

    def close(self) -> None:
        if self._calls is not None:
            self._calls.close()
            self._calls = None
        if self._reads is not None:
            # The other thread may be reading, which ends at once.
            self._reads.cut()
            with self._being_read:
                self._reads.close()
                self._reads = None


def _answer(use: Callable[[], Frame]) -> Frame:
    try:
        try:
            return use()
        except CommandError as error:
            raise_for(error)
    except ServerAway as away:
        return Unavailable(str(away))
    except ServerUnusable as unusable:
        return Unusable(str(unusable))
