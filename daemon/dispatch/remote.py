"""Where a Worker is a process of its own: what stands between it and the partitions, in the place of Matching.

The Worker says how many slots it has, as it does to Matching. Every partition is asked for as many tasks as are free,
their start is recorded by History, and only then the Worker is told to run them. While it has them their leases are
renewed; what it says of an outcome goes to History with the number of the start that it belongs to, what it says of
destinations to the partition that gave the task.

How the free slots are shared out: a partition that had more than it could give is asked again at once, for its share of
them. One that had nothing is left with a poll that waits for one task, whatever else is asked for, so that what comes
there is noticed. Such a task may come when all slots are taken: it is handed back, before anybody has recorded a start.

What can be lost on the way, and what makes good for it: a poll's answer (the partition misses the start, and gives the
task to somebody else), a start's answer (asked for again: it is given again to the same Worker), a renewal (the next
one; after a whole lease the task is another's, and the Worker is told to stop), an outcome (the Worker reports it
again). Whatever ends here at once is noticed by the lease.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from typing import TypeVar

import msgspec
import structlog
import trio

from daemon.dispatch.held import HeldTasks
from daemon.links.exchange import Exchange
from daemon.links.interface import Caller, Link, Request
from daemon.links.memory import MemoryLink
from daemon.links.table import Links
from enginekit.messages.calls import Call, Result
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
    DestinationReport,
    EndNodePolls,
    GiveBackTasks,
    HandBackTasks,
    MatchNodes,
    MatchNodesResult,
    OutcomesRecorded,
    Ping,
    Pong,
    RenewTasks,
    RunTask,
    StartedNode,
    StartNodes,
    StartNodesResult,
    TaskOutcome,
    TaskRef,
    TasksFinished,
    ToHistory,
    ToMatching,
    ToWorker,
)
from enginekit.messages.status import ErrorStatus, Refused

R = TypeVar("R", bound=Result)

log = structlog.get_logger("daemon.remote")

WAIT_SECONDS = 5.0
"""How long a poll waits for a task. Who has the partition may have changed meanwhile."""
ANSWER_SECONDS = 2.0
"""What an answer may take beyond that."""
START_SECONDS = 10.0
"""How long the start of tasks is tried to be recorded; then they are left to the partition."""
PAUSE_SECONDS = 0.2
"""Before something that was refused is asked again."""
DRAIN_SECONDS = 5.0
"""How long the end of a drain waits for what was asked for."""
RENEWALS = 3
"""In each lease."""
RENEWED = 1000
"""Tasks in one message."""
CAPACITY = 16_384
"""Of the links to and from the Worker: more than it has slots."""


def new_worker_id(entropy: random.Random) -> str:
    """A name for the Worker of this process, which no other has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{entropy.getrandbits(32):08x}"


