"""Filling the queues that Matchings share from the store: those that had no room before, and those of which the store
has more than they, because offers were lost or Redis was emptied.

Reads the store; a store that is away is waited for. A task that is over by the time that its page is offered is
refused by History when it is handed out, and dropped then.
"""

from __future__ import annotations

import structlog
import trio

from daemon.dispatch.pages import PAGE_TASKS, cursor_behind
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.queues.interface import Ask, PartitionQueues
from daemon.stores.interface import StoreUnavailable
from daemon.stores.rows import TaskCursor
from enginekit.messages.links import QueueKey

log = structlog.get_logger("daemon.matching")

PAUSE_SECONDS = 0.05
PAUSE_LIMIT_SECONDS = 2.0


class Filling:
    """Of one partition. `queue_tasks`: how many one queue may have."""

    def __init__(self, store: WaitingTasks, queues: PartitionQueues, queue_tasks: int) -> None:
        self._store = store
        self._queues = queues
        self._queue_tasks = queue_tasks
        self._to_fill: dict[QueueKey, None] = {}
        self._to_compare = False
        self._wake = trio.Event()

    def soon(self, key: QueueKey) -> None:
        """The store has tasks that this queue may have room for."""
        self._to_fill[key] = None
        self._wake.set()

    def compare(self) -> None:
        """Any queue may lack what the store has."""
        self._to_compare = True
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = PAUSE_SECONDS
        while True:
            if not self._to_fill and not self._to_compare:
                self._wake = trio.Event()
                await self._wake.wait()
            try:
                if self._to_compare:
                    await self._compare()
                else:
                    await self._fill(next(iter(self._to_fill)))
                pause = PAUSE_SECONDS
            except StoreUnavailable as error:
                if pause == PAUSE_SECONDS:
                    log.warning("the store cannot be read; queues are filled when it is back", reason=str(error))
                await self._store.wait_ready()
                await trio.sleep(pause)
                pause = min(2 * pause, PAUSE_LIMIT_SECONDS)

    async def _compare(self) -> None:
        # What comes or goes between two looks is seen by one of them.
        before = await self._depths()
        backlogs = await self._store.queue_backlogs()
        self._to_compare = False
        after = await self._depths()
        for backlog in backlogs:
            has = max(before.get(backlog.queue, 0), after.get(backlog.queue, 0))
            if backlog.depth > has and has * 2 < self._queue_tasks:
                self.soon(backlog.queue)

    async def _depths(self) -> dict[QueueKey, int]:
        return {each.queue: each.depth for each in await self._queues.depths()}

    async def _fill(self, key: QueueKey) -> None:
        """From the queue's first task on, until all of them have been offered or there is no more room."""
        await self._queues.turn(Ask(fills=[key]))
        after: TaskCursor | None = None
        offered = 0
        while True:
            page = await self._store.waiting_tasks(key, PAGE_TASKS, after)
            told = await self._queues.turn(Ask(brought=page)) if page else None
            offered += len(page)
            if len(page) < PAGE_TASKS or told is None or key in told.turned_away:
                break
            after = cursor_behind(page[-1])
        self._to_fill.pop(key, None)
        await self._queues.turn(Ask(filled=[key]))
        log.info("queue filled from the store", tenant=key.tenant, queue=key.name, offered=offered)
