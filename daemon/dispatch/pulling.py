"""Which queues are to be pulled from the store, and pulling them, one after the other, whenever one asks for it.

Reads only; a store that is away is waited for. Who is taken in, and what becomes of them, is Matching's.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from daemon.dispatch.pages import Pages
from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.stores.interface import StoreUnavailable
from enginekit.messages.links import QueuedTask, QueueKey, TaskRef

log = structlog.get_logger("daemon.matching")

PAUSE_SECONDS = 0.05
PAUSE_LIMIT_SECONDS = 2.0


class Pulling:
    """Begins with all queues that the store has. `queue` finds or makes one, `known` says what is in memory already,
    `admit` takes a page in as far as there is room, and says whether all of it found some."""

    def __init__(
        self,
        store: WaitingTasks,
        queue: Callable[[QueueKey], TaskQueue],
        known: Callable[[TaskRef], bool],
        admit: Callable[[TaskQueue, list[QueuedTask]], bool],
    ) -> None:
        self._store = store
        self._queue = queue
        self._known = known
        self._admit = admit
        self._pages = Pages(store)
        self._to_pull: dict[QueueKey, None] = {}
        self._everything = True
        self._wake = trio.Event()

    def over(self, ref: TaskRef) -> None:
        """A task is over: a page that is being read may still have it."""
        self._pages.over(ref)

    def everything(self) -> None:
        """Any queue may have tasks in the store that memory has not."""
        self._everything = True
        self._wake.set()

    def soon(self, key: QueueKey) -> None:
        """This queue may have tasks in the store that memory has not."""
        queue = self._queue(key)
        queue.missed = True
        if not queue.behind:
            queue.fall_behind()
        self._to_pull[key] = None
        self._wake.set()

    def if_wanted(self, queue: TaskQueue) -> None:
        if queue.wants_pull:
            self.soon(queue.key)

    async def run(self) -> None:
        """Pull what is to be pulled, until cancelled."""
        pause = PAUSE_SECONDS
        while True:
            if not self._to_pull and not self._everything:
                self._wake = trio.Event()
                await self._wake.wait()
            try:
                if self._everything:
                    await self._pull_backlogs()
                else:
                    await self._pull_queue(next(iter(self._to_pull)))
                pause = PAUSE_SECONDS
            except StoreUnavailable as error:
                if pause == PAUSE_SECONDS:
                    log.warning("the store cannot be read; queues are pulled when it is back", reason=str(error))
                await self._store.wait_ready()
                await trio.sleep(pause)
                pause = min(2 * pause, PAUSE_LIMIT_SECONDS)

    async def _pull_backlogs(self) -> None:
        self._everything = False
        try:
            backlogs = await self._store.queue_backlogs()
        except StoreUnavailable:
            self._everything = True
            raise
        for backlog in backlogs:
            self.soon(backlog.queue)
            queue = self._queue(backlog.queue)
            queue.unseen = max(backlog.depth - queue.depth - len(queue.parking), 0)

    async def _pull_queue(self, key: QueueKey) -> None:
        """Fill one queue from its first task on. What memory knows already is passed over."""
        queue = self._queue(key)
        del self._to_pull[key]
        queue.pulling, queue.missed = True, False
        queue.parking.begin_pull()
        complete = False
        try:
            complete = await self._pages.fill(queue, self._known, lambda tasks: self._admit(queue, tasks))
        except StoreUnavailable:
            self._to_pull[key] = None
            raise
        finally:
            queue.pulling = False
            queue.parking.end_pull(complete)
        if complete and not queue.missed:
            queue.catch_up()
        else:
            queue.fall_behind()
            self.if_wanted(queue)