class RemoteSlots:
    """For one process: made once, run again where it failed. `links` are the Worker's, `worker_id` is its name."""

    def __init__(self, exchange: Exchange, history: Link[ToHistory], partitions: int, worker_id: str) -> None:
        self._exchange = exchange
        self._history = history
        self._partitions = [exchange.matching(partition) for partition in range(partitions)]
        self._worker_id = worker_id
        self._caller = Caller(tenant="", subject=worker_id)
        self._to_worker: MemoryLink[ToWorker] = MemoryLink("Worker", CAPACITY)
        self._from_worker: MemoryLink[ToMatching] = MemoryLink("Matching", CAPACITY)
        self.links = Links(
            history=_Reports(self, self._history),
            matching=self._from_worker,
            worker=self._to_worker,
            timer=exchange.timer,
        )

        self._slots = 0
        self._resources: list[str] = []
        self._incarnation: int | None = None
        self._held = HeldTasks()
        self._lease_seconds = float("inf")
        self._some_held = trio.Event()
        self._nursery: trio.Nursery
        self._begin()

    def _begin(self) -> None:
        self._draining = False
        self._polling = 0
        self._asked_for = 0
        self._starting: set[TaskRef] = set()
        self._called_off: set[TaskRef] = set()
        self._to_ask = deque(range(len(self._partitions)))
        self._quiet: deque[int] = deque()
        self._at_rest = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. What the Worker runs it goes on with when this failed and is run again. Cancelled
        after `drain`: what it still runs is given back."""
        self._begin()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._hear)
                nursery.start_soon(self._renew)
                await self._to_worker.send(Announce())
                task_status.started()
                while True:
                    for message in await self._from_worker.receive():
                        self._take(message)
                    self._ask()
        finally:
            if self._draining:
                self._give_back(self._held.unreported(), "its worker was stopped")

    async def drain(self) -> None:
        """Take no more. Returns when the Worker has been told of all that was taken."""
        self._draining = True
        for partition in self._partitions:
            partition.offer(EndNodePolls(self._worker_id))
        with trio.move_on_after(DRAIN_SECONDS):
            while self._polling or self._starting:
                self._at_rest = trio.Event()
                await self._at_rest.wait()
            try:
                await self._to_worker.request(self._caller, Ping(), Pong, DRAIN_SECONDS)
            except Refused as refused:
                log.info("the worker does not answer", why=refused.message)

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self._held.running

    # --- what the Worker says ----------------------------------------------------------------------------------------

    def _take(self, message: ToMatching | Request) -> None:
        match message:
            case AttachWorker():
                self._attach(message)
            case TasksFinished(incarnation=incarnation) if incarnation == self._incarnation:
                self._finished(message)
            case Request(call=Ping()):
                message.answer(Pong())
            case Request():
                name = type(message.call).__name__
                message.refuse(Refused(ErrorStatus.INVALID_ARGUMENT, f"a worker's process does not answer {name}"))

    def _attach(self, message: AttachWorker) -> None:
        if self._incarnation is not None and message.incarnation < self._incarnation:
            return
        if message.incarnation != self._incarnation:
            lost = self._held.unreported()
            self._held.clear()
            self._give_back(lost, "its worker has started again")
            self._incarnation = message.incarnation
        self._slots = message.slots
        self._resources = message.resources

    def _finished(self, message: TasksFinished) -> None:
        told: dict[int, tuple[list[TaskRef], list[DestinationReport]]] = {}
        for report in message.reports:
            held = self._held.get(report.task)
            if held is not None:
                told.setdefault(held.partition, ([], []))[1].append(report)
        unrun: list[TaskRef] = []
        for ref in message.tasks:
            held = self._held.finished(ref)
            if held is None:
                continue
            if held.destination is not None:
                told.setdefault(held.partition, ([], []))[0].append(ref)
            if not held.reported and not held.settled:
                unrun.append(ref)
        self._give_back(unrun, "its worker did not run it")
        for partition, (tasks, reports) in told.items():
            self._partitions[partition].offer(TasksFinished(self._worker_id, 0, tasks, reports))

    def _give_back(self, tasks: list[TaskRef], reason: str) -> None:
        if tasks and not self._history.offer(GiveBackTasks(self._worker_id, tasks, reason)):
            log.warning("tasks could not be given back: they come back when their leases lapse", tasks=len(tasks))

    def reporting(self, outcome: TaskOutcome) -> TaskOutcome | None:
        """The outcome as History is to have it; None where it is of a task that was taken from this Worker."""
        held = self._held.get(outcome.task)
        if held is None:
            self._to_worker.offer(OutcomesRecorded(self._worker_id, [outcome.task]))
            return None
        held.reported = True
        return msgspec.structs.replace(outcome, returns=held.returns)

    # --- what History says -------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        inbox = self._exchange.worker(self._worker_id)
        while True:
            for message in await inbox.receive():
                match message:
                    case OutcomesRecorded(tasks=tasks):
                        for ref in tasks:
                            self._held.settle(ref, recorded=True)
                        await self._to_worker.send(message)
                    case CancelTasks(tasks=tasks):
                        self._called_off |= self._starting.intersection(tasks)
                        for ref in tasks:
                            self._held.settle(ref, recorded=False)
                        await self._to_worker.send(message)

    async def _renew(self) -> None:
        while True:
            await self._some_held.wait()
            await trio.sleep(self._lease_seconds / RENEWALS)
            tasks = self._held.to_renew()
            if not tasks:
                self._some_held = trio.Event()
            for at in range(0, len(tasks), RENEWED):
                await self._history.send(RenewTasks(self._worker_id, tasks[at : at + RENEWED]))

    # --- polling -----------------------------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        """Slots that nothing is running in, or is about to."""
        return self._slots - self._held.running - len(self._starting)

    def _ask(self) -> None:
        """Have as many polls under way as there is room for."""
        while not self._draining and self._to_ask and (free := self._free - self._asked_for) > 0:
            share = max(free // len(self._to_ask), 1)
            self._asked_for += share
            self._poll_soon(self._to_ask.popleft(), share, 0.0)
        while not self._draining and self._quiet and self._free - self._asked_for > 0:
            self._poll_soon(self._quiet.popleft(), 1, WAIT_SECONDS)

    def _poll_soon(self, partition: int, max_tasks: int, wait_seconds: float) -> None:
        self._polling += 1
        self._nursery.start_soon(self._poll, partition, max_tasks, wait_seconds)

    async def _poll(self, partition: int, max_tasks: int, wait_seconds: float) -> None:
        found = await self._match(partition, max_tasks, wait_seconds)
        self._polling -= 1
        if not wait_seconds:
            self._asked_for -= max_tasks
        room = 0 if self._draining else max(self._free - self._asked_for, 0)
        taken, surplus = found.tasks[:room], found.tasks[room:]
        if surplus:
            self._partitions[partition].offer(HandBackTasks(surplus))
        self._starting.update(taken)
        (self._to_ask if found.more or surplus else self._quiet).append(partition)
        self._ask()
        if taken:
            await self._start(partition, taken)
            self._ask()
        self._at_rest.set()

    async def _match(self, partition: int, max_tasks: int, wait_seconds: float) -> MatchNodesResult:
        call = MatchNodes(
            resources=self._resources, worker_id=self._worker_id, max_tasks=max_tasks, wait_seconds=wait_seconds
        )
        try:
            link = self._partitions[partition]
            return await link.request(self._caller, call, MatchNodesResult, wait_seconds + ANSWER_SECONDS)
        except Refused as refused:
            log.info("a partition gives no tasks", partition=partition, why=refused.message)
            await trio.sleep(PAUSE_SECONDS)
            return MatchNodesResult(tasks=[])

    async def _start(self, partition: int, tasks: list[TaskRef]) -> None:
        """Have their start recorded, and the Worker run them."""
        deadline = trio.current_time() + START_SECONDS
        while tasks and trio.current_time() < deadline:
            answer = await self._record_start(tasks)
            for started in answer.tasks:
                self._starting.discard(started.spec.task)
                await self._run(partition, started)
            left = set(answer.rest)
            self._never_began(partition, [ref for ref in tasks if ref in self._starting and ref not in left])
            tasks = answer.rest
        self._never_began(partition, tasks)

    async def _record_start(self, tasks: list[TaskRef]) -> StartNodesResult:
        call = StartNodes(tasks=tasks, worker_id=self._worker_id)
        try:
            answer = await self._history.request(self._caller, call, StartNodesResult, ANSWER_SECONDS)
        except Refused as refused:
            log.info("the start of tasks was not recorded; asking again", tasks=len(tasks), why=refused.message)
            answer = StartNodesResult(tasks=[], rest=tasks)
        if not answer.tasks and answer.rest:
            await trio.sleep(PAUSE_SECONDS)
        return answer

    async def _run(self, partition: int, started: StartedNode) -> None:
        ref = started.spec.task
        if ref in self._called_off:
            self._called_off.discard(ref)
        elif not self._slots:
            self._give_back([ref], "its worker is being stopped")
        elif self._held.take(started, partition):
            self._lease_seconds = min(self._lease_seconds, started.lease_seconds)
            self._some_held.set()
            await self._to_worker.send(RunTask(ref, started.spec))

    def _never_began(self, partition: int, tasks: list[TaskRef]) -> None:
        """They are over, or somebody else's."""
        self._starting.difference_update(tasks)
        self._called_off.difference_update(tasks)
        if tasks:
            self._partitions[partition].offer(TasksFinished(self._worker_id, 0, tasks))


class _Reports(Link[ToHistory]):
    """The Worker's way to History: outcomes go with the number of the start that they belong to."""

    def __init__(self, slots: RemoteSlots, history: Link[ToHistory]) -> None:
        self._slots = slots
        self._history = history

    def offer(self, message: ToHistory) -> bool:
        known = self._known(message)
        return known is None or self._history.offer(known)

    async def send(self, message: ToHistory) -> None:
        known = self._known(message)
        if known is not None:
            await self._history.send(known)

    def _known(self, message: ToHistory) -> ToHistory | None:
        return self._slots.reporting(message) if isinstance(message, TaskOutcome) else message

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        return await self._history.request(caller, call, result, timeout)

    async def receive(self, limit: int = 256) -> list[ToHistory | Request]:
        raise TypeError("History receives elsewhere")
