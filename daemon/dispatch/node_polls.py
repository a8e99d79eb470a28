"""Workers in other processes: who of them waits for tasks of nodes, and what becomes of those they are given.

A poll names the resources that its Worker runs; it is given tasks of any tenant, one queue after the other, resource by
resource, so that no tenant can starve another. What is handed out waits for its start to be recorded, as for any poll.
That a task is being run is not known here: History, its lease and its Worker see to that. Remembered is only what its
circuit breaker has to know, and that may be forgotten.

No I/O and no clock (the time is passed in), but for the answers to requests.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from daemon.dispatch.breakers import Breakers
from daemon.dispatch.entry import Entry, Overdue, Whereabouts
from daemon.dispatch.known import QUEUES, KnownTasks
from daemon.dispatch.polls import Deadlines
from daemon.dispatch.task_queue import TaskQueue
from daemon.links.interface import Request
from enginekit.messages.links import MatchNodes, MatchNodesResult, QueueKey, TaskRef

HANDED = 50_000
"""Tasks with a destination that are remembered after they were handed out, the newest."""


class NodePoller:
    """A MatchNodes request that waits until `deadline` (`trio.current_time()`)."""

    __slots__ = ("deadline", "ended", "max_tasks", "request", "resources", "worker_id")

    def __init__(self, request: Request, call: MatchNodes, deadline: float) -> None:
        self.request = request
        self.resources = frozenset(call.resources)
        self.worker_id = call.worker_id
        self.max_tasks = call.max_tasks
        self.deadline = deadline
        self.ended = False

    def answer(self, tasks: list[TaskRef], more: bool = False) -> None:
        self.ended = True
        self.request.answer(MatchNodesResult(tasks=tasks, more=more))


class NodePolls:
    """Of one Matching. `given` watches what was handed out, `count` is told of it by queue, number and time; `emptied`
    of queues in which memory has nothing more; `more_elsewhere` says whether others have tasks of these resources."""

    def __init__(
        self,
        tasks: KnownTasks,
        breakers: Breakers,
        given: Overdue,
        count: Callable[[TaskQueue, int, float], None],
        emptied: Callable[[TaskQueue], None],
        more_elsewhere: Callable[[frozenset[str]], bool] = lambda _: False,
    ) -> None:
        self._tasks = tasks
        self._breakers = breakers
        self._given = given
        self._count = count
        self._emptied = emptied
        self._more_elsewhere = more_elsewhere
        self._deadlines: Deadlines[NodePoller] = Deadlines()
        self._pollers: deque[NodePoller] = deque()
        self._ready: OrderedDict[str, OrderedDict[QueueKey, None]] = OrderedDict()
        self._handed: OrderedDict[TaskRef, Entry] = OrderedDict()
        self._changed = False

    def ready(self, queue: TaskQueue) -> None:
        """A task waits in it, and no Worker of this process runs such."""
        queues = self._ready.setdefault(queue.key.name, OrderedDict())
        if len(queues) > QUEUES:
            for key in [key for key in queues if not self._tasks.queue(key).depth]:
                del queues[key]
        queues[queue.key] = None
        self._changed = True

    def poll(self, request: Request, call: MatchNodes, deadline: float) -> None:
        poller = NodePoller(request, call, deadline)
        self._pollers.append(poller)
        self._deadlines.add(poller)
        self._changed = True

    def serving(self, key: QueueKey) -> int:
        """How many polls wait for tasks of this queue."""
        return sum(key.name in poller.resources for poller in self._pollers if _waits(poller))

    def wanted(self) -> dict[frozenset[str], int]:
        """How many tasks those who wait could be given, by the resources that they name."""
        wanted: dict[frozenset[str], int] = {}
        for poller in self._pollers:
            if _waits(poller):
                wanted[poller.resources] = wanted.get(poller.resources, 0) + poller.max_tasks
        return wanted

    # --- handing out -------------------------------------------------------------------------------------------------

    def match(self, now: float) -> None:
        """Give what waits to those who have waited longest."""
        if not self._changed:
            return
        self._changed = False
        waiting: deque[NodePoller] = deque()
        while self._pollers:
            poller = self._pollers.popleft()
            if not _waits(poller):
                continue
            refs = self._take(poller, now)
            if refs:
                more = self._next(poller.resources) is not None or self._more_elsewhere(poller.resources)
                poller.answer(refs, more=more)
            else:
                waiting.append(poller)
        self._pollers = waiting

    def _take(self, poller: NodePoller, now: float) -> list[TaskRef]:
        refs: list[TaskRef] = []
        set_aside = self._breakers.set_aside
        while len(refs) < poller.max_tasks and (queue := self._next(poller.resources)) is not None:
            entry = queue.take(set_aside)
            if entry is None:
                continue
            self._tasks.release_spec(entry)
            entry.move(Whereabouts.GIVEN, now)
            self._given.watch(entry)
            if entry.task.destination is not None:
                self._remember(entry)
            if set_aside is not None:
                self._breakers.began(entry, now)
            refs.append(entry.ref)
            queues = self._ready[queue.key.name]
            queues.move_to_end(queue.key)
            self._ready.move_to_end(queue.key.name)
            self._count(queue, 1, now)
        return refs

    def _next(self, resources: frozenset[str]) -> TaskQueue | None:
        """The queue whose turn it is among those with such tasks."""
        for name in [name for name in self._ready if name in resources]:
            queues = self._ready[name]
            while queues:
                queue = self._tasks.queue(next(iter(queues)))
                if queue.depth:
                    return queue
                del queues[queue.key]
                self._emptied(queue)
            del self._ready[name]
        return None

    # --- polls end ---------------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `mind` has to be called next."""
        return self._deadlines.next_at()

    def mind(self, now: float) -> None:
        """End the polls whose time is up; those for which there is something have it."""
        self.match(now)
        while (poller := self._deadlines.due(now)) is not None:
            poller.answer([])

    def end(self, worker_id: str | None = None) -> None:
        """End the polls of a worker, or all of them, without a task."""
        for poller in self._pollers:
            if worker_id is None or poller.worker_id == worker_id:
                poller.answer([])
        self._pollers = deque(poller for poller in self._pollers if not poller.ended)

    # --- what was handed out -----------------------------------------------------------------------------------------

    def began(self, ref: TaskRef) -> float | None:
        """When a task was handed out that is reported on now, where that is known."""
        entry = self._handed.pop(ref, None)
        return None if entry is None else entry.since

    def over(self, ref: TaskRef) -> None:
        """A task that was handed out will not be reported on: it waits again, it was canceled, or it has ended."""
        entry = self._handed.pop(ref, None)
        if entry is not None:
            self._breakers.abandoned(entry)

    def _remember(self, entry: Entry) -> None:
        self._handed[entry.ref] = entry
        if len(self._handed) > HANDED:
            self._handed.popitem(last=False)


def _waits(poller: NodePoller) -> bool:
    return not poller.ended and poller.request.awaited
