"""Matching: brings the tasks that wait and the workers that are free together.

Nodes' tasks go to the daemon's Worker, as many as it has slots, round-robin across queues so that no tenant can starve
another; those of a destination whose circuit breaker is open wait. Where Workers are other processes, those tasks go to
those who poll for them, and each partition of the queues is a Matching (`partitions.py`). Activities' tasks go to those
who poll, first come first served. Matching holds references, and a spec where it came with the offer; everything it
knows is in the store too, so that it starts by pulling, heals by pulling, and may forget anything (breakers learn
anew). What tasks mean, when they time out and whether they are tried again is History's.

What can be lost on the way, and what makes good for it: an offer that found no room (History says RefillQueues; the
queue is pulled when it has room), a poll's answer that nobody read and a start or outcome that was never recorded (the
task stays where it is for too long, is forgotten, and the store tells whether it still waits), a Worker that restarts
(its new incarnation attaches, and what the former held is queued again).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

import structlog
import trio

from daemon.clock import Clock
from daemon.dispatch.activity_polls import ActivityPolls
from daemon.dispatch.breakers import Breakers
from daemon.dispatch.entry import Entry, Overdue, Whereabouts
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.looks import Looks
from daemon.dispatch.node_polls import NodePolls
from daemon.dispatch.pulling import Pulling
from daemon.dispatch.slots import WorkerSlots
from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.links.interface import Request
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.queues.interface import Places
from daemon.settings import BreakerSettings, MatchingSettings
from daemon.stores.rows import QueueBacklog
from enginekit.messages.calls import ListQueues
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
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
    QueuedTask,
    QueueKey,
    RefillQueues,
    RetireTasks,
    RunTask,
    TaskExpired,
    TaskKind,
    TaskRef,
    TasksFinished,
    TaskSpec,
    ToMatching,
)
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("daemon.matching")

WORKER_RETRY_SECONDS = 0.05
"""When the Worker's link was full, and it says nothing itself."""
ANSWER_AHEAD_SECONDS = 0.1
"""How long before a request's own deadline an empty answer is given, so that it still arrives."""


