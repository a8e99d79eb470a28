"""Task queues inside one process, shared by the Matchings of daemons that run in it: what Redis's are elsewhere, by
Trio's clock."""

from __future__ import annotations

import itertools
from collections import defaultdict

import trio

from daemon.queues.interface import (
    Ask,
    Claim,
    Demand,
    Depth,
    Heard,
    Notice,
    PartitionQueues,
    Places,
    TaskQueues,
    Terms,
    Told,
)
from enginekit.messages.links import QueuedTask, QueueKey, TaskKind, TaskRef


class MemoryTaskQueues(TaskQueues):
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._parts: dict[int, _Part] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    def belongs_to(self, cluster: str | None) -> None:
        """Whoever is in this process shares the one store."""

    @property
    def ready(self) -> bool:
        return True

    def partition(self, number: int) -> PartitionQueues:
        """For one more who shares it."""
        if number not in self._parts:
            self._parts[number] = _Part(self._terms)
        return MemoryPartition(self._parts[number])

    def clear(self) -> None:
        """Forget everything, as a Redis that is flushed."""
        for part in self._parts.values():
            part.clear()


class MemoryPartition(PartitionQueues):
    def __init__(self, part: _Part) -> None:
        self._part = part
        self._woken: dict[QueueKey, None] = {}
        self._notices: list[Notice] = []
        self._some = trio.Event()
        part.sharers.append(self)

    async def turn(self, ask: Ask) -> Told:
        await trio.lowlevel.checkpoint()
        return self._part.turn(ask)

    async def depths(self) -> list[Depth]:
        await trio.lowlevel.checkpoint()
        return self._part.depths()

    async def hear(self) -> Heard:
        await self._some.wait()
        self._some = trio.Event()
        heard = Heard(woken=list(self._woken), notices=self._notices)
        self._woken, self._notices = {}, []
        return heard

    def heard(self, woken: list[QueueKey], notices: list[Notice]) -> None:
        self._woken.update(dict.fromkeys(woken))
        self._notices += notices
        self._some.set()


_Rank = tuple[int, int, str, int]


def _rank(task: QueuedTask) -> _Rank:
    return (-task.priority, task.scheduled_at, task.task.run.run_id, task.task.event_id)


class _Queue:
    __slots__ = ("filling", "horizon", "left", "missed", "offered_until", "ready", "tasks")

    def __init__(self) -> None:
        self.ready: dict[TaskRef, QueuedTask] = {}
        self.tasks: dict[TaskRef, QueuedTask] = {}
        """All of them, wherever they are."""
        self.left = False
        """The store has some that are not here."""
        self.horizon: _Rank | None = None
        self.filling = False
        self.missed = False
        self.offered_until = 0.0
        """Until when somebody was told to fill it."""


