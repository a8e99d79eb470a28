"""What passes between the daemon and the driver of its links: frames on two lanes, one for what writes, one for reads,
which is asked for one `Receive` at a time. `daemon/redis/frames.py` has those of every driver of Redis."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from daemon.drivers.framing import Frame
from daemon.redis import frames
from daemon.redis.frames import Opened, Unavailable, Unusable


class Open(frames.Open, frozen=True):
    """`consumer` is another one at every `Open`: what a lost connection was still given is pending for a consumer that
    reads no more, and found there. `replies` is the stream of what comes back to this process."""

    consumer: str
    replies: str


class LookUp(Frame, frozen=True):
    """Ask for the layout as it is recorded now."""


class CallOut(Frame, frozen=True):
    """What this process says of itself (empty: nothing), whom to forget, and whether to tell what all have said."""

    process: str
    said: bytes
    forget: list[str]
    listen: bool


class Parcel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Envelopes for one stream, which is cut to about `bound` entries and, with `expire_ms`, goes away when nobody
    writes to it for so long."""

    key: str
    bound: int
    expire_ms: int
    measured: bool
    envelopes: list[bytes]


class Settled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Entries that have been dealt with."""

    key: str
    ids: list[str]


class Deliver(Frame, frozen=True):
    """`measured`: streams whose length is asked for, too. `nudge`: put something into this process's own replies, so
    that its blocking read comes back."""

    parcels: list[Parcel]
    settled: list[Settled]
    measured: list[str]
    nudge: bool


WriteRequest: TypeAlias = Open | LookUp | CallOut | Deliver


class Inbox(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`shared`: it has several receivers. `fresh`: it is read for the first time, or again: what is pending there comes
    before anything new. `expire_ms`: as of `Parcel`."""

    key: str
    shared: bool
    fresh: bool
    expire_ms: int


class Receive(Frame, frozen=True):
    """At most about `count` entries of each inbox."""

    inboxes: list[Inbox]
    count: int


ReadRequest: TypeAlias = Receive


class Delivered(Frame, frozen=True):
    """The lengths of the streams of those `parcels` that are to be measured, then of those of `measured`."""

    lengths: list[int]


class Full(Frame, frozen=True):
    """Redis has no memory left for what was to be delivered, all of it or some. What was settled is settled."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`envelope` is empty where an entry has none."""

    id: str
    envelope: bytes


class Arrivals(msgspec.Struct, frozen=True, array_like=True, gc=False):
    key: str
    entries: list[Entry]


class Backlog(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is in an inbox: all entries, and those of them that were given to somebody."""

    key: str
    length: int
    pending: int


class Received(Frame, frozen=True):
    """`now_ms` by Redis's clock, whose milliseconds the ids of entries begin with. `claimed`: so many of the arrivals
    were taken over. `backlogs`: of inboxes that were looked at meanwhile."""

    now_ms: int
    arrivals: list[Arrivals]
    claimed: int = 0
    backlogs: list[Backlog] = []


class Said(msgspec.Struct, frozen=True, array_like=True, gc=False):
    process: str
    milliseconds_ago: int
    said: bytes


class Answered(Frame, frozen=True):
    """To `CallOut`. `refused`: this user may not say anything, and why."""

    said: list[Said]
    refused: str | None = None


Reply: TypeAlias = Opened | Answered | Delivered | Full | Received | Unavailable | Unusable
