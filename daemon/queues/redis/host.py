"""The driver of queues in Redis: `python -m daemon.queues.redis.host TURNS_LANE NOTICES_LANE`, started by `queues.py`
and nobody else.

Two connections, one a lane and a thread, as of the links' driver. Nothing here imports Trio.
"""

from __future__ import annotations

import os
import socket
import threading

import msgspec

from daemon.drivers.framing import Frame
from daemon.drivers.hosting import begin, serve, shut
from daemon.links.faults import ExchangeAway, ExchangeUnusable
from daemon.links.redis.checks import agree, check_eviction, version_of
from daemon.links.redis.connection import CommandError, Connection, packed, raise_for
from daemon.queues.redis import frames
from daemon.queues.redis.script import TEXT

BLOCK_SECONDS = 2.0

_turn_requests: msgspec.msgpack.Decoder[frames.TurnRequest] = msgspec.msgpack.Decoder(frames.TurnRequest)
_hear_requests: msgspec.msgpack.Decoder[frames.HearRequest] = msgspec.msgpack.Decoder(frames.HearRequest)


def main() -> None:
    turns_lane, notices_lane = begin()
    host = Host()
    threading.Thread(target=_serve_notices, args=(host, notices_lane, turns_lane), daemon=True).start()
    serve(turns_lane, _turn_requests, host.turn)
    # The other thread may be in a read that blocks: it ends with the process.
    os._exit(0)


def _serve_notices(host: Host, notices_lane: socket.socket, turns_lane: socket.socket) -> None:
    try:
        serve(notices_lane, _hear_requests, host.hear)
    finally:
        shut(turns_lane, socket.SHUT_RD)


class Host:
    """Both connections, from one `Open` to the next."""

    def __init__(self) -> None:
        self._turns: Connection | None = None
        self._notices: Connection | None = None
        self._being_read = threading.Lock()
        self._script = b""

    def turn(self, request: frames.TurnRequest) -> Frame:
        try:
            if isinstance(request, frames.Open):
                return self._open(request)
            if self._turns is None:
                return frames.Unavailable("not connected")
            return self._turn(self._turns, request)
        except ExchangeAway as away:
            self.close()
            return frames.Unavailable(str(away))
        except ExchangeUnusable as unusable:
            return frames.Unusable(str(unusable))

    def _turn(self, connection: Connection, request: frames.Turn) -> Frame:
        command = packed(b"EVALSHA", self._script, b"1", request.key.encode(), request.ask)
        answer = connection.run([command])[0]
        if isinstance(answer, CommandError) and answer.code == "NOSCRIPT":
            # Redis has started anew.
            self._load(connection)
            answer = connection.run([command])[0]
        if not isinstance(answer, CommandError):
            return frames.Turned(answer)
        if answer.no_memory:
            return frames.Full()
        if not (answer.code == "ERR" and "script" in str(answer)):
            raise_for(answer)
        return frames.Unusable(
            f"the queues in Redis are not as this version makes them ({answer}): nothing of them is needed, so stop "
            f"what uses them, delete the keys {request.key}:*, and start again"
        )

    def hear(self, request: frames.Hear) -> Frame:
        with self._being_read:
            if self._notices is None:
                return frames.Unavailable("not connected")
            try:
                return self._hear(self._notices, request)
            except CommandError as error:
                return _told(error)
            except ExchangeAway as away:
                return frames.Unavailable(str(away))
            except ExchangeUnusable as unusable:
                return frames.Unusable(str(unusable))

    def _hear(self, connection: Connection, request: frames.Hear) -> Frame:
        block = b"%d" % round(BLOCK_SECONDS * 1000)
        read = packed(
            *(b"XREAD", b"COUNT", b"1000", b"BLOCK", block, b"STREAMS"),
            *(key.encode() for key in request.keys),
            *(each.encode() for each in request.after),
        )
        found = {
            key.decode(): [(entry.decode(), fields[0], fields[1]) for entry, fields in entries]
            for key, entries in connection.run_all([read])[0] or ()
        }
        return frames.Heard(
            [
                frames.Entries(
                    found[key][-1][0] if key in found else last,
                    [(field, value) for _, field, value in found.get(key, ())],
                )
                for key, last in zip(request.keys, request.after, strict=True)
            ]
        )

    def _open(self, request: frames.Open) -> frames.Opened:
        self.close()
        turns = Connection(request, request.timeout_seconds)
        try:
            _check_version(version_of(turns))
            warning = check_eviction(turns)
            agree(turns, request.prefix, request.layout)
            self._load(turns)
            seconds, microseconds = turns.ask(b"TIME")
            notices = Connection(request, BLOCK_SECONDS + request.timeout_seconds)
        except CommandError as error:
            turns.close()
            raise_for(error)
        except (ExchangeAway, ExchangeUnusable):
            turns.close()
            raise
        self._turns, self._notices = turns, notices
        # Entries of this very millisecond may be there, and some are still to come.
        return frames.Opened(f"{int(seconds) * 1000 + int(microseconds) // 1000 - 1}-0", warning)

    def _load(self, connection: Connection) -> None:
        try:
            self._script = connection.ask(b"SCRIPT", b"LOAD", TEXT)
        except CommandError as error:
            raise_for(error)

    def close(self) -> None:
        if self._turns is not None:
            self._turns.close()
            self._turns = None
        if self._notices is not None:
            # The other thread may be reading, which ends at once.
            self._notices.cut()
            with self._being_read:
                self._notices.close()
                self._notices = None


def _check_version(version: str | None) -> None:
    """Raises ExchangeUnusable for one that is too old. Valkey says which Redis it is like."""
    numbers = [int(part) for part in (version or "").split(".")[:2] if part.isdecimal()]
    if len(numbers) == 2 and numbers < [6, 2]:
        raise ExchangeUnusable(f"Redis is too old ({version}): queues need Redis 6.2 or newer, or Valkey")


def _told(error: CommandError) -> Frame:
    try:
        raise_for(error)
    except ExchangeAway as away:
        return frames.Unavailable(str(away))
    except ExchangeUnusable as unusable:
        return frames.Unusable(str(unusable))


if __name__ == "__main__":
    main()
