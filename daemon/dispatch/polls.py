"""Who waits for a task of a queue, and until when.

Pure: the time is passed in, nobody is answered here.
"""

from __future__ import annotations

import heapq
from typing import Generic, Protocol, TypeVar

from daemon.links.interface import Request
from enginekit.messages.links import QueueKey


class Poller:
    """A MatchTasks request that waits for a task until `deadline` (`trio.current_time()`)."""

    __slots__ = ("deadline", "ended", "max_tasks", "queue", "request")

    def __init__(self, request: Request, queue: QueueKey, max_tasks: int, deadline: float) -> None:
        self.request = request
        self.queue = queue
        self.max_tasks = max_tasks
        self.deadline = deadline
        self.ended = False


class Waiting(Protocol):
    """Somebody who waits until `deadline`, or has `ended` before."""

    deadline: float
    ended: bool


W = TypeVar("W", bound=Waiting)


class Deadlines(Generic[W]):
    """The pollers of all queues, by when they wait no more."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, W]] = []
        self._added = 0
        self._limit = 64

    def add(self, poller: W) -> None:
        if len(self._heap) >= self._limit:
            self._heap = [item for item in self._heap if not item[2].ended]
            heapq.heapify(self._heap)
            self._limit = 2 * len(self._heap) + 64
        self._added += 1
        heapq.heappush(self._heap, (poller.deadline, self._added, poller))

    def next_at(self) -> float | None:
        """When the first of those that still wait will wait no more."""
        while self._heap and self._heap[0][2].ended:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> W | None:
        """One whose time is up; it is not told of again."""
        at = self.next_at()
        return heapq.heappop(self._heap)[2] if at is not None and at <= now else None
