"""Matching: brings the tasks that wait and the workers that are free together.

Nodes' tasks go to the daemon's Worker, as many as it has slots, round-robin across queues so that no tenant can starve
another. Activities' tasks go to those who poll, first come first served. Matching holds references, and a spec where
it came with the offer; everything it knows is in the store too, so that it starts by pulling, heals by pulling, and
may forget anything. What tasks mean, when they time out and whether they are tried again is History's.

What can be lost on the way, and what makes good for it: an offer that found no room (History says RefillQueues; the
queue is pulled when it has room), a poll's answer that nobody read and a start or outcome that was never recorded (the
task stays where it is for too long, is forgotten, and the store tells whether it still waits), a Worker that restarts
(its new incarnation attaches, and what the former held is queued again).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from functools import partial

import structlog
import trio

from daemon.clock import Clock
from daemon.dispatch.pages import Pages
from daemon.dispatch.slots import WorkerSlots
from daemon.dispatch.task_queue import Entry, Overdue, Poller, TaskQueue, Whereabouts, spec_bytes
from daemon.links.interface import Request
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.settings import MatchingSettings
from daemon.stores.interface import Store, StoreUnavailable
from enginekit.messages.calls import ListQueues, ListQueuesResult, QueueView
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
    ExpireTask,
    MatchTasks,
    MatchTasksResult,
    OfferTask,
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

SPEC_BYTES = 64 * 1024 * 1024
"""Specs of queued tasks held in memory, over all queues. Beyond it a task is handed out without, and the Worker asks
History for it."""
POLLERS = 1000
"""Who may wait for one queue at once."""
QUEUES = 10_000
"""Queues that are remembered although nothing waits in them or for them."""
WORKER_RETRY_SECONDS = 0.05
"""When the Worker's link was full, and it says nothing itself."""
ANSWER_AHEAD_SECONDS = 0.1
"""How long before a request's own deadline an empty answer is given, so that it still arrives."""
PULL_PAUSE_SECONDS = 0.05
PULL_PAUSE_LIMIT_SECONDS = 2.0


