"""What passes between the daemon and the driver of its queues: frames on two lanes, one for turns, one for what is
heard. `daemon/redis/frames.py` has those of every driver of Redis."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from daemon.drivers.framing import Frame
from daemon.redis.frames import Open, Opened, Unavailable, Unusable


class Turn(Frame, frozen=True):
    """Run the script on the partition whose keys begin with `key`."""

    key: str
    ask: bytes


TurnRequest: TypeAlias = Open | Turn


class Hear(Frame, frozen=True):
    """Wait for entries of these streams, each beyond an id. An empty one: all since the connections were made."""

    keys: list[str]
    after: list[str]


HearRequest: TypeAlias = Hear


class Turned(Frame, frozen=True):
    told: bytes


class Full(Frame, frozen=True):
    """Redis has no memory for it: not all of it was done."""


class Entries(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Each entry's field and value, and the id of the last: without one, the id beyond which there is none."""

    last: str
    entries: list[tuple[bytes, bytes]]


class Heard(Frame, frozen=True):
    streams: list[Entries]


Reply: TypeAlias = Opened | Turned | Full | Heard | Unavailable | Unusable
