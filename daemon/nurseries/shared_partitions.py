"""All partitions of queues that are shared: each process with the role matching serves every one of them, so that
nobody has to know who is there, and one that dies leaves no partition without somebody."""

from __future__ import annotations

import dataclasses

import trio

from daemon.clock import Clock
from daemon.dispatch.waiting_tasks import PartitionTasks, WaitingTasks
from daemon.links.exchange import Exchange
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.nurseries.shared_matching import SharedMatching
from daemon.queues.interface import Places, TaskQueues
from daemon.settings import Settings


class SharedPartitions:
    """One run of the service. `links` are those into the other services; a partition's own inbox is the exchange's.
    `member` is its name among those that share the queues, a new one for each run."""

    def __init__(
        self,
        links: Links,
        exchange: Exchange,
        store: WaitingTasks,
        queues: TaskQueues,
        settings: Settings,
        clock: Clock,
        member: str,
        metrics: Metrics | None = None,
    ) -> None:
        partitions = settings.matching.partitions
        self._parts = [
            SharedMatching(
                dataclasses.replace(links, matching=exchange.matching(partition)),
                PartitionTasks(store, partition, partitions),
                queues.partition(partition),
                settings.matching,
                settings.breakers,
                settings.queues.queue_tasks,
                clock,
                member,
                metrics,
            )
            for partition in range(partitions)
        ]
        self._queues = queues
        self._serving = trio.CancelScope()
        self._left = trio.Event()

    @property
    def partitions(self) -> list[int]:
        """All of them, as everybody has."""
        return list(range(len(self._parts)))

    def lacks(self) -> str | None:
        """What it needs for its work."""
        return None if self._queues.ready else "its queues cannot be reached"

    def places(self) -> dict[int, Places]:
        """Where the tasks of each are, over all who share them, as far as that is known right now."""
        if not self._queues.ready:
            return {}
        return {number: part.places for number, part in enumerate(self._parts) if part.places is not None}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        with self._serving:
            async with trio.open_nursery() as nursery:
                for part in self._parts:
                    await nursery.start(part.run)
                task_status.started()
        self._left.set()
        await trio.sleep_forever()

    async def drain(self) -> None:
        """Leave it to the others."""
        self._serving.cancel()
        await self._left.wait()
