"""What Matching reads from the store: the tasks that wait. Of a partition, only those of its own queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daemon.links.sharding import partition_of
from daemon.stores.rows import DestinationBacklog, QueueBacklog, TaskCursor
from enginekit.messages.links import QueuedTask, QueueKey


class WaitingTasks(Protocol):
    """The part of a `Store` that Matching reads."""

    async def wait_ready(self) -> None: ...

    async def queue_backlogs(self) -> list[QueueBacklog]: ...

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]: ...

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]: ...


class PartitionTasks:
    """Those of one partition's queues. A queue of another partition is empty here."""

    def __init__(self, store: WaitingTasks, partition: int, partitions: int) -> None:
        self._store = store
        self._partition = partition
        self._partitions = partitions

    async def wait_ready(self) -> None:
        await self._store.wait_ready()

    async def queue_backlogs(self) -> list[QueueBacklog]:
        return [each for each in await self._store.queue_backlogs() if self._own(each.queue)]

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        return [each for each in await self._store.destination_backlogs(tenant) if self._own(each.queue)]

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]:
        return await self._store.waiting_tasks(queue, limit, after, without) if self._own(queue) else []

    def _own(self, queue: QueueKey) -> bool:
        return partition_of(queue, self._partitions) == self._partition