class Matching:
    """One run of the Matching service."""

    def __init__(
        self, links: Links, store: Store, settings: MatchingSettings, clock: Clock, metrics: Metrics | None = None
    ) -> None:
        self._links = links
        self._metrics = metrics
        self._store = store
        self._settings = settings
        self._clock = clock
        self._queues: dict[QueueKey, TaskQueue] = {}
        self._known: dict[TaskRef, Entry] = {}
        self._arrivals = 0
        self._spec_bytes = 0

        self._slots = WorkerSlots()
        self._announced = False
        self._ready: OrderedDict[QueueKey, None] = OrderedDict()
        self._worker_full_until: float | None = None

        self._matchable: dict[QueueKey, None] = {}
        self._polls: list[tuple[float, int, Poller]] = []
        self._polls_limit = 64
        self._given = Overdue(Whereabouts.GIVEN, settings.handout_seconds)
        self._finished = Overdue(Whereabouts.FINISHED, settings.handout_seconds)

        self._to_pull: dict[QueueKey, None] = {}
        self._pull_everything = True
        self._pull_wake = trio.Event()
        self._pages = Pages(store)
        self._expired: list[TaskExpired] = []
        self._sleep = trio.CancelScope()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Once: a restart takes a new Matching, which loses nothing.

        Started as soon as it receives; the queues fill from the store meanwhile, whenever it can be read.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pull)
            self._hand_out()
            task_status.started()
            while True:
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
            case RefillQueues(queues):
                self._refill(queues)
            case AttachWorker():
                self._attach(message)
            case Request():
                self._asked(message)

    # --- tasks come and go -----------------------------------------------------------------------------------------

    def _queue(self, key: QueueKey) -> TaskQueue:
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= QUEUES:
                self._queues = {k: q for k, q in self._queues.items() if not q.idle}
            queue = self._queues[key] = TaskQueue(key, self._settings.queue_tasks)
        return queue

    def _offered(self, task: QueuedTask, spec: TaskSpec | None) -> None:
        if task.task in self._known:
            return
        queue = self._queue(task.queue)
        if queue.admits(task):
            self._admit(queue, task, spec)
        else:
            queue.turn_away()

    def _admit(self, queue: TaskQueue, task: QueuedTask, spec: TaskSpec | None) -> None:
        if spec is not None:
            taken = spec_bytes(spec)
            if self._spec_bytes + taken > SPEC_BYTES:
                spec = None
            else:
                self._spec_bytes += taken
        self._arrivals += 1
        entry = Entry(task, spec, self._arrivals)
        self._known[entry.ref] = entry
        self._queue_up(queue, entry)

    def _queue_up(self, queue: TaskQueue, entry: Entry) -> None:
        queue.add(entry, trio.current_time())
        if not queue.is_node:
            self._matchable[queue.key] = None
        elif self._slots.serves(queue):
            self._ready[queue.key] = None

    def _retired(self, ref: TaskRef, cancel: bool) -> None:
        self._pages.over(ref)
        entry = self._known.pop(ref, None)
        if entry is None:
            return
        if entry.where is Whereabouts.QUEUED:
            self._unqueue(entry)
        else:
            self._slots.over(entry, cancel=cancel, now=trio.current_time())

    def _unqueue(self, entry: Entry) -> None:
        queue = self._queue(entry.task.queue)
        queue.remove(entry)
        self._release_spec(entry)
        self._pull_if_wanted(queue)

    def _release_spec(self, entry: Entry) -> TaskSpec | None:
        spec, entry.spec = entry.spec, None
        if spec is not None:
            self._spec_bytes -= spec_bytes(spec)
        return spec

    def _expire(self, ref: TaskRef, waited_seconds: float) -> None:
        entry = self._known.get(ref)
        if entry is not None and entry.where in (Whereabouts.RUNNING, Whereabouts.FINISHED):
            return
        self._retired(ref, cancel=False)
        self._expired.append(TaskExpired(ref, waited_seconds))

    # --- the daemon's Worker ---------------------------------------------------------------------------------------

    def _attach(self, message: AttachWorker) -> None:
        again = self._slots.attach(message)
        if again is None:
            return
        for entry in again:
            self._queue_up(self._queue(entry.task.queue), entry)
        self._ready = OrderedDict.fromkeys(
            queue.key for queue in self._queues.values() if queue.depth and self._slots.serves(queue)
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
        for entry in self._slots.finished(message, trio.current_time()):
            self._finished.watch(entry)

    def _hand_out(self) -> None:
        """Give what can be given, to the Worker and to pollers."""
        for key in self._matchable:
            self._match(self._queue(key))
        self._matchable.clear()
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
        if slots.to_cancel and link.offer(CancelTasks(slots.to_cancel)):
            slots.to_cancel = []
        full = not self._announced or bool(slots.to_cancel)
        while self._ready and slots.free and not full:
            key = next(iter(self._ready))
            queue = self._queue(key)
            entry = queue.take()
            if entry is None:
                del self._ready[key]
                continue
            if not link.offer(RunTask(entry.ref, entry.spec)):
                queue.add(entry, now)
                full = True
                break
            self._release_spec(entry)
            slots.take(entry, now)
            self._count(queue, 1, now)
            if self._metrics is not None:
                self._metrics.dispatched(TaskKind.NODE, 1)
            self._ready.move_to_end(key)
        if full:
            self._worker_full_until = now + WORKER_RETRY_SECONDS

    def _count(self, queue: TaskQueue, tasks: int, now: float) -> None:
        queue.dispatched += tasks
        queue.rate.count(now, tasks)
        self._pull_if_wanted(queue)

    # --- pollers ---------------------------------------------------------------------------------------------------

    def _asked(self, request: Request) -> None:
        match request.call:
            case MatchTasks() as call:
                self._poll(request, call)
            case ListQueues():
                request.answer(ListQueuesResult(queues=self._views(request.caller.tenant)))
            case other:
                request.refuse(
                    Refused(ErrorStatus.INVALID_ARGUMENT, f"Matching does not answer {type(other).__name__}")
                )

    def _poll(self, request: Request, call: MatchTasks) -> None:
        if call.queue.tenant != request.caller.tenant:
            request.refuse(Refused(ErrorStatus.PERMISSION_DENIED, f"queue {call.queue.name} is another tenant's"))
            return
        queue = self._queue(call.queue)
        if queue.is_node:
            request.refuse(
                Refused(ErrorStatus.INVALID_ARGUMENT, f"queue {call.queue.name} is served by the daemon's own worker")
            )
            return
        if len(queue.pollers) >= POLLERS:
            queue.drop_ended_pollers()
        if len(queue.pollers) >= POLLERS:
            request.refuse(
                Refused(
                    ErrorStatus.RESOURCE_EXHAUSTED,
                    f"{POLLERS} polls wait for queue {call.queue.name} already; poll with fewer workers, or for more "
                    "tasks at once",
                    {"retry_after_seconds": 1.0},
                )
            )
            return
        deadline = min(trio.current_time() + call.wait_seconds, request.deadline - ANSWER_AHEAD_SECONDS)
        poller = Poller(request, call.queue, call.max_tasks, deadline)
        queue.pollers.append(poller)
        self._arrivals += 1
        if len(self._polls) >= self._polls_limit:
            self._polls = [item for item in self._polls if not item[2].ended]
            heapq.heapify(self._polls)
            self._polls_limit = 2 * len(self._polls) + 64
        heapq.heappush(self._polls, (deadline, self._arrivals, poller))
        self._matchable[queue.key] = None

    def _match(self, queue: TaskQueue) -> None:
        """Give the queue's tasks to those who have waited longest for them."""
        now = trio.current_time()
        while queue.depth and (poller := queue.next_poller()) is not None:
            refs: list[TaskRef] = []
            while len(refs) < poller.max_tasks and (entry := queue.take()) is not None:
                self._release_spec(entry)
                entry.move(Whereabouts.GIVEN, now)
                self._given.watch(entry)
                refs.append(entry.ref)
            poller.request.answer(MatchTasksResult(tasks=refs))
            self._count(queue, len(refs), now)

    # --- time ------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> float:
        while self._polls and self._polls[0][2].ended:
            heapq.heappop(self._polls)
        times = (
            self._polls[0][0] if self._polls else None,
            self._given.next_at(),
            self._finished.next_at(),
            self._slots.next_at(),
            self._worker_full_until,
        )
        return min((at for at in times if at is not None), default=float("inf"))

    def _mind_deadlines(self) -> None:
        """Let go of what has waited, or stayed somewhere, for too long."""
        now = trio.current_time()
        while self._polls and (self._polls[0][2].ended or self._polls[0][0] <= now):
            poller = heapq.heappop(self._polls)[2]
            if not poller.ended:
                self._end_poll(poller)
        self._slots.mind(now)
        for entry in (*self._given.take(now), *self._finished.take(now)):
            # Whether it still waits, the store knows.
            del self._known[entry.ref]
            entry.where = Whereabouts.GONE
            self._pull_soon(entry.task.queue)

    def _end_poll(self, poller: Poller) -> None:
        queue = self._queue(poller.queue)
        if queue.depth and poller.request.awaited:
            # Its time is up in the very moment in which there is something for it.
            self._match(queue)
        if not poller.ended:
            poller.ended = True
            poller.request.answer(MatchTasksResult(tasks=[]))
            queue.trim_pollers()

    # --- pulling from the store ------------------------------------------------------------------------------------

    def _refill(self, queues: list[QueueKey] | None) -> None:
        if queues is None:
            self._pull_everything = True
            self._pull_wake.set()
        for key in queues or []:
            self._pull_soon(key)

    def _pull_if_wanted(self, queue: TaskQueue) -> None:
        if queue.wants_pull:
            self._pull_soon(queue.key)

    def _pull_soon(self, key: QueueKey) -> None:
        queue = self._queue(key)
        queue.missed = True
        if not queue.behind:
            queue.fall_behind()
        self._to_pull[key] = None
        self._pull_wake.set()

    async def _pull(self) -> None:
        """Bring what waits in the store into memory, queue after queue, whenever one asks for it."""
        pause = PULL_PAUSE_SECONDS
        while True:
            if not self._to_pull and not self._pull_everything:
                self._pull_wake = trio.Event()
                await self._pull_wake.wait()
            try:
                if self._pull_everything:
                    await self._pull_backlogs()
                else:
                    await self._pull_queue(next(iter(self._to_pull)))
                pause = PULL_PAUSE_SECONDS
            except StoreUnavailable as error:
                if pause == PULL_PAUSE_SECONDS:
                    log.warning("the store cannot be read; queues are pulled when it is back", reason=str(error))
                await self._store.wait_ready()
                await trio.sleep(pause)
                pause = min(2 * pause, PULL_PAUSE_LIMIT_SECONDS)

    async def _pull_backlogs(self) -> None:
        self._pull_everything = False
        try:
            backlogs = await self._store.queue_backlogs()
        except StoreUnavailable:
            self._pull_everything = True
            raise
        for backlog in backlogs:
            self._pull_soon(backlog.queue)
            queue = self._queue(backlog.queue)
            queue.unseen = max(backlog.depth - queue.depth, 0)

    async def _pull_queue(self, key: QueueKey) -> None:
        """Fill one queue from its first task on. What memory knows already is passed over."""
        queue = self._queue(key)
        del self._to_pull[key]
        queue.pulling, queue.missed = True, False
        try:
            complete = await self._pages.fill(queue, self._known.__contains__, partial(self._pulled, queue))
        except StoreUnavailable:
            self._to_pull[key] = None
            raise
        finally:
            queue.pulling = False
        if complete and not queue.missed:
            queue.catch_up()
        else:
            queue.fall_behind()
            self._pull_if_wanted(queue)

    def _pulled(self, queue: TaskQueue, tasks: list[QueuedTask]) -> None:
        for task in tasks:
            self._admit(queue, task, None)
        queue.unseen = max(queue.unseen - len(tasks), 0)
        self._hand_out()

    # --- what it looks like ----------------------------------------------------------------------------------------

    def _views(self, tenant: str) -> list[QueueView]:
        now, today = trio.current_time(), self._clock.now()
        views: list[QueueView] = []
        for queue in self._queues.values():
            if queue.key.tenant != tenant:
                continue
            if queue.is_node:
                pollers = int(self._slots.serves(queue))
            else:
                queue.drop_ended_pollers()
                pollers = len(queue.pollers)
            oldest = queue.oldest()
            views.append(
                QueueView(
                    queue=queue.key.name,
                    kind=queue.key.kind.value,
                    depth=queue.depth + queue.unseen,
                    oldest_seconds=max(today - oldest, 0) / 1000 if oldest is not None else 0.0,
                    pollers=pollers,
                    dispatched=queue.dispatched,
                    rate=queue.rate.per_second(now),
                )
            )
        return sorted(views, key=lambda view: (view.kind, view.queue))