class _Part:
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.sharers: list[MemoryPartition] = []
        self.clear()

    def clear(self) -> None:
        self._queues: defaultdict[QueueKey, _Queue] = defaultdict(_Queue)
        self._tasks: dict[TaskRef, QueuedTask] = {}
        self._leases: dict[TaskRef, float] = {}
        self._delayed: dict[TaskRef, float] = {}
        self._again: set[TaskRef] = set()
        self._turns: defaultdict[str, dict[QueueKey, int]] = defaultdict(dict)
        self._turn = itertools.count()
        self._made = False
        self._scan_at = 0.0

    def turn(self, ask: Ask) -> Told:
        now = trio.current_time()
        anew, self._made = not self._made, True
        self._woken: dict[QueueKey, None] = {}
        touched: dict[QueueKey, None] = {}
        for places in (self._leases, self._delayed):
            for ref in [ref for ref, until in places.items() if until <= now]:
                del places[ref]
                self._make_ready(self._tasks[ref])
        turned_away = {task.queue: None for task in ask.offered if not self._offer(task, anew=True)}
        turned_away |= {task.queue: None for task in ask.brought if not self._offer(task, anew=False)}
        for ref in ask.dropped:
            self._drop(ref, touched)
        for ref in ask.released:
            if self._leases.pop(ref, None) is not None:
                self._make_ready(self._tasks[ref])
        for ref in ask.delayed:
            if self._leases.pop(ref, None) is not None:
                self._delayed[ref] = now + self._terms.delay_seconds
        for ref in ask.renewed:
            if ref in self._leases:
                self._leases[ref] = now + self._terms.lease_seconds
        for key in ask.fills:
            queue = self._queues[key]
            if not queue.left:
                self._fall_behind(queue)
            queue.filling, queue.missed = True, False
        for key in ask.filled:
            queue = self._queues[key]
            if queue.filling and not queue.missed:
                queue.left = False
            else:
                self._fall_behind(queue)
                touched[key] = None
            queue.filling = False
            queue.offered_until = 0.0
        claims = [self._claim(demand, now, touched) for demand in ask.demands]
        scan = ask.scan_seconds > 0 and now >= self._scan_at
        if scan:
            self._scan_at = now + ask.scan_seconds
            touched.update(dict.fromkeys(self._queues))
        to_fill = [key for key in touched if self._wants_fill(self._queues[key], now)]
        woken = [key for key in self._woken if self._queues[key].ready]
        if woken or ask.notices:
            for sharer in self.sharers:
                sharer.heard(woken, ask.notices)
        ends = [*self._leases.values(), *self._delayed.values()]
        return Told(
            claims=claims,
            anew=anew,
            turned_away=list(turned_away),
            to_fill=to_fill,
            scan=scan,
            next_in=min(ends) - now if ends else None,
            places=Places(
                ready=len(self._tasks) - len(self._leases) - len(self._delayed),
                leased=len(self._leases),
                delayed=len(self._delayed),
            ),
        )

    def depths(self) -> list[Depth]:
        return [
            Depth(queue=key, depth=len(queue.tasks), oldest=min(task.scheduled_at for task in queue.tasks.values()))
            for key, queue in self._queues.items()
            if queue.tasks
        ]

    def _make_ready(self, task: QueuedTask) -> None:
        queue = self._queues[task.queue]
        queue.ready[task.task] = task
        if len(queue.ready) == 1:
            self._woken[task.queue] = None
            if task.queue.kind is TaskKind.NODE:
                self._turns[task.queue.name].setdefault(task.queue, next(self._turn))

    def _offer(self, task: QueuedTask, *, anew: bool) -> bool:
        """False where it found no room. `anew`: where it is leased, it was given back."""
        ref = task.task
        if ref in self._tasks:
            if anew and ref in self._leases:
                self._again.add(ref)
            return True
        queue = self._queues[task.queue]
        before = queue.horizon is not None and _rank(task) < queue.horizon
        if len(queue.tasks) >= self._terms.tasks or not (not queue.left or queue.filling or before):
            if not queue.left:
                self._fall_behind(queue)
            queue.missed = True
            return False
        self._tasks[ref] = queue.tasks[ref] = task
        self._make_ready(task)
        return True

    def _fall_behind(self, queue: _Queue) -> None:
        queue.left = True
        queue.horizon = max((_rank(task) for task in queue.ready.values()), default=None)

    def _drop(self, ref: TaskRef, touched: dict[QueueKey, None]) -> None:
        task = self._tasks.get(ref)
        if task is None:
            return
        leased = self._leases.pop(ref, None) is not None
        again = ref in self._again
        self._again.discard(ref)
        if leased and again:
            self._make_ready(task)
            return
        del self._tasks[ref]
        self._delayed.pop(ref, None)
        queue = self._queues[task.queue]
        queue.ready.pop(ref, None)
        del queue.tasks[ref]
        touched[task.queue] = None

    def _claim(self, demand: Demand, now: float, touched: dict[QueueKey, None]) -> Claim:
        found: list[QueuedTask] = []
        if demand.queue is not None:
            self._take(demand.queue, demand.tasks, demand, found, now)
            touched[demand.queue] = None
            return Claim(tasks=found, more=bool(self._queues[demand.queue].ready))
        while (turn := self._next(demand.resources)) is not None and len(found) < demand.tasks:
            resource, key = turn
            self._take(key, 1, demand, found, now)
            touched[key] = None
            if self._queues[key].ready:
                self._turns[resource][key] = next(self._turn)
            else:
                del self._turns[resource][key]
        return Claim(tasks=found, more=self._next(demand.resources) is not None)

    def _next(self, resources: list[str]) -> tuple[str, QueueKey] | None:
        turns = [(turn, resource, key) for resource in resources for key, turn in self._turns[resource].items()]
        return min(turns, key=lambda each: each[0])[1:] if turns else None

    def _take(self, key: QueueKey, want: int, demand: Demand, found: list[QueuedTask], now: float) -> None:
        queue = self._queues[key]
        for task in sorted(queue.ready.values(), key=_rank):
            if not want:
                return
            del queue.ready[task.task]
            if (task.queue.tenant, task.destination) in demand.without:
                self._delayed[task.task] = now + self._terms.delay_seconds
                continue
            self._leases[task.task] = now + self._terms.lease_seconds
            found.append(task)
            want -= 1

    def _wants_fill(self, queue: _Queue, now: float) -> bool:
        if not queue.left or len(queue.tasks) * 2 >= self._terms.tasks or now < queue.offered_until:
            return False
        queue.offered_until = now + self._terms.lease_seconds
        return True
