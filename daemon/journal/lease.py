"""For how long an owner may say what is so: its lease, by a clock that nobody can set, and that goes on while the
machine sleeps.

The store's clock decides when others may take a shard, and only its epochs decide who may write. What an owner reads
off its memory is checked by nobody: it answers from it only as long as nobody else can have taken the shard.
"""

from __future__ import annotations

import math

from daemon.clock import Clock
from enginekit.messages.links import Millis
from enginekit.messages.status import ErrorStatus, Refused

RETRY_SECONDS = 0.5


class Lease:
    """Without an end, until one is given: the store belongs to this daemon alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = math.inf

    @property
    def holds(self) -> bool:
        return self._clock.elapsed() < self._until

    def asked(self) -> Millis:
        """The moment before the store is asked to renew it."""
        return self._clock.elapsed()

    def renewed(self, asked_at: Millis, seconds: float) -> None:
        """The store has said that it lasts for so long. It counts from when it was asked: the answer took its time."""
        self._until = asked_at + seconds * 1000

    def end(self) -> None:
        self._until = -math.inf


def lapsed() -> Refused:
    return Refused(
        ErrorStatus.UNAVAILABLE,
        "the execution's shard may have gone to another History; ask again",
        {"retry_after_seconds": RETRY_SECONDS},
    )
