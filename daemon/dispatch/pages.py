"""Filling a queue from the store, page by page, while its tasks come and go.

Reads only. When a queue is to be filled, and what happens when the store is away, is said in `pulling.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.stores.rows import TaskCursor
from enginekit.messages.links import QueuedTask, TaskRef

PAGE_TASKS = 500
"""Tasks read from the store at once."""


class Pages:
    """Reads queues of one store, one at a time."""

    def __init__(self, store: WaitingTasks) -> None:
        self._store = store
        self._over: set[TaskRef] | None = None

    def over(self, ref: TaskRef) -> None:
        """A task is over, or no longer waiting.

        It was removed from the store before anybody said so: a page whose reading began after that does not have it,
        one that is being read now may.
        """
        if self._over is not None:
            self._over.add(ref)

    async def fill(
        self, queue: TaskQueue, known: Callable[[TaskRef], bool], admit: Callable[[list[QueuedTask]], bool]
    ) -> bool:
        """Read the queue from its first task on and have those that are not `known` admitted, until `admit` says that
        not all of them found room. Destinations that have enough tasks parked in memory are passed over.

        Whether the end of the queue was reached. Raises StoreUnavailable.
        """
        after: TaskCursor | None = None
        while queue.room:
            self._over = set()
            try:
                page = await self._store.waiting_tasks(queue.key, PAGE_TASKS, after, queue.parking.passed_over())
                wanted = [task for task in page if task.task not in self._over and not known(task.task)]
            finally:
                self._over = None
            if not admit(wanted):
                return False
            if len(page) < PAGE_TASKS:
                return True
            after = cursor_behind(page[-1])
        return False


def cursor_behind(task: QueuedTask) -> TaskCursor:
    return TaskCursor(
        priority=task.priority,
        scheduled_at=task.scheduled_at,
        run_id=task.task.run.run_id,
        event_id=task.task.event_id,
    )
