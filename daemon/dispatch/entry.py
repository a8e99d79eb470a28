"""A task that Matching knows: where it is, its rank, and the two orders in which such tasks are kept.

Pure: no I/O, no clock (the time is passed in). Which tasks are known, and what happens to them, is not said here.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TypeAlias

from enginekit.messages.json import size
from enginekit.messages.links import Millis, QueuedTask, TaskRef, TaskSpec

Rank: TypeAlias = tuple[int, Millis]
"""-priority and scheduled_at: smaller goes first."""

SPEC_OVERHEAD_BYTES = 1024
"""What a spec takes in memory beside its input, roughly."""


class Whereabouts(Enum):
    """Where a task that Matching knows is."""

    QUEUED = "queued"
    PARKED = "parked"
    """It waits in its queue, and for the circuit breaker of its destination."""
    RUNNING = "running"
    """The daemon's Worker has it."""
    FINISHED = "finished"
    """The Worker is done with it; History has not yet said so."""
    CANCELED = "canceled"
    """It is over, but the Worker was still running it and has a slot taken by it."""
    GIVEN = "given"
    """Handed to a poller whose start is not yet recorded."""
    GONE = "gone"


class Entry:
    """A task that Matching knows. `since` is when it came where it is, in `trio.current_time()`."""

    __slots__ = ("arrival", "rank", "since", "spec", "task", "where")

    def __init__(self, task: QueuedTask, spec: TaskSpec | None, arrival: int) -> None:
        self.task = task
        self.spec = spec
        self.rank: Rank = rank_of(task)
        self.arrival = arrival
        self.where = Whereabouts.QUEUED
        self.since = 0.0

    @property
    def ref(self) -> TaskRef:
        return self.task.task

    def move(self, where: Whereabouts, now: float) -> None:
        self.where = where
        self.since = now


def rank_of(task: QueuedTask) -> Rank:
    return (-task.priority, task.scheduled_at)


def spec_bytes(spec: TaskSpec) -> int:
    """What a spec takes in memory, roughly."""
    return size(spec.input) + SPEC_OVERHEAD_BYTES


class Ranked:
    """Tasks that are at one place, by their priority, age and first arrival. `where` is that place."""

    __slots__ = ("_heap", "_length", "_where")

    def __init__(self, where: Whereabouts) -> None:
        self._where = where
        self._heap: list[tuple[Rank, int, Entry]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, entry: Entry, now: float) -> None:
        entry.move(self._where, now)
        heapq.heappush(self._heap, (entry.rank, entry.arrival, entry))
        self._length += 1

    def take(self) -> Entry | None:
        """The first, which is no longer here: the caller says where it goes."""
        heap = self._heap
        while heap:
            entry = heapq.heappop(heap)[2]
            if entry.where is self._where:
                self._length -= 1
                return entry
        return None

    def remove(self, entry: Entry) -> None:
        """One of these is over. Its place in the heap is given up when it comes to the front or the dead prevail."""
        entry.where = Whereabouts.GONE
        self._length -= 1
        if len(self._heap) > 2 * self._length + 16:
            self._heap = [item for item in self._heap if item[2].where is self._where]
            heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Entry]:
        """All of them, in no order."""
        return (entry for _, _, entry in self._heap if entry.where is self._where)

    def last_rank(self) -> Rank | None:
        return max((entry.rank for entry in self), default=None)

    def oldest(self) -> Millis | None:
        """When the task that has waited longest was scheduled."""
        return min((entry.task.scheduled_at for entry in self), default=None)


class Overdue:
    """Tasks that came somewhere, in the order in which they came, and should not stay there longer than `seconds`."""

    def __init__(self, where: Whereabouts, seconds: float) -> None:
        self._where = where
        self._seconds = seconds
        self._entries: deque[tuple[float, Entry]] = deque()

    def watch(self, entry: Entry) -> None:
        """It has just come there."""
        self._entries.append((entry.since, entry))

    def next_at(self) -> float | None:
        """When the first of those that are still there will have stayed too long."""
        self._drop_moved()
        return self._entries[0][0] + self._seconds if self._entries else None

    def take(self, now: float) -> list[Entry]:
        """Those that have stayed too long; they are watched no more."""
        taken: list[Entry] = []
        while (at := self.next_at()) is not None and at <= now:
            taken.append(self._entries.popleft()[1])
        return taken

    def _drop_moved(self) -> None:
        while self._entries:
            since, entry = self._entries[0]
            if entry.where is self._where and entry.since == since:
                return
            self._entries.popleft()
