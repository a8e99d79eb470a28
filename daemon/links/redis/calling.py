"""What processes say of themselves: a hash with a field for each, on the writing lane of the Redis driver.

A field has the moment at which it was said, by Redis's clock, before what was said: who is silent, and since when, is
the same for everybody who asks.
"""

from __future__ import annotations

import struct
from typing import Final

from daemon.links.redis.frames import Answered, CallOut, Said
from daemon.redis.connection import Answer, CommandError, Connection, packed, raise_for
from daemon.redis.keys import record_key

_AT: Final = struct.Struct(">Q")
_EXPIRE_MS: Final = 3_600_000
"""How long the hash stays after the last word."""


def call_out(connection: Connection, request: CallOut, prefix: str) -> Answered:
    """Raises ServerAway and ServerUnusable. Where Redis has no memory, nothing is said."""
    key = record_key(prefix, "processes")
    try:
        now_ms = _milliseconds(connection.ask(b"TIME"))
        commands = []
        if request.said:
            commands.append(packed(b"HSET", key, request.process.encode(), _AT.pack(now_ms) + request.said))
        if request.forget:
            commands.append(packed(b"HDEL", key, *(each.encode() for each in request.forget)))
        commands.append(packed(b"PEXPIRE", key, b"%d" % _EXPIRE_MS))
        if request.listen:
            commands.append(packed(b"HGETALL", key))
        answers = connection.run(commands)
    except CommandError as error:
        raise_for(error)
    for answer in answers:
        if isinstance(answer, CommandError):
            if answer.forbidden:
                return Answered([], str(answer))
            if not answer.no_memory:
                raise_for(answer)
    return Answered(_said(answers[-1], now_ms) if request.listen else [])


def _said(flat: Answer, now_ms: int) -> list[Said]:
    return [
        Said(name.decode(), max(now_ms - _AT.unpack_from(value)[0], 0), value[_AT.size :])
        for name, value in zip(flat[::2], flat[1::2], strict=True)
        if len(value) >= _AT.size
    ]


def _milliseconds(answer: Answer) -> int:
    seconds, microseconds = answer
    return int(seconds) * 1000 + int(microseconds) // 1000
