"""The writing lane of the Redis driver: everything that has gathered goes out as one pipeline."""

from __future__ import annotations

from daemon.links.redis.frames import Deliver, Delivered, Full, Parcel, Settled
from daemon.links.redis.keys import FIELD, GROUP
from daemon.redis.connection import CommandError, Connection, packed, raise_for


def deliver(connection: Connection, request: Deliver, replies: str) -> Delivered | Full:
    """Where there is no memory for messages, what makes room again is done all the same.

    Raises ServerAway (then nobody knows what has arrived) and ServerUnusable.
    """
    commands: list[bytes] = []
    lengths: list[int] = []
    for parcel in request.parcels:
        _add(commands, parcel)
        if parcel.measured:
            lengths.append(len(commands))
            commands.append(packed(b"XLEN", parcel.key.encode()))
    for key in request.measured:
        lengths.append(len(commands))
        commands.append(packed(b"XLEN", key.encode()))
    for settled in request.settled:
        _settle(commands, settled)
    if request.nudge:
        commands.append(packed(b"XADD", replies.encode(), b"*", FIELD, b""))
    answers = connection.run(commands) if commands else []
    full = False
    for answer in answers:
        if isinstance(answer, CommandError):
            if not answer.no_memory:
                raise_for(answer)
            full = True
    return Full() if full else Delivered([int(answers[place]) for place in lengths])  # type: ignore[arg-type]


def _add(commands: list[bytes], parcel: Parcel) -> None:
    key = parcel.key.encode()
    bound = b"%d" % parcel.bound
    before = b"*8\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$%d\r\n%b\r\n$1\r\n*\r\n$1\r\nm\r\n" % (
        len(key),
        key,
        len(bound),
        bound,
    )
    commands.extend(b"%b$%d\r\n%b\r\n" % (before, len(each), each) for each in parcel.envelopes)
    if parcel.expire_ms:
        commands.append(packed(b"PEXPIRE", key, b"%d" % parcel.expire_ms))


def _settle(commands: list[bytes], settled: Settled) -> None:
    key = settled.key.encode()
    ids = [each.encode() for each in settled.ids]
    commands.append(packed(b"XACK", key, GROUP, *ids))
    commands.append(packed(b"XDEL", key, *ids))
