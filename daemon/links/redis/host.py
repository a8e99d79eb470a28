"""The driver of links over Redis: `python -m daemon.links.redis.host WRITING_LANE READING_LANE`, started by
`daemon/redis/driver.py` and nobody else. Nothing here imports Trio."""

from __future__ import annotations

from functools import partial

import msgspec

from daemon.drivers.framing import Frame
from daemon.links.redis import frames
from daemon.links.redis.calling import call_out
from daemon.links.redis.checks import check_server
from daemon.links.redis.reading import Reading
from daemon.links.redis.sending import deliver
from daemon.redis.checks import agree
from daemon.redis.connection import Connection
from daemon.redis.frames import Opened, Unavailable
from daemon.redis.hosting import Connections, drive

calls: msgspec.msgpack.Decoder[frames.WriteRequest] = msgspec.msgpack.Decoder(frames.WriteRequest)
reads: msgspec.msgpack.Decoder[frames.ReadRequest] = msgspec.msgpack.Decoder(frames.ReadRequest)


class Host:
    """What is written, and what is read from inboxes."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._opened: frames.Open | None = None
        self._reading: Reading | None = None

    def call(self, request: frames.WriteRequest) -> Frame:
        if isinstance(request, frames.Open):
            self._opened = request
            return self._connections.open(
                request, lambda writing: _look(writing, request), lambda reading: self._begin(reading, request)
            )
        opened = self._opened
        if opened is None:
            return Unavailable("not connected")
        return self._connections.call(lambda writing: _write(writing, request, opened))

    def read(self, request: frames.ReadRequest) -> Frame:
        return self._connections.read(lambda _: self._receive(request))

    def close(self) -> None:
        self._connections.close()

    def _begin(self, connection: Connection, request: frames.Open) -> None:
        again = partial(agree, connection, request.prefix, request.layout)
        self._reading = Reading(connection, request.consumer, regrouped=again)

    def _receive(self, request: frames.ReadRequest) -> Frame:
        return Unavailable("not connected") if self._reading is None else self._reading.receive(request)


def _look(writing: Connection, request: frames.Open) -> Opened:
    warning = check_server(writing, request.prefix)
    return Opened(agree(writing, request.prefix, request.layout), warning)


def _write(writing: Connection, request: frames.LookUp | frames.CallOut | frames.Deliver, opened: frames.Open) -> Frame:
    if isinstance(request, frames.LookUp):
        return Opened(agree(writing, opened.prefix, opened.layout))
    if isinstance(request, frames.CallOut):
        return call_out(writing, request, opened.prefix)
    return deliver(writing, request, opened.replies)


def main() -> None:
    host = Host()
    drive(calls, host.call, reads, host.read)


if __name__ == "__main__":
    main()
