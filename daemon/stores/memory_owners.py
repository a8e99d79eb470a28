"""The memory store's shards and their owners: what several daemons over one store do to one another.

Leases go by Trio's clock, so that a mock clock decides when one lapses.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from daemon.stores.rows import Attendance, ShardPlace


class MemoryOwners:
    """Epochs from 0: a shard that nobody has ever had cannot be written to."""

    def __init__(self, shards: int) -> None:
        self.epochs = [0] * shards
        self._owners: list[str | None] = [None] * shards
        self._leases: dict[str, float] = {}

    def take_all(self) -> dict[int, int]:
        self.epochs = [epoch + 1 for epoch in self.epochs]
        return dict(enumerate(self.epochs))

    def attend(self, owner: str, lease_seconds: float) -> Attendance:
        self._leases[owner] = trio.current_time() + lease_seconds
        return Attendance(
            members=sorted(name for name in self._leases if self._attends(name)),
            shards=[
                ShardPlace(shard=shard, epoch=epoch, owner=self._owner(shard))
                for shard, epoch in enumerate(self.epochs)
            ],
        )

    def claim(self, owner: str, shards: Sequence[int]) -> dict[int, int]:
        """The epochs of those that were to be had."""
        claimed: dict[int, int] = {}
        if self._attends(owner):
            for shard in shards:
                if self._owner(shard) is None:
                    self.epochs[shard] += 1
                    self._owners[shard] = owner
                    claimed[shard] = self.epochs[shard]
        return claimed

    def release(self, owner: str, epochs: dict[int, int]) -> None:
        for shard, epoch in epochs.items():
            if self._owners[shard] == owner and self.epochs[shard] == epoch:
                self._owners[shard] = None

    def leave(self, owner: str) -> None:
        self._leases.pop(owner, None)

    def _attends(self, owner: str) -> bool:
        return self._leases.get(owner, 0.0) > trio.current_time()

    def _owner(self, shard: int) -> str | None:
        owner = self._owners[shard]
        return owner if owner is not None and self._attends(owner) else None
