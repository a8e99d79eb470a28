"""Matching where the queues are shared: each process with the role serves every partition, and whoever has somebody who
waits claims what is there for them.

What has an order, and who has which task, is the queues' (`daemon/queues`); here are those who wait, the circuit
breakers, and one `Ask` after the other with everything that has come in meanwhile. Messages into a partition go to one
of those who serve it. What all of them must know (that polls end, how destinations did) it tells the others. Nothing
here lasts but for a turn, except tasks that wait for a breaker to be tried: their leases are renewed.

What can be lost on the way, and what makes good for it: whatever a Matching was given and had not dealt with when it
died is given to another; what it had claimed becomes ready when its lease lapses, as does a task whose start was never
recorded; what the queues have lost is found by comparing them with the store.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import structlog
import trio

from daemon.clock import Clock
from daemon.dispatch.activity_polls import ActivityPolls
from daemon.dispatch.breakers import Breakers
from daemon.dispatch.company import REPORT_SECONDS, Company, SharedLooks
from daemon.dispatch.entry import Entry, Overdue, Whereabouts
from daemon.dispatch.filling import Filling
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.node_polls import NodePolls
from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.links.interface import Request
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.nurseries.matching import poll_ends
from daemon.queues.interface import Ask, Demand, Heard, PartitionQueues, Places, Report, Told
from daemon.settings import BreakerSettings, MatchingSettings
from enginekit.messages.calls import ListQueues
from enginekit.messages.links import (
    EndNodePolls,
    EndPolls,
    ExpireTask,
    HandBackTasks,
    ListBreakers,
    MatchNodes,
    MatchTasks,
    OfferTask,
    Ping,
    Pong,
    QueueKey,
    RefillQueues,
    RetireTasks,
    TaskExpired,
    TaskKind,
    TaskRef,
    TasksFinished,
    ToMatching,
)
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("daemon.matching")

CLAIMED = 500
"""Tasks that are claimed for one queue, or for those who name the same resources, at once."""
RENEWALS = 3
"""In each lease."""
LEAVE_SECONDS = 1.0


class SharedMatching:
    """One run of it, for one partition. `links.matching` is the partition's inbox; `member` names this process among
    those that serve it."""

    def __init__(
        self,
        links: Links,
        store: WaitingTasks,
        queues: PartitionQueues,
        settings: MatchingSettings,
        breakers: BreakerSettings,
        queue_tasks: int,
        clock: Clock,
        member: str,
        metrics: Metrics | None = None,
    ) -> None:
        self._links = links
        self._queues = queues
        self._metrics = metrics
        self._scan_seconds = settings.scan_seconds
        self._renew_seconds = settings.handout_seconds / RENEWALS
        # None wait here for a worker; of those that wait for a breaker, as many as it needs to be tried.
        self._tasks = KnownTasks(0, breakers.probes)
        self._filling = Filling(store, queues, queue_tasks)
        self._breakers = Breakers(breakers, self._tasks, self._queue_up, self._ask_soon, metrics)
        self._given = Overdue(Whereabouts.GIVEN, 0.0)
        self._polls = ActivityPolls(self._tasks, self._given, self._count)
        self._more: dict[frozenset[str], bool] = {}
        self._node_polls = NodePolls(
            self._tasks,
            self._breakers,
            self._given,
            self._count_nodes,
            lambda _: None,
            lambda resources: self._more.get(resources, False),
        )
        self._company = Company(member)
        self._looks = SharedLooks(store, self._tasks, self._node_polls, self._breakers, clock, queues, self._company)

        self._ask = Ask()
        self._in_flight = Ask()
        self._asked_for: dict[QueueKey, None] = {}
        """Queues of activities in which there may be something for those who wait."""
        self._nodes_asked_for = False
        self._fresh: list[Entry] = []
        """In memory since the last turn."""
        self._kept: dict[TaskRef, Entry] = {}
        """With which destinations are to be tried: their leases are renewed."""
        self._turn_at = math.inf
        self._renew_at = math.inf
        self._expired: list[TaskExpired] = []
        self._asked_to_look: list[tuple[Callable[[Request], Awaitable[None]], Request]] = []
        self._sleep = trio.CancelScope()
        self.places: Places | None = None
        """Where the tasks were after the last turn, whoever has them."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Cancelled, or failed: polls that wait are answered without a task, so that they are
        asked again of whoever else is there, and what waits for a breaker is released."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._filling.run)
                nursery.start_soon(self._hear)
                nursery.start_soon(self._look_about)
                task_status.started()
                while True:
                    await self._serve(nursery)
        finally:
            self._node_polls.end()
            self._polls.end_all()
            self._breakers.end()
            self._ask.released += self._kept
            with trio.move_on_after(LEAVE_SECONDS, shield=True):
                for ask in (self._in_flight, self._ask):
                    ask.demands = []
                    await self._queues.turn(ask)

    async def _serve(self, nursery: trio.Nursery) -> None:
        batch: list[ToMatching | Request] = []
        deadline = trio.current_time() if self._pending else self._next_deadline()
        with trio.CancelScope(deadline=deadline) as self._sleep:
            batch = await self._links.matching.receive()
        for message in batch:
            self._take(message)
        self._breakers.mind(trio.current_time())
        await self._turn()
        self._mind_polls()
        # History never waits for Matching, so waiting for room in its link cannot go round in a circle.
        for expired in self._expired:
            await self._links.history.send(expired)
        self._expired.clear()
        for look, request in self._asked_to_look:
            nursery.start_soon(look, request)
        self._asked_to_look.clear()

    async def _hear(self) -> None:
        while True:
            heard = await self._queues.hear()
            self._heard(heard)
            self._sleep.cancel()

    async def _look_about(self) -> None:
        """What nobody says: whether the store has more than the queues, and what this one has to do with them."""
        look_at = trio.current_time()
        while True:
            now = trio.current_time()
            if now >= look_at:
                look_at = now + self._scan_seconds
                self._ask.scan_seconds = self._scan_seconds
            report = self._company.report(self._tasks.queues(), self._node_polls.serving, now)
            if report is not None:
                self._ask.notices.append(report)
            if self._pending:
                self._sleep.cancel()
            await trio.sleep(min(REPORT_SECONDS, look_at - now))

    # --- messages ----------------------------------------------------------------------------------------------------

    def _take(self, message: ToMatching | Request) -> None:
        ask = self._ask
        match message:
            case OfferTask(task):
                ask.offered.append(task)
                self._ask_soon(task.queue)
            case RetireTasks(tasks, cancel):
                ask.dropped += tasks
                for ref in tasks:
                    self._retired(ref, cancel)
            case ExpireTask(ref, waited_seconds):
                ask.dropped.append(ref)
                self._retired(ref, cancel=False)
                self._expired.append(TaskExpired(ref, waited_seconds))
            case HandBackTasks(tasks):
                ask.released += tasks
                ask.notices.append(message)
            case EndPolls() | EndNodePolls() | TasksFinished():
                ask.notices.append(message)
            case RefillQueues(None):
                self._filling.compare()
            case RefillQueues(list(queues)):
                for key in queues:
                    self._filling.soon(key)
            case Request():
                self._asked(message)

    def _heard(self, heard: Heard) -> None:
        if heard.woken is None:
            for queue in self._tasks.queues():
                self._ask_soon(queue.key)
            self._nodes_asked_for = True
        for key in heard.woken or ():
            self._ask_soon(key)
        for notice in heard.notices:
            match notice:
                case EndPolls(key, worker_id):
                    # A worker that is not heard of is given no more: whatever it took would come back a lease later.
                    self._polls.end(self._tasks.queue(key), worker_id)
                case EndNodePolls(worker_id):
                    self._node_polls.end(worker_id)
                case HandBackTasks(tasks):
                    for ref in tasks:
                        self._node_polls.over(ref)
                case TasksFinished():
                    self._finished(notice)
                case Report():
                    self._company.hear(notice, trio.current_time())

    def _finished(self, message: TasksFinished) -> None:
        now = trio.current_time()
        for report in message.reports:
            self._breakers.reported(report, self._node_polls.began(report.task), now)
        for ref in message.tasks:
            self._node_polls.over(ref)

    def _retired(self, ref: TaskRef, cancel: bool) -> None:
        if cancel:
            self._node_polls.over(ref)
        entry = self._kept.pop(ref, None)
        if entry is not None:
            self._tasks.pop(ref)
            self._tasks.queue(entry.task.queue).remove(entry)
            self._breakers.over(entry)

    def _asked(self, request: Request) -> None:
        match request.call:
            case MatchTasks() as call:
                self._polls.poll(request, call, poll_ends(request, call))
                self._ask_soon(call.queue)
            case MatchNodes() as call:
                self._node_polls.poll(request, call, poll_ends(request, call))
                self._nodes_asked_for = True
            case ListQueues():
                self._asked_to_look.append((self._looks.queues, request))
            case Ping():
                request.answer(Pong())
            case ListBreakers():
                self._asked_to_look.append((self._looks.breakers, request))
            case other:
                request.refuse(
                    Refused(ErrorStatus.INVALID_ARGUMENT, f"Matching does not answer {type(other).__name__}")
                )

    # --- turns -------------------------------------------------------------------------------------------------------

    @property
    def _pending(self) -> bool:
        return bool(self._asked_for or self._nodes_asked_for or not self._ask.empty or self._fresh)

    def _ask_soon(self, key: QueueKey) -> None:
        """There may be something in this queue for those who wait."""
        if key.kind is TaskKind.NODE:
            self._nodes_asked_for = True
        else:
            self._asked_for[key] = None

    def _queue_up(self, entry: Entry) -> None:
        """It is to be given to somebody who waits."""
        queue = self._tasks.queue(entry.task.queue)
        self._kept.pop(entry.ref, None)
        queue.add(entry, trio.current_time())
        self._fresh.append(entry)
        if queue.is_node:
            self._node_polls.ready(queue)
        else:
            self._polls.ready(queue)

    async def _turn(self) -> None:
        """Ask for what there is to be asked for, if there is something."""
        ask, self._ask = self._ask, Ask()
        named = self._demands(ask)
        now = trio.current_time()
        if now >= self._renew_at:
            ask.renewed = list(self._kept)
            self._renew_at = now + self._renew_seconds
        if not ask.empty or now >= self._turn_at:
            self._in_flight = ask
            told = await self._queues.turn(ask)
            self._in_flight = Ask()
            self._told(told, named)
        self._hand_out()

    def _demands(self, ask: Ask) -> list[frozenset[str] | QueueKey]:
        """Put what those who wait could be given into `ask`. Whose each of it is."""
        named: list[frozenset[str] | QueueKey] = []
        for key in self._asked_for:
            wanted = self._tasks.queue(key).wanted
            if wanted:
                ask.demands.append(Demand(tasks=min(wanted, CLAIMED), queue=key))
                named.append(key)
        self._asked_for.clear()
        if self._nodes_asked_for:
            self._nodes_asked_for = False
            without = self._enough_parked()
            for resources, wanted in self._node_polls.wanted().items():
                ask.demands.append(Demand(tasks=min(wanted, CLAIMED), resources=sorted(resources), without=without))
                named.append(resources)
        return named

    def _enough_parked(self) -> list[tuple[str, str]]:
        """Destinations of which none is needed, with their tenants."""
        if self._breakers.set_aside is None:
            return []
        return [(queue.key.tenant, name) for queue in self._tasks.queues() for name in queue.parking.passed_over()]

    def _told(self, told: Told, named: list[frozenset[str] | QueueKey]) -> None:
        now = trio.current_time()
        self._turn_at = math.inf if told.next_in is None else now + told.next_in
        self.places = told.places
        self._more.clear()
        for whose, claim in zip(named, told.claims, strict=True):
            if not isinstance(whose, QueueKey):
                self._more[whose] = claim.more
            for task in claim.tasks:
                if task.task not in self._tasks:
                    self._queue_up(self._tasks.meet(task, None))
            if claim.more:
                # Whoever still waits after this.
                if isinstance(whose, QueueKey):
                    self._ask_again(whose)
                else:
                    self._nodes_asked_for = bool(self._nodes_asked_for or not claim.tasks)
        if told.anew or told.scan:
            self._filling.compare()
        for key in told.to_fill:
            self._filling.soon(key)

    def _ask_again(self, key: QueueKey) -> None:
        if self._tasks.queue(key).wanted > self._tasks.queue(key).depth:
            self._asked_for[key] = None

    def _hand_out(self) -> None:
        """Give what was claimed to those who wait, and back what they do not take."""
        now = trio.current_time()
        self._polls.match(now)
        self._node_polls.match(now)
        for entry in [*self._kept.values(), *self._fresh]:
            self._sort(entry)
        self._fresh.clear()
        for entry in self._given.take(math.inf):
            # Its lease goes on, whoever has it.
            self._tasks.forget(entry)
        if not self._kept:
            self._renew_at = math.inf
        elif self._renew_at == math.inf:
            self._renew_at = now + self._renew_seconds

    def _sort(self, entry: Entry) -> None:
        """Keep what is to try its destination, here, and nothing else."""
        match entry.where:
            case Whereabouts.PARKED:
                self._kept[entry.ref] = entry
                return
            case Whereabouts.QUEUED if self._breakers.is_candidate(entry):
                self._kept[entry.ref] = entry
                return
            case Whereabouts.QUEUED:
                self._tasks.queue(entry.task.queue).remove(entry)
                self._tasks.forget(entry)
                self._ask.released.append(entry.ref)
            case Whereabouts.GONE:
                self._ask.delayed.append(entry.ref)
        self._kept.pop(entry.ref, None)

    def _count_nodes(self, queue: TaskQueue, tasks: int, now: float) -> None:
        self._count(queue, tasks, now)
        if self._metrics is not None:
            self._metrics.dispatched(TaskKind.NODE, tasks)

    def _count(self, queue: TaskQueue, tasks: int, now: float) -> None:
        queue.dispatched += tasks
        queue.rate.count(now, tasks)

    # --- time --------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        times = (
            self._polls.next_at(),
            self._node_polls.next_at(),
            self._breakers.next_at(),
            self._turn_at,
            self._renew_at,
        )
        return min(at for at in times if at is not None)

    def _mind_polls(self) -> None:
        now = trio.current_time()
        self._polls.mind(now)
        self._node_polls.mind(now)
