"""What passes between the daemon and its Redis driver: frames on two lanes, one for what writes, one for reads.

The first request is `Open`, on the writing lane, and again after every loss; each makes both connections anew. The
reading lane is asked for one `Receive` at a time.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from daemon.drivers.framing import Frame

BLOCK_SECONDS = 2.0


class Layout(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all processes of a cluster must agree on, as far as it is known. `queues`: where task queues are."""

    cluster: str | None
    shards: int | None
    partitions: int | None
    queues: str | None = None


class Open(Frame, frozen=True):
    """`consumer` is another one at every `Open`: what a lost connection was still given is pending for a consumer that
    reads no more, and found there. `replies` is the stream of what comes back to this process."""

    url: str
    password: str | None
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    prefix: str
    consumer: str
    replies: str
    layout: Layout
    timeout_seconds: float

    @property
    def section(self) -> str:
        """Of engine.toml, that says where Redis is."""
        return "links"


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


class Opened(Frame, frozen=True):
    """`warning`: what could not be looked at."""

    layout: Layout
    warning: str | None = None


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


class Unavailable(Frame, frozen=True):
    """ExchangeAway: open again."""

    message: str


class Unusable(Frame, frozen=True):
    """ExchangeUnusable."""

    message: str


Reply: TypeAlias = Opened | Answered | Delivered | Full | Received | Unavailable | Unusable
