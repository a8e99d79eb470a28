"""The Redis driver: `python -m daemon.links.redis.host WRITING_LANE READING_LANE`, started by `exchange.py` and nobody
else.

Two connections, one a lane and a thread. It ends when its lanes do. A connection that is lost is told, and made again
when the daemon says so (`Open`). Nothing here imports Trio.
"""

from __future__ import annotations

import os
import socket
import threading

import msgspec

from daemon.drivers.framing import Frame
from daemon.drivers.hosting import begin, serve, shut
from daemon.links.faults import ExchangeAway, ExchangeUnusable
from daemon.links.redis import frames
from daemon.links.redis.calling import call_out
from daemon.links.redis.checks import agree, check_server
from daemon.links.redis.connection import CommandError, Connection, raise_for
from daemon.links.redis.frames import BLOCK_SECONDS
from daemon.links.redis.reading import Reading
from daemon.links.redis.sending import deliver

_write_requests: msgspec.msgpack.Decoder[frames.WriteRequest] = msgspec.msgpack.Decoder(frames.WriteRequest)
_read_requests: msgspec.msgpack.Decoder[frames.ReadRequest] = msgspec.msgpack.Decoder(frames.ReadRequest)


def main() -> None:
    write_lane, read_lane = begin()
    host = _Host()
    threading.Thread(target=_serve_reads, args=(host, read_lane, write_lane), daemon=True).start()
    serve(write_lane, _write_requests, host.write)
    # The other thread may be in a read that blocks: it ends with the process.
    os._exit(0)


def _serve_reads(host: _Host, read_lane: socket.socket, write_lane: socket.socket) -> None:
    try:
        serve(read_lane, _read_requests, host.read)
    finally:
        shut(write_lane, socket.SHUT_RD)


class _Host:
    """Both connections, from one `Open` to the next."""

    def __init__(self) -> None:
        self._request: frames.Open | None = None
        self._writing: Connection | None = None
        self._reading: Reading | None = None
        self._reads: Connection | None = None
        self._being_read = threading.Lock()

    def write(self, request: frames.WriteRequest) -> Frame:
        try:
            if isinstance(request, frames.Open):
                return self._open(request)
            if self._writing is None or self._request is None:
                return frames.Unavailable("not connected")
            if isinstance(request, frames.LookUp):
                return frames.Opened(agree(self._writing, self._request.prefix, self._request.layout))
            if isinstance(request, frames.CallOut):
                return call_out(self._writing, request, self._request.prefix)
            return deliver(self._writing, request, self._request.replies)
        except ExchangeAway as away:
            self._close()
            return frames.Unavailable(str(away))
        except ExchangeUnusable as unusable:
            return frames.Unusable(str(unusable))

    def read(self, request: frames.Receive) -> Frame:
        with self._being_read:
            if self._reading is None:
                return frames.Unavailable("not connected")
            try:
                return self._reading.receive(request)
            except ExchangeAway as away:
                return frames.Unavailable(str(away))
            except ExchangeUnusable as unusable:
                return frames.Unusable(str(unusable))

    def _open(self, request: frames.Open) -> frames.Opened:
        self._close()
        self._request = request
        writing = Connection(request, request.timeout_seconds)
        try:
            warning = check_server(writing, request.prefix)
            layout = agree(writing, request.prefix, request.layout)
            reads = Connection(request, BLOCK_SECONDS + request.timeout_seconds)
        except CommandError as error:
            writing.close()
            raise_for(error)
        except (ExchangeAway, ExchangeUnusable):
            writing.close()
            raise
        self._writing, self._reads = writing, reads
        self._reading = Reading(reads, request.consumer, lambda: agree(reads, request.prefix, request.layout))
        return frames.Opened(layout, warning)

    def _close(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None
        if self._reads is not None:
            # The other thread may be reading, which ends at once.
            self._reads.cut()
            with self._being_read:
                self._reads.close()
                self._reads = None
                self._reading = None


if __name__ == "__main__":
    main()
