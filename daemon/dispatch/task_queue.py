"""One task queue in memory: its tasks in their order, bounded, and who waits for them.

Pure data structures: no I/O, no clock (the time is passed in), no links. Who gets a task is decided in Matching.

A queue holds at most `limit` tasks; the store holds all of them. Once an offer found no room the queue is *behind*:
the store has tasks that memory has not. From then on an offer is taken in only if it comes before what is in memory
(the *horizon*), everything else is left to the store, so that newcomers cannot for ever overtake what waits there; and
when half of the places are free, the queue is pulled from the store, from its first task on. So the order of a queue
is exact inside memory and approximate across the boundary (a task of high priority that finds every place taken is
seen at the next pull, half a queue later), and no task waits for ever.
"""

from __future__ import annotations

import heapq
from collections import deque
from enum import Enum
from typing import TypeAlias

from daemon.links.interface import Request
from enginekit.messages.json import size
from enginekit.messages.links import Millis, QueuedTask, QueueKey, TaskKind, TaskRef, TaskSpec

Rank: TypeAlias = tuple[int, Millis]
"""-priority and scheduled_at: smaller goes first."""

SPEC_OVERHEAD_BYTES = 1024
"""What a spec takes in memory beside its input, roughly."""


class Whereabouts(Enum):
    """Where a task that Matching knows is."""

    QUEUED = "queued"
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


class Poller:
    """A MatchTasks request that waits for a task until `deadline` (`trio.current_time()`)."""

    __slots__ = ("deadline", "ended", "max_tasks", "queue", "request")

    def __init__(self, request: Request, queue: QueueKey, max_tasks: int, deadline: float) -> None:
        self.request = request
        self.queue = queue
        self.max_tasks = max_tasks
        self.deadline = deadline
        self.ended = False


class Rate:
    """Events a second over the last ten seconds."""

    SECONDS = 10

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()

    def count(self, now: float, events: int = 1) -> None:
        second = int(now)
        if self._counts and self._counts[-1][0] == second:
            events += self._counts.pop()[1]
        self._counts.append((second, events))
        self._forget(second)

    def per_second(self, now: float) -> float:
        self._forget(int(now))
        return sum(events for _, events in self._counts) / self.SECONDS

    def _forget(self, second: int) -> None:
        while self._counts and self._counts[0][0] <= second - self.SECONDS:
            self._counts.popleft()


class TaskQueue:
    """One queue: its tasks in memory, what is known of its tasks in the store, and who waits for them."""

    def __init__(self, key: QueueKey, limit: int) -> None:
        self.key = key
        self.pollers: deque[Poller] = deque()
        self.dispatched = 0
        self.rate = Rate()
        self.behind = False
        self.pulling = False
        self.missed = False
        """An offer was turned away since the pull under way began: it does not make the queue complete."""
        self.unseen = 0
        """About how many tasks wait in the store and not here."""
        self._limit = limit
        self._horizon: Rank | None = None
        self._heap: list[tuple[Rank, int, Entry]] = []
        self._depth = 0

    # --- tasks -------------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Tasks that wait in memory."""
        return self._depth

    @property
    def room(self) -> int:
        return max(self._limit - self._depth, 0)

    @property
    def wants_pull(self) -> bool:
        """Whether the store has tasks that memory has room for."""
        return self.behind and not self.pulling and self._depth * 2 < self._limit

    def admits(self, task: QueuedTask) -> bool:
        """Whether an offer is taken in. One that is not has to be turned away with `turn_away`."""
        if self._depth >= self._limit:
            return False
        return not self.behind or self.pulling or (self._horizon is not None and rank_of(task) < self._horizon)

    def turn_away(self) -> None:
        """An offer is left to the store."""
        self.missed = True
        self.unseen += 1
        if not self.behind:
            self.fall_behind()

    def fall_behind(self) -> None:
        """From now on the store may have tasks that memory has not."""
        self.behind = True
        self._horizon = max(
            (entry.rank for _, _, entry in self._heap if entry.where is Whereabouts.QUEUED), default=None
        )

    def catch_up(self) -> None:
        """Memory has every task that the store has."""
        self.behind = False
        self.unseen = 0
        self._horizon = None

    def add(self, entry: Entry, now: float) -> None:
        """Queue a task, or queue it again: at the place that its priority, age and first arrival give it."""
        entry.move(Whereabouts.QUEUED, now)
        heapq.heappush(self._heap, (entry.rank, entry.arrival, entry))
        self._depth += 1

    def take(self) -> Entry | None:
        """The next task, which is no longer queued: the caller says where it goes."""
        heap = self._heap
        while heap:
            entry = heapq.heappop(heap)[2]
            if entry.where is Whereabouts.QUEUED:
                self._depth -= 1
                return entry
        return None

    def remove(self, entry: Entry) -> None:
        """A queued task is over. Its place in the heap is given up when it comes to the front or the dead prevail."""
        entry.where = Whereabouts.GONE
        self._depth -= 1
        if len(self._heap) > 2 * self._depth + 16:
            self._heap = [item for item in self._heap if item[2].where is Whereabouts.QUEUED]
            heapq.heapify(self._heap)

    def oldest(self) -> Millis | None:
        """When the task that has waited longest in memory was scheduled."""
        return min(
            (entry.task.scheduled_at for _, _, entry in self._heap if entry.where is Whereabouts.QUEUED), default=None
        )

    # --- pollers -----------------------------------------------------------------------------------------------------

    def next_poller(self) -> Poller | None:
        """Who has waited longest and still does."""
        while self.pollers:
            poller = self.pollers.popleft()
            if not poller.ended:
                poller.ended = True
                if poller.request.awaited:
                    return poller
        return None

    def trim_pollers(self) -> None:
        """Let go of those at the front who wait no more."""
        while self.pollers and self.pollers[0].ended:
            self.pollers.popleft()

    def drop_ended_pollers(self) -> None:
        """Let go of all who wait no more, also of those whose caller has gone away."""
        for poller in self.pollers:
            poller.ended = poller.ended or not poller.request.awaited
        self.pollers = deque(poller for poller in self.pollers if not poller.ended)

    @property
    def idle(self) -> bool:
        """Whether forgetting this queue would lose nothing but its counts."""
        return not self._depth and not self.pollers and not self.behind and not self.pulling

    @property
    def is_node(self) -> bool:
        return self.key.kind is TaskKind.NODE


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
