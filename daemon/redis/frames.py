"""What passes between the daemon and every driver of Redis: opening both connections, and how Redis is.

The first request is `Open`, on the lane of calls, and again after every loss; each makes both connections anew. Beyond
that each driver has frames of its own.
"""

from __future__ import annotations

import msgspec

from daemon.drivers.framing import Frame

BLOCK_SECONDS = 2.0
"""How long a read waits on the server. Then it comes back by itself: a server that has vanished says nothing."""


class Server(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where Redis is, and how this process shows who it is. `section`: of engine.toml, that says so. `timeout_seconds`:
    after which a connection without an answer counts as lost."""

    section: str
    url: str
    password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_seconds: float = 5.0


class Layout(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all processes of a cluster must agree on, as far as it is known. `queues`: where task queues are."""

    cluster: str | None
    shards: int | None
    partitions: int | None
    queues: str | None = None


class Open(Frame, frozen=True):
    """`prefix`: what all keys begin with."""

    server: Server
    prefix: str
    layout: Layout


class Opened(Frame, frozen=True):
    """`warning`: what could not be looked at."""

    layout: Layout
    warning: str | None = None


class Unavailable(Frame, frozen=True):
    """ServerAway: open again."""

    message: str


class Unusable(Frame, frozen=True):
    """ServerUnusable."""

    message: str
