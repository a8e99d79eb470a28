"""Names that History makes: run ids that grow with time, and the shard of an execution."""

from __future__ import annotations

import random
import uuid
import zlib
from typing import Final

from enginekit.messages.links import Millis

CHILD: Final = "~"
"""What the workflow_id of a run that another run started begins with; no caller may give such a name."""


def child_id(shard: int, run_id: str, event: int, number: int) -> str:
    """The workflow_id of the run that is number `number` of those that an event of a run has started."""
    return f"{CHILD}{shard}.{run_id}.{event}.{number}"


def shard_of(tenant: str, workflow_id: str, shards: int) -> int:
    """The same for ever: it follows from the names. A run that another one started is in that one's shard."""
    if workflow_id.startswith(CHILD):
        return int(workflow_id[1:].partition(".")[0])
    return zlib.crc32(f"{tenant}\n{workflow_id}".encode()) % shards


class RunIds:
    """UUIDs version 7 (RFC 9562, 5.7): milliseconds first, so that a run's rows lie beside those of its time, then a
    counter, so that ids of one millisecond keep their order too."""

    def __init__(self, entropy: random.Random) -> None:
        self._entropy = entropy
        self._last = 0
        self._count = 0

    def after(self, run_id: str | None) -> None:
        """From now on every id is greater than this one."""
        if run_id is None:
            return
        milliseconds, count = _parts(run_id)
        if (milliseconds, count) > (self._last, self._count):
            self._last, self._count = milliseconds, count

    def make(self, now: Millis) -> str:
        if now > self._last:
            self._last, self._count = now, 0
        else:
            self._count += 1
            if self._count > 0xFFF:
                self._last, self._count = self._last + 1, 0
        return str(uuid_of(self._last, self._count, self._entropy.getrandbits(62)))


def _parts(run_id: str) -> tuple[Millis, int]:
    number = uuid.UUID(run_id).int
    return number >> 80, (number >> 64) & 0xFFF


def uuid_of(milliseconds: Millis, count: int, chance: int) -> uuid.UUID:
    """Version 7: 48 bits of time, 12 of counter, 62 of chance."""
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (count << 64) | (0b10 << 62) | chance)
