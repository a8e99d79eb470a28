"""What passes between the daemon and the driver of its queues: frames on two lanes, one for turns, one for what is
heard. The first request is `Open`, on the lane of turns, and again after every loss."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from daemon.drivers.framing import Frame
from daemon.links.redis.frames import Layout


class Open(Frame, frozen=True):
    url: str
    password: str | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    prefix: str
    layout: Layout
    timeout_seconds: float

    @property
    def section(self) -> str:
        """Of engine.toml, that says where Redis is."""
        return "queues"


class Turn(Frame, frozen=True):
    """Run the script on the partition whose keys begin with `key`."""

    key: str
    ask: bytes


TurnRequest: TypeAlias = Open | Turn


class Hear(Frame, frozen=True):
    """Wait for entries of these streams, each beyond an id."""

    keys: list[str]
    after: list[str]


HearRequest: TypeAlias = Hear


class Opened(Frame, frozen=True):
    """`now`: an id of streams, less than those of all entries to come. `warning`: what could not be looked at."""

    now: str
    warning: str | None


class Turned(Frame, frozen=True):
    told: bytes


class Full(Frame, frozen=True):
    """Redis has no memory for it: not all of it was done."""


class Entries(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Each entry's field and value, and the id of the last."""

    last: str
    entries: list[tuple[bytes, bytes]]


class Heard(Frame, frozen=True):
    streams: list[Entries]


class Unavailable(Frame, frozen=True):
    """Open again."""

    message: str


class Unusable(Frame, frozen=True):
    message: str


Reply: TypeAlias = Opened | Turned | Full | Heard | Unavailable | Unusable
