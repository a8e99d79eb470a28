"""Waiting tasks in the memory store, in the order of their queues."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

from daemon.stores.rows import DestinationBacklog, QueueBacklog, TaskCursor
from enginekit.messages.links import Millis, QueuedTask, QueueKey

_Place: TypeAlias = tuple[int, Millis, str, int]
"""Where a task stands in its queue: -priority, scheduled_at, run_id, event_id."""


class MemoryTasks:
    """Those that wait to be started; a run's other tasks are its own rows alone."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, list[_Place]] = {}
        self._tasks: dict[tuple[str, int], QueuedTask] = {}

    def add(self, task: QueuedTask) -> None:
        place = _place(task)
        insort(self._queues.setdefault(task.queue, []), place)
        self._tasks[place[2:]] = task

    def remove(self, task: QueuedTask) -> None:
        """Leaves a task alone that does not wait."""
        place = _place(task)
        if self._tasks.pop(place[2:], None) is None:
            return
        places = self._queues[task.queue]
        del places[bisect_left(places, place)]
        if not places:
            del self._queues[task.queue]

    def backlogs(self) -> list[QueueBacklog]:
        queues = sorted(self._queues, key=lambda queue: (queue.tenant, queue.kind.value, queue.name))
        return [
            QueueBacklog(queue=queue, depth=len(places), oldest=min(place[1] for place in places))
            for queue, places in ((queue, self._queues[queue]) for queue in queues)
        ]

    def destinations(self, tenant: str) -> list[DestinationBacklog]:
        found: list[DestinationBacklog] = []
        for queue in sorted(self._queues, key=lambda queue: (queue.kind.value, queue.name)):
            if queue.tenant == tenant:
                counts = Counter(self._tasks[place[2:]].destination for place in self._queues[queue])
                found += [
                    DestinationBacklog(queue=queue, destination=destination, depth=depth)
                    for destination, depth in sorted(counts.items(), key=lambda item: (item[0] is not None, item[0]))
                ]
        return found

    def page(self, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]) -> list[QueuedTask]:
        places = self._queues.get(queue, [])
        start = 0
        if after is not None:
            start = bisect_right(places, (-after.priority, after.scheduled_at, after.run_id, after.event_id))
        passed_over = set(without)
        page: list[QueuedTask] = []
        for index in range(start, len(places)):
            if len(page) == limit:
                break
            task = self._tasks[places[index][2:]]
            if task.destination not in passed_over:
                page.append(task)
        return page


def _place(task: QueuedTask) -> _Place:
    return (-task.priority, task.scheduled_at, task.task.run.run_id, task.task.event_id)
