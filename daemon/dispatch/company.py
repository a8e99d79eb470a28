"""What those who share the queues of a partition tell one another of them, and what a queue looks like from outside,
all of them taken together.

No I/O and no clock (the time is passed in), but for the answers to requests and what is read for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from daemon.clock import Clock
from daemon.dispatch.breakers import Breakers
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.looks import Looks
from daemon.dispatch.node_polls import NodePolls
from daemon.dispatch.slots import WorkerSlots
from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.links.interface import Request
from daemon.queues.interface import Depth, Numbers, PartitionQueues, Report
from enginekit.messages.calls import ListQueuesResult, QueueView
from enginekit.messages.links import ListBreakersResult, QueueKey

REPORT_SECONDS = 1.0
"""How often the others are told, at most."""
AGAIN_SECONDS = 10.0
"""How often they are told the same again; who is not heard of for more than twice as long counts for nothing."""


class Company:
    """`member` is the name of this one."""

    def __init__(self, member: str) -> None:
        self._member = member
        self._told: list[Numbers] = []
        self._told_at = float("-inf")
        self._others: dict[str, tuple[float, dict[QueueKey, Numbers]]] = {}

    def report(self, queues: Iterable[TaskQueue], serving: Callable[[QueueKey], int], now: float) -> Report | None:
        """What the others are to be told; None where they know."""
        numbers = [each for each in (numbers_of(queue, serving, now) for queue in queues) if _any(each)]
        if numbers == self._told and (not numbers or now < self._told_at + AGAIN_SECONDS):
            return None
        self._told, self._told_at = numbers, now
        return Report(member=self._member, numbers=numbers)

    def hear(self, report: Report, now: float) -> None:
        if report.member != self._member:
            self._others[report.member] = (now + 2.5 * AGAIN_SECONDS, {each.queue: each for each in report.numbers})

    def others(self, now: float) -> list[dict[QueueKey, Numbers]]:
        """What the others have to do with queues."""
        self._others = {member: told for member, told in self._others.items() if told[0] > now}
        return [numbers for _, numbers in self._others.values()]


def numbers_of(queue: TaskQueue, serving: Callable[[QueueKey], int], now: float) -> Numbers:
    if not queue.is_node:
        queue.drop_ended_pollers()
    return Numbers(
        queue=queue.key,
        pollers=serving(queue.key) if queue.is_node else len(queue.pollers),
        dispatched=queue.dispatched,
        rate=queue.rate.per_second(now),
    )


def _any(numbers: Numbers) -> bool:
    return bool(numbers.pollers or numbers.dispatched)


class SharedLooks(Looks):
    """As of a Matching that has its queues to itself, with what the others told."""

    def __init__(
        self,
        store: WaitingTasks,
        tasks: KnownTasks,
        node_polls: NodePolls,
        breakers: Breakers,
        clock: Clock,
        queues: PartitionQueues,
        company: Company,
    ) -> None:
        super().__init__(store, tasks, WorkerSlots(), node_polls, breakers, clock)
        self._queues = queues
        self._company = company

    async def queues(self, request: Request) -> None:
        """Answer with the queues of the caller's tenant."""
        tenant = request.caller.tenant
        depths = {each.queue: each for each in await self._queues.depths() if each.queue.tenant == tenant}
        now = trio.current_time()
        told = [
            {queue.key: numbers_of(queue, self._node_polls.serving, now) for queue in self._tasks.queues_of(tenant)},
            *self._company.others(now),
        ]
        keys = {key: None for numbers in told for key in numbers if key.tenant == tenant} | dict.fromkeys(depths)
        views = [
            self._shared_view(key, depths.get(key), [numbers[key] for numbers in told if key in numbers])
            for key in keys
        ]
        request.answer(ListQueuesResult(queues=sorted(views, key=lambda view: (view.kind, view.queue))))

    async def breakers(self, request: Request) -> None:
        """Answer with the breakers of the caller's tenant."""
        tenant = request.caller.tenant
        troubled = self._breakers.troubled(tenant, trio.current_time())
        backlogs = await self._backlogs(tenant) if troubled else None
        views = self._breakers.views(tenant, backlogs, False, trio.current_time(), self._clock.now())
        request.answer(ListBreakersResult(breakers=views))

    def _shared_view(self, key: QueueKey, depth: Depth | None, told: list[Numbers]) -> QueueView:
        return QueueView(
            queue=key.name,
            kind=key.kind.value,
            depth=0 if depth is None else depth.depth,
            oldest_seconds=0.0 if depth is None else max(self._clock.now() - depth.oldest, 0) / 1000,
            pollers=sum(each.pollers for each in told),
            dispatched=sum(each.dispatched for each in told),
            rate=sum(each.rate for each in told),
        )
