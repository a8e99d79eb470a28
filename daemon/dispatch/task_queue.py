"""One task queue in memory: its tasks in their order, bounded, and who waits for them.

Pure data structures: no I/O, no clock (the time is passed in), no links. Who gets a task is decided in Matching.

A queue holds at most `limit` tasks; the store holds all of them. Once an offer found no room the queue is *behind*:
the store has tasks that memory has not. From then on an offer is taken in only if it comes before what is in memory
(the *horizon*), everything else is left to the store, so that newcomers cannot for ever overtake what waits there; and
when half of the places are free, the queue is pulled from the store, from its first task on. So the order of a queue
is exact inside memory and approximate across the boundary (a task of high priority that finds every place taken is
seen at the next pull, half a queue later), and no task waits for ever.

Tasks whose destination is not to be called now are beside the others, in `parking`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from daemon.dispatch.entry import Entry, Rank, Ranked, Whereabouts, rank_of
from daemon.dispatch.parking import Parking
from daemon.dispatch.polls import Poller
from enginekit.messages.links import Millis, QueuedTask, QueueKey, TaskKind


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

    def __init__(self, key: QueueKey, limit: int, probes: int) -> None:
        self.key = key
        self.parking = Parking(limit, probes)
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
        self._waiting = Ranked(Whereabouts.QUEUED)

    # --- tasks -------------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Tasks that wait in memory for nothing but a worker."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        return max(self._limit - len(self._waiting), 0)

    @property
    def wants_pull(self) -> bool:
        """Whether the store has tasks that memory has room for."""
        return self.behind and not self.pulling and len(self._waiting) * 2 < self._limit

    def admits(self, task: QueuedTask) -> bool:
        """Whether an offer is taken in. One that is not has to be turned away with `turn_away`."""
        if len(self._waiting) >= self._limit:
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
        self._horizon = self._waiting.last_rank()

    def catch_up(self) -> None:
        """Memory has every task that the store has, but for those that are left there because of their destination."""
        self.behind = False
        self._horizon = None
        if not self.parking.any_left:
            self.unseen = 0

    def leave(self, destination: str) -> None:
        """A task is left to the store because of its destination; it is no reason to pull."""
        self.parking.leave(destination)
        self.unseen += 1

    def add(self, entry: Entry, now: float) -> None:
        """Queue a task, or queue it again: at the place that its priority, age and first arrival give it."""
        self._waiting.add(entry, now)

    def take(self, set_aside: Callable[[Entry], bool] | None = None) -> Entry | None:
        """The next task, which is no longer queued: the caller says where it goes. One that `set_aside` has put
        elsewhere is not it."""
        while (entry := self._waiting.take()) is not None:
            if set_aside is None or not set_aside(entry):
                return entry
        return None

    def remove(self, entry: Entry) -> None:
        """A task that is queued or parked is over."""
        if entry.where is Whereabouts.PARKED:
            assert entry.task.destination is not None
            self.parking.remove(entry.task.destination, entry)
        else:
            self._waiting.remove(entry)

    def oldest(self) -> Millis | None:
        """When the task that has waited longest in memory was scheduled."""
        times = (self._waiting.oldest(), self.parking.oldest())
        return min((at for at in times if at is not None), default=None)

    def destinations(self) -> Iterator[str | None]:
        """That of each task that waits in memory."""
        yield from (entry.task.destination for entry in self._waiting)
        yield from self.parking.destinations()

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

    @property
    def wanted(self) -> int:
        """How many tasks those who wait could be given."""
        return sum(poller.max_tasks for poller in self.pollers if not poller.ended and poller.request.awaited)

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
        nothing_waits = not self._waiting and not self.parking and not self.parking.any_left
        return nothing_waits and not self.pollers and not self.behind and not self.pulling

    @property
    def is_node(self) -> bool:
        return self.key.kind is TaskKind.NODE
