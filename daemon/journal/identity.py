"""Names that History makes: run ids that grow with time and tell their shard, and those of runs that a run starts."""

from __future__ import annotations

import random
import uuid

from daemon.links.sharding import CHILD, SUFFIX_DIGITS
from enginekit.messages.links import Millis

_SUFFIXES = 16**SUFFIX_DIGITS


def child_id(shard: int, run_id: str, event: int, number: int) -> str:
    """The workflow_id of the run that is number `number` of those that an event of a run has started."""
    return f"{CHILD}{shard}.{run_id}.{event}.{number}"


class RunIds:
    """UUIDs version 7 (RFC 9562, 5.7): milliseconds first, so that a run's rows lie beside those of its time, then a
    counter, so that ids of one millisecond keep their order too; of the chance behind them the last digits are such
    that they tell the run's shard (`daemon.links.sharding`)."""

    def __init__(self, entropy: random.Random, shards: int) -> None:
        """`shards`: how many there are in all."""
        self._entropy = entropy
        self._shards = shards
        self._last = 0
        self._count = 0

    def after(self, run_id: str | None) -> None:
        """From now on every id is greater than this one."""
        if run_id is None:
            return
        milliseconds, count = _parts(run_id)
        if (milliseconds, count) > (self._last, self._count):
            self._last, self._count = milliseconds, count

    def make(self, now: Millis, shard: int) -> str:
        if now > self._last:
            self._last, self._count = now, 0
        else:
            self._count += 1
            if self._count > 0xFFF:
                self._last, self._count = self._last + 1, 0
        suffix = shard + self._shards * self._entropy.randrange(_SUFFIXES // self._shards)
        chance = self._entropy.getrandbits(62) // _SUFFIXES * _SUFFIXES + suffix
        return str(uuid_of(self._last, self._count, chance))


def _parts(run_id: str) -> tuple[Millis, int]:
    number = uuid.UUID(run_id).int
    return number >> 80, (number >> 64) & 0xFFF


def uuid_of(milliseconds: Millis, count: int, chance: int) -> uuid.UUID:
    """Version 7: 48 bits of time, 12 of counter, 62 of chance."""
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (count << 64) | (0b10 << 62) | chance)