class Matching:
    """One run of the Matching service."""

    def __init__(
        self,
        links: Links,
        store: WaitingTasks,
        settings: MatchingSettings,
        breakers: BreakerSettings,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._links = links
        self._metrics = metrics
        self._tasks = KnownTasks(settings.queue_tasks, breakers.probes)
        self._pulling = Pulling(store, self._tasks.queue, self._tasks.__contains__, self._pulled)
        self._breakers = Breakers(breakers, self._tasks, self._queue_up, self._pulling.soon, metrics)

        self._slots = WorkerSlots()
        self._announced = False
        self._ready: OrderedDict[QueueKey, None] = OrderedDict()
        self._worker_full_until: float | None = None

        self._given = Overdue(Whereabouts.GIVEN, settings.handout_seconds)
        self._finished = Overdue(Whereabouts.FINISHED, settings.handout_seconds)

        self._polls = ActivityPolls(self._tasks, self._given, self._count)
        self._node_polls = NodePolls(
            self._tasks, self._breakers, self._given, self._count_nodes, self._pulling.if_wanted
        )

        self._expired: list[TaskExpired] = []
        self._looks = Looks(store, self._tasks, self._slots, self._node_polls, self._breakers, clock)
        self._asked_to_look: list[tuple[Callable[[Request], Awaitable[None]], Request]] = []
        self._sleep = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Once: a restart takes a new Matching, which loses nothing.

        Started as soon as it receives; the queues fill from the store meanwhile, whenever it can be read. Cancelled, or
        failed: polls that wait are answered without a task, so that they are asked again of whoever comes next.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pulling.run)
                self._hand_out()
                task_status.started()
                while True:
                    await self._serve(nursery)
        finally:
            self._node_polls.end()
            self._polls.end_all()
            self._breakers.end()

    async def _serve(self, nursery: trio.Nursery) -> None:
        batch: list[ToMatching | Request] = []
        with trio.CancelScope(deadline=self._next_deadline()) as self._sleep:
            batch = await self._links.matching.receive()
        for message in batch:
            self._take(message)
        self._mind_deadlines()
        self._hand_out()
        # History never waits for Matching, so waiting for room in its link cannot go round in a circle.
        for expired in self._expired:
            await self._links.history.send(expired)
        self._expired.clear()
        for look, request in self._asked_to_look:
            nursery.start_soon(look, request)
        self._asked_to_look.clear()

    @property
    def known(self) -> int:
        """How many tasks it has in memory."""
        return len(self._tasks)

    @property
    def places(self) -> Places:
        """Where they are."""
        return self._tasks.places()

    def _take(self, message: ToMatching | Request) -> None:
        match message:
            case OfferTask(task, spec):
                self._offered(task, spec)
            case RetireTasks(tasks, cancel):
                for ref in tasks:
                    self._retired(ref, cancel)
            case TasksFinished():
                self._worker_finished(message)
            case ExpireTask(ref, waited_seconds):
                self._expire(ref, waited_seconds)
            case EndPolls(key, worker_id):
                # A worker that is not heard of (its machine stands still, its network is gone) is given no more:
                # whatever it took would come back a whole lease later.
                self._polls.end(self._tasks.queue(key), worker_id)
            case EndNodePolls(worker_id):
                self._node_polls.end(worker_id)
            case HandBackTasks(tasks):
                for ref in tasks:
                    self._handed_back(ref)
            case RefillQueues(queues):
                self._refill(queues)
            case AttachWorker():
                self._attach(message)
            case Request():
                self._asked(message)

    # --- tasks come and go -----------------------------------------------------------------------------------------

    def _offered(self, task: QueuedTask, spec: TaskSpec | None) -> None:
        if task.task in self._tasks:
            return
        self._node_polls.over(task.task)
        queue = self._tasks.queue(task.queue)
        if self._breakers.park(queue, task):
            return
        if queue.admits(task):
            self._queue_up(self._tasks.meet(task, spec))
        else:
            queue.turn_away()

    def _pulled(self, queue: TaskQueue, tasks: list[QueuedTask]) -> bool:
        """Take in what comes from the store; whether all of it found room."""
        taken = 0
        for task in tasks:
            self._node_polls.over(task.task)
            if not self._breakers.park(queue, task):
                if not queue.room:
                    break
                self._queue_up(self._tasks.meet(task, None))
            taken += 1
        queue.unseen = max(queue.unseen - taken, 0)
        self._hand_out()
        return taken == len(tasks)

    def _queue_up(self, entry: Entry) -> None:
        queue = self._tasks.queue(entry.task.queue)
        queue.add(entry, trio.current_time())
        if not queue.is_node:
            self._polls.ready(queue)
        elif self._slots.serves(queue):
            self._ready[queue.key] = None
        else:
            self._node_polls.ready(queue)

    def _handed_back(self, ref: TaskRef) -> None:
        entry = self._tasks.get(ref)
        if entry is not None and entry.where is Whereabouts.GIVEN:
            self._queue_up(entry)
            self._node_polls.over(ref)

    def _retired(self, ref: TaskRef, cancel: bool) -> None:
        self._pulling.over(ref)
        if cancel:
            self._node_polls.over(ref)
        entry = self._tasks.pop(ref)
        if entry is None:
            return
        if entry.where in (Whereabouts.QUEUED, Whereabouts.PARKED):
            queue = self._tasks.queue(entry.task.queue)
            queue.remove(entry)
            self._tasks.release_spec(entry)
            self._breakers.over(entry)
            self._pulling.if_wanted(queue)
            return
        if cancel and entry.where is Whereabouts.RUNNING:
            self._breakers.abandoned(entry)
        self._slots.over(entry, cancel=cancel, now=trio.current_time())

    def _expire(self, ref: TaskRef, waited_seconds: float) -> None:
        entry = self._tasks.get(ref)
        if entry is not None and entry.where in (Whereabouts.RUNNING, Whereabouts.FINISHED):
            return
        self._retired(ref, cancel=False)
        self._expired.append(TaskExpired(ref, waited_seconds))

    def compare(self, backlogs: Iterable[QueueBacklog]) -> None:
        """So many tasks wait in the store. Where memory knows of fewer, their offers may have been lost: it looks."""
        for backlog in backlogs:
            queue = self._tasks.queue(backlog.queue)
            if not queue.behind and backlog.depth > queue.depth + len(queue.parking) + queue.unseen:
                self._pulling.soon(queue.key)

    def _refill(self, queues: list[QueueKey] | None) -> None:
        if queues is None:
            self._pulling.everything()
        for key in queues or []:
            self._pulling.soon(key)

    # --- Workers ---------------------------------------------------------------------------------------------------

    def _attach(self, message: AttachWorker) -> None:
        again = self._slots.attach(message)
        if again is None:
            return
        for entry in again:
            self._queue_up(entry)
            self._breakers.abandoned(entry)
        self._ready = OrderedDict.fromkeys(
            queue.key for queue in self._tasks.queues() if queue.depth and self._slots.serves(queue)
        )
        log.info(
            "worker attached",
            worker=message.worker_id,
            incarnation=message.incarnation,
            slots=message.slots,
            queued_again=len(again),
        )

    def _worker_finished(self, message: TasksFinished) -> None:
        self._worker_full_until = None
        now = trio.current_time()
        for report in message.reports:
            entry = self._tasks.get(report.task)
            running = entry is not None and entry.where is Whereabouts.RUNNING
            began = entry.since if entry is not None and running else self._node_polls.began(report.task)
            self._breakers.reported(report, began, now)
        for ref in message.tasks:
            self._node_polls.over(ref)
        for entry in self._slots.finished(message, now):
            self._finished.watch(entry)
            self._breakers.abandoned(entry)  # unless it was reported on just now

    def _hand_out(self) -> None:
        """Give what can be given, to the Worker and to pollers."""
        now = trio.current_time()
        self._polls.match(now)
        self._node_polls.match(now)
        self._hand_to_worker()
        self._sleep.deadline = min(self._sleep.deadline, self._next_deadline())

    def _hand_to_worker(self) -> None:
        now = trio.current_time()
        if self._worker_full_until is not None and now < self._worker_full_until:
            return
        self._worker_full_until = None
        link = self._links.worker
        if not self._announced:
            self._announced = link.offer(Announce())
        slots = self._slots
        if slots.to_cancel and link.offer(CancelTasks(slots.worker_id, slots.to_cancel)):
            slots.to_cancel = []
        full = not self._announced or bool(slots.to_cancel)
        set_aside = self._breakers.set_aside
        while self._ready and slots.free and not full:
            key = next(iter(self._ready))
            queue = self._tasks.queue(key)
            entry = queue.take(set_aside)
            if entry is None:
                del self._ready[key]
                self._pulling.if_wanted(queue)
                continue
            if not link.offer(RunTask(entry.ref, entry.spec)):
                queue.add(entry, now)
                full = True
                break
            self._tasks.release_spec(entry)
            slots.take(entry, now)
            if set_aside is not None:
                self._breakers.began(entry, now)
            self._count_nodes(queue, 1, now)
            self._ready.move_to_end(key)
        if full:
            self._worker_full_until = now + WORKER_RETRY_SECONDS

    def _count_nodes(self, queue: TaskQueue, tasks: int, now: float) -> None:
        self._count(queue, tasks, now)
        if self._metrics is not None:
            self._metrics.dispatched(TaskKind.NODE, tasks)

    def _count(self, queue: TaskQueue, tasks: int, now: float) -> None:
        queue.dispatched += tasks
        queue.rate.count(now, tasks)
        self._pulling.if_wanted(queue)

    # --- pollers ---------------------------------------------------------------------------------------------------

    def _asked(self, request: Request) -> None:
        match request.call:
            case MatchTasks() as call:
                self._polls.poll(request, call, poll_ends(request, call))
            case MatchNodes() as call:
                self._node_polls.poll(request, call, poll_ends(request, call))
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

    # --- time ------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        times = (
            self._polls.next_at(),
            self._given.next_at(),
            self._finished.next_at(),
            self._slots.next_at(),
            self._breakers.next_at(),
            self._node_polls.next_at(),
            self._worker_full_until,
        )
        return min((at for at in times if at is not None), default=float("inf"))

    def _mind_deadlines(self) -> None:
        """Let go of what has waited, or stayed somewhere, for too long."""
        now = trio.current_time()
        self._polls.mind(now)
        self._node_polls.mind(now)
        self._slots.mind(now)
        self._breakers.mind(now)
        for entry in (*self._given.take(now), *self._finished.take(now)):
            # Whether it still waits, the store knows.
            self._tasks.forget(entry)
            self._node_polls.over(entry.ref)
            self._pulling.soon(entry.task.queue)


def poll_ends(request: Request, call: MatchTasks | MatchNodes) -> float:
    """When a poll that finds nothing is to be answered, in `trio.current_time()`."""
    return min(trio.current_time() + call.wait_seconds, request.deadline - ANSWER_AHEAD_SECONDS)
