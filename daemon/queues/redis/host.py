"""The driver of queues in Redis: `python -m daemon.queues.redis.host TURNS_LANE NOTICES_LANE`, started by
`daemon/redis/driver.py` and nobody else. Nothing here imports Trio."""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.drivers.framing import Frame
from daemon.queues.redis import frames
from daemon.redis.checks import agree, check_eviction, too_old, version_of
from daemon.redis.connection import CommandError, Connection, packed, raise_for
from daemon.redis.frames import BLOCK_SECONDS, Open, Opened, Unusable
from daemon.redis.hosting import Connections, drive

SCRIPT = (Path(__file__).parent / "turn.lua").read_bytes()

calls: msgspec.msgpack.Decoder[frames.TurnRequest] = msgspec.msgpack.Decoder(frames.TurnRequest)
reads: msgspec.msgpack.Decoder[frames.HearRequest] = msgspec.msgpack.Decoder(frames.HearRequest)


class Host:
    """Turns, and what is heard."""

    def __init__(self) -> None:
        self._connections = Connections()
        self._script = b""
        self._since = b""
        """An id of streams, less than those of all entries since the connections were made."""

    def call(self, request: frames.TurnRequest) -> Frame:
        if isinstance(request, Open):
            return self._connections.open(request, lambda turns: self._look(turns, request))
        return self._connections.call(lambda turns: self._turn(turns, request))

    def read(self, request: frames.HearRequest) -> Frame:
        return self._connections.read(lambda notices: self._hear(notices, request))

    def close(self) -> None:
        self._connections.close()

    def _look(self, turns: Connection, request: Open) -> Opened:
        check_version(version_of(turns))
        warning = check_eviction(turns)
        layout = agree(turns, request.prefix, request.layout)
        self._load(turns)
        seconds, microseconds = turns.ask(b"TIME")
        # Entries of this very millisecond may be there, and some are still to come.
        self._since = b"%d-0" % (int(seconds) * 1000 + int(microseconds) // 1000 - 1)
        return Opened(layout, warning)

    def _load(self, turns: Connection) -> None:
        self._script = turns.ask(b"SCRIPT", b"LOAD", SCRIPT)

    def _turn(self, turns: Connection, request: frames.Turn) -> Frame:
        command = packed(b"EVALSHA", self._script, b"1", request.key.encode(), request.ask)
        answer = turns.run([command])[0]
        if isinstance(answer, CommandError) and answer.code == "NOSCRIPT":
            # Redis has started anew.
            self._load(turns)
            answer = turns.run([command])[0]
        if not isinstance(answer, CommandError):
            return frames.Turned(answer)
        if answer.no_memory:
            return frames.Full()
        if not (answer.code == "ERR" and "script" in str(answer)):
            raise_for(answer)
        return Unusable(
            f"the queues in Redis are not as this version makes them ({answer}): nothing of them is needed, so stop "
            f"what uses them, delete the keys {request.key}:*, and start again"
        )

    def _hear(self, notices: Connection, request: frames.Hear) -> frames.Heard:
        block = b"%d" % round(BLOCK_SECONDS * 1000)
        read = packed(
            *(b"XREAD", b"COUNT", b"1000", b"BLOCK", block, b"STREAMS"),
            *(key.encode() for key in request.keys),
            *(each.encode() or self._since for each in request.after),
        )
        found = {
            key.decode(): [(entry.decode(), fields[0], fields[1]) for entry, fields in entries]
            for key, entries in notices.run_all([read])[0] or ()
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


def check_version(version: str | None) -> None:
    """Raises ServerUnusable for one that is too old. Valkey says which Redis it is like."""
    numbers = [int(part) for part in (version or "").split(".")[:2] if part.isdecimal()]
    if len(numbers) == 2 and numbers < [6, 2]:
        raise too_old(version, "queues need Redis 6.2 or newer, or Valkey")


def main() -> None:
    host = Host()
    drive(calls, host.call, reads, host.read)


if __name__ == "__main__":
    main()
