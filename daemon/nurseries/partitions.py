"""Matching in partitions: where several processes share the work, each has some of the parts that the task queues are
split into, and every part is a Matching.

Who has which follows from who is there (`dispatch/membership.py`, `links.sharding.owner_of`). Two who have one for a
moment share its inbox out between them, and History refuses what is started twice; whoever gives it up, or has just
taken it, has it look into the store for what the other one received last. A partition whose owner is gone moves when
its lease has lapsed, with what waits in its inbox; all else is in the store. Every so often all that waits there is
counted, for the exchange may lose what it carried.
"""

from __future__ import annotations

import dataclasses
import math

import structlog
import trio

from daemon.clock import Clock
from daemon.dispatch.membership import Membership, MembershipUnavailable
from daemon.dispatch.waiting_tasks import PartitionTasks, WaitingTasks
from daemon.links.exchange import Exchange
from daemon.links.sharding import owner_of, partition_of
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.nurseries.matching import Matching
from daemon.queues.interface import Places
from daemon.settings import BreakerSettings, MatchingSettings
from daemon.stores.interface import StoreUnavailable
from enginekit.messages.links import RefillQueues

log = structlog.get_logger("daemon.matching")

ATTEND_SECONDS = 1.0
"""How often a member attends at most; so long may it take until it notices that a partition is to be its own."""
ATTENDS_A_LEASE = 4
"""How often within one lease at least."""
LEAVE_SECONDS = 2.0


class _Held:
    """A partition that is ours: its Matching, the scope that this runs in, and its end."""

    def __init__(self, matching: Matching) -> None:
        self.matching = matching
        self.scope = trio.CancelScope()
        self.ended = trio.Event()


class PartitionedMatching:
    """One run of the service. `links` are those into the other services; a partition's own inbox is the exchange's.
    `member` is its name among those that share the work, a new one for each run."""

    def __init__(
        self,
        links: Links,
        exchange: Exchange,
        store: WaitingTasks,
        settings: MatchingSettings,
        breakers: BreakerSettings,
        clock: Clock,
        membership: Membership,
        member: str,
        metrics: Metrics | None = None,
    ) -> None:
        self._links = links
        self._exchange = exchange
        self._store = store
        self._settings = settings
        self._breakers = breakers
        self._clock = clock
        self._membership = membership
        self._member = member
        self._metrics = metrics
        self._held: dict[int, _Held] = {}
        self._others = False
        self._pause = min(ATTEND_SECONDS, settings.lease_seconds / ATTENDS_A_LEASE)
        self._leaving = False
        self._left = trio.Event()
        self._attended_until = -math.inf

    def lacks(self) -> str | None:
        """What it needs before it can answer for what is its. One without a partition lacks nothing: others have them
        all, and it is there to take theirs."""
        if trio.current_time() >= self._attended_until:
            return "its lease has lapsed, and the store has not renewed it"
        return None

    @property
    def partitions(self) -> list[int]:
        """Those it has right now."""
        return sorted(self._held)

    def places(self) -> dict[int, Places]:
        """Where the tasks of each are."""
        return {partition: held.matching.places for partition, held in self._held.items()}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have partitions until cancelled. Reports started when it has what is its own. While it cannot be told who is
        there, it keeps what it has."""
        started = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._scan)
                while not self._leaving:
                    asked_at = trio.current_time()
                    try:
                        members = await self._membership.attend(self._member, self._settings.lease_seconds)
                    except MembershipUnavailable as unavailable:
                        log.warning("who shares the task queues cannot be told", why=str(unavailable))
                    else:
                        self._attended_until = asked_at + self._settings.lease_seconds
                        await self._arrange(members, nursery)
                        if not started:
                            started = True
                            task_status.started()
                    await trio.sleep(self._pause)
                await self._leave()
                if self._others:
                    # Whoever takes over notices by then. It is served meanwhile.
                    await trio.sleep(self._pause)
                for partition in self.partitions:
                    await self._give_up(partition)
                self._left.set()
                await trio.sleep_forever()
        finally:
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                await self._leave()

    async def drain(self) -> None:
        """Leave the partitions to the others."""
        self._leaving = True
        await self._left.wait()

    async def _leave(self) -> None:
        try:
            await self._membership.leave(self._member)
        except MembershipUnavailable:
            log.info("the lease on the task queues lapses by itself", member=self._member)

    async def _arrange(self, members: list[str], nursery: trio.Nursery) -> None:
        self._others = len(members) > 1
        partitions = range(self._settings.partitions)
        own = {partition for partition in partitions if owner_of(partition, members) == self._member}
        if own != set(self._held):
            log.info("partitions of the task queues", partitions=sorted(own), members=len(members))
        for partition in self.partitions:
            if partition not in own:
                await self._give_up(partition)
        for partition in sorted(own.difference(self._held)):
            await nursery.start(self._have, partition)

    async def _give_up(self, partition: int) -> None:
        held = self._held.pop(partition)
        held.scope.cancel()
        await held.ended.wait()
        self._look(partition)

    async def _have(self, partition: int, *, task_status: trio.TaskStatus[None]) -> None:
        matching = Matching(
            dataclasses.replace(self._links, matching=self._exchange.matching(partition)),
            PartitionTasks(self._store, partition, self._settings.partitions),
            self._settings,
            self._breakers,
            self._clock,
            self._metrics,
        )
        held = self._held[partition] = _Held(matching)
        try:
            with held.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(matching.run)
                    task_status.started()
                    await trio.sleep(self._settings.lease_seconds)
                    self._look(partition)
        finally:
            held.ended.set()

    async def _scan(self) -> None:
        """An exchange may be emptied, and nobody says what was in it."""
        while True:
            await trio.sleep(self._settings.scan_seconds)
            try:
                backlogs = await self._store.queue_backlogs()
            except StoreUnavailable:
                await self._store.wait_ready()
                continue
            for partition, held in self._held.items():
                held.matching.compare(
                    each for each in backlogs if partition_of(each.queue, self._settings.partitions) == partition
                )

    def _look(self, partition: int) -> None:
        """Have whoever has it now look into the store: the other one may have received what is lost with it."""
        self._exchange.matching(partition).offer(RefillQueues())
