"""Queues that Matchings of several processes share, as a supervised service: they are run, and told whose they are."""

from __future__ import annotations

import trio

from daemon.nurseries.post import cluster_of
from daemon.queues.interface import TaskQueues
from daemon.stores.interface import Store


class Queues:
    """One run of them. `store` is this process's."""

    def __init__(self, queues: TaskQueues, store: Store) -> None:
        self._queues = queues
        self._store = store

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises ServerUnusable."""
        self._queues.belongs_to(await cluster_of(self._store))
        await self._queues.run(task_status=task_status)
