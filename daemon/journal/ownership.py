"""Which shards this daemon has, where several share a store: attending, claiming, giving up.

Each owner attends: its lease is renewed, and it learns who else is there and who has what. Who is to have which shard
follows from that alone (rendezvous hashing: Thaler and Ravishankar, 1998), so that owners agree without talking, and
one who comes or goes moves no more shards than it must. A shard that is to be somebody else's is given up when all that
was decided about it is on disk; one that is to be ours is claimed once nobody has it.

What a shard's session does is not known here, nor how the store settles who was first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
import trio

from daemon.journal.lease import Lease
from daemon.links.sharding import owner_of
from daemon.stores.interface import Store, StoreUnavailable, StoreUnusable
from daemon.stores.rows import Attendance, ShardEpochs

log = structlog.get_logger("history")

KIND = "history/"
"""What owners are called in the store, before their names: other services have members there, too."""
ATTEND_SECONDS = 1.0
"""How often an owner attends at most; so long may a shard that was given up wait to be claimed."""
ATTENDS_A_LEASE = 4
"""How often within one lease at least."""
FLUSH_SECONDS = 2.0
"""How long what was decided about a shard may take to be on disk before it is given up all the same."""
LEAVE_SECONDS = 2.0
RETRY_SECONDS = 0.2
PATIENCE_LEASES = 3.0
"""How many leases' time another daemon's may last before a daemon that has to be alone gives up: one that was killed
is gone by then."""


class Holding(Protocol):
    """A session over some shards, from its claim to its end."""

    @property
    def epochs(self) -> dict[int, int]: ...

    @property
    def ended(self) -> bool:
        """It has ended by itself: the store was lost, or a shard was."""

    async def flush(self) -> None:
        """Until everything that was decided is on disk."""

    async def end(self) -> None:
        """End it: when this returns, it does nothing more."""


class Ownership:
    """Of one owner. `hold` begins a session over shards that were claimed; `lease` is what sessions ask whether they
    may still say what is so. With `alone` nobody else may attend, and all shards are held together."""

    def __init__(
        self,
        store: Store,
        owner: str,
        lease_seconds: float,
        lease: Lease,
        hold: Callable[[ShardEpochs], Holding],
        *,
        alone: bool,
    ) -> None:
        self._store = store
        self._owner = KIND + owner
        self._lease_seconds = lease_seconds
        self._lease = lease
        self._hold = hold
        self._alone = alone
        self._holdings: list[Holding] = []
        self._wake = trio.Event()
        self._leaving = False
        self._left = trio.Event()
        self._waits_since: float | None = None

    def look(self) -> None:
        """A holding has ended."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Attend until cancelled, or all is given up. Reports started when what was to be had is held. Cancelled: what
        it has is given up too, in a bounded time; the holdings end with whoever runs them.

        Raises StoreUnusable where it has to be alone and is not.
        """
        started = False
        try:
            while True:
                await self._store.wait_ready()
                pause = min(ATTEND_SECONDS, self._lease_seconds / ATTENDS_A_LEASE)
                try:
                    asked_at = self._lease.asked()
                    there = await self._store.attend(self._owner, self._lease_seconds)
                    self._lease.renewed(asked_at, self._lease_seconds)
                    await self._arrange(there)
                except StoreUnavailable as lost:
                    log.warning("the store cannot be asked for shards", why=str(lost))
                    pause = min(pause, RETRY_SECONDS)
                else:
                    if not started and self._waits_since is None:
                        started = True
                        task_status.started()
                if self._leaving and not self._holdings:
                    return
                with trio.move_on_after(pause):
                    await self._wake.wait()
                self._wake = trio.Event()
        finally:
            self._lease.end()
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await self._leave()
            self._left.set()

    async def leave(self) -> None:
        """Give up everything, once it is on disk: whoever remains may have it at once."""
        self._leaving = True
        self._wake.set()
        await self._left.wait()

    async def _leave(self) -> None:
        try:
            await self._store.leave(self._owner)
        except StoreUnavailable:
            log.info("the store is gone; the lease lapses by itself", owner=self._owner)

    # --- one look ---------------------------------------------------------------------------------------------------

    async def _arrange(self, there: Attendance) -> None:
        """Have what is to be ours, and nothing else."""
        places = {place.shard: place for place in there.shards}
        wanted = self._wanted(there)
        give_up: dict[int, int] = {}
        async with trio.open_nursery() as nursery:
            for holding in list(self._holdings):
                epochs = holding.epochs
                ours = all(
                    (places[shard].owner, places[shard].epoch) == (self._owner, epoch)
                    for shard, epoch in epochs.items()
                )
                if ours and not holding.ended and wanted.issuperset(epochs):
                    continue
                # All at once: the lease is not renewed meanwhile.
                nursery.start_soon(self._end, holding, ours)
                give_up.update(epochs)
        # Also of sessions that ended by themselves: what they were writing may still come, and must find a newer epoch.
        left_over = {
            place.shard: place.epoch
            for place in there.shards
            if place.owner == self._owner and not any(place.shard in holding.epochs for holding in self._holdings)
        }
        give_up = {shard: epoch for shard, epoch in give_up.items() if shard not in left_over} | left_over
        if give_up:
            await self._store.release_shards(self._owner, give_up)
        to_claim = [
            shard
            for shard in sorted(wanted)
            if (places[shard].owner is None or shard in give_up)
            and not any(shard in holding.epochs for holding in self._holdings)
        ]
        if to_claim:
            await self._claim(to_claim, len(places))

    async def _end(self, holding: Holding, ours: bool) -> None:
        if ours and not holding.ended:
            with trio.move_on_after(FLUSH_SECONDS):
                await holding.flush()
        await holding.end()
        self._holdings.remove(holding)
        log.info("shards given up" if ours else "shards lost to another owner", shards=sorted(holding.epochs))

    async def _claim(self, shards: Sequence[int], total: int) -> None:
        claimed = await self._store.claim_shards(self._owner, shards)
        if not claimed.epochs:
            return
        if not self._alone:
            for shard, epoch in claimed.epochs.items():
                self._holdings.append(self._hold(_one(claimed, shard, epoch)))
        elif len(claimed.epochs) == total:
            self._holdings.append(self._hold(claimed))
        else:
            await self._store.release_shards(self._owner, claimed.epochs)
            return
        log.info("shards claimed", epochs=claimed.epochs)

    def _wanted(self, there: Attendance) -> set[int]:
        """What is to be ours. Raises StoreUnusable."""
        if self._leaving:
            return set()
        shards = [place.shard for place in there.shards]
        members = [name for name in there.members if name.startswith(KIND)]
        if not self._alone:
            return {shard for shard in shards if owner_of(shard, members) == self._owner}
        others = [name for name in members if name != self._owner]
        if not others:
            self._waits_since = None
            return set(shards)
        now = trio.current_time()
        if self._waits_since is None:
            self._waits_since = now
            log.warning("another daemon has this store; waiting for its lease to lapse", owners=others)
        elif now - self._waits_since > PATIENCE_LEASES * self._lease_seconds:
            raise StoreUnusable(
                f"another daemon has this store ({', '.join(others)}), and this one's services are linked in memory: "
                'stop it, or let them share the work with [links] url = "redis://..."'
            )
        return set()


def _one(claimed: ShardEpochs, shard: int, epoch: int) -> ShardEpochs:
    return ShardEpochs(epochs={shard: epoch}, token_key=claimed.token_key, newest_run_id=claimed.newest_run_id)
