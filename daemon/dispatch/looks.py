"""What queues and circuit breakers look like from outside: the answers to ListQueues and ListBreakers.

Reads only. Memory knows how many tasks wait, but where tasks are left to the store because of their destination: then
the store is asked.
"""

from __future__ import annotations

import structlog
import trio

from daemon.clock import Clock
from daemon.dispatch.breakers import Breakers
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.node_polls import NodePolls
from daemon.dispatch.slots import WorkerSlots
from daemon.dispatch.task_queue import TaskQueue
from daemon.dispatch.waiting_tasks import WaitingTasks
from daemon.links.interface import Request
from daemon.stores.interface import StoreUnavailable
from daemon.stores.rows import DestinationBacklog
from enginekit.messages.calls import ListQueuesResult, QueueView
from enginekit.messages.links import ListBreakersResult

COUNTING_SHARE = 0.05
"""The share of the time in which the store may be at counting a tenant's tasks; in between its last answer is given."""
TENANTS = 1000
"""Tenants whose last answer is kept."""

log = structlog.get_logger("daemon.matching")


class Looks:
    def __init__(
        self,
        store: WaitingTasks,
        tasks: KnownTasks,
        slots: WorkerSlots,
        node_polls: NodePolls,
        breakers: Breakers,
        clock: Clock,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._slots = slots
        self._node_polls = node_polls
        self._breakers = breakers
        self._clock = clock
        self._counted: dict[str, tuple[float, list[DestinationBacklog]]] = {}

    async def queues(self, request: Request) -> None:
        """Answer with the queues of the caller's tenant."""
        tenant = request.caller.tenant
        queues = self._tasks.queues_of(tenant)
        backlogs = await self._backlogs(tenant) if any(queue.parking.any_left for queue in queues) else None
        views = [self._view(queue, backlogs) for queue in queues]
        request.answer(ListQueuesResult(queues=sorted(views, key=lambda view: (view.kind, view.queue))))

    async def breakers(self, request: Request) -> None:
        """Answer with the breakers of the caller's tenant."""
        tenant = request.caller.tenant
        backlogs: list[DestinationBacklog] | None = None
        if self._breakers.troubled(tenant, trio.current_time()) and any(
            queue.behind or queue.parking.any_left for queue in self._tasks.queues_of(tenant)
        ):
            backlogs = await self._backlogs(tenant)
        views = self._breakers.views(tenant, backlogs, self._slots.attached, trio.current_time(), self._clock.now())
        request.answer(ListBreakersResult(breakers=views))

    async def _backlogs(self, tenant: str) -> list[DestinationBacklog] | None:
        """What the store has, or had a moment ago: to count many takes it a while. None while it cannot be read."""
        began = trio.current_time()
        until, backlogs = self._counted.get(tenant, (began, []))
        if began < until:
            return backlogs
        try:
            backlogs = await self._store.destination_backlogs(tenant)
        except StoreUnavailable:
            log.info("the store cannot be read; the numbers of waiting tasks are those of memory", tenant=tenant)
            return None
        now = trio.current_time()
        if len(self._counted) >= TENANTS:
            self._counted.clear()
        self._counted[tenant] = (now + (now - began) / COUNTING_SHARE, backlogs)
        return backlogs

    def _view(self, queue: TaskQueue, backlogs: list[DestinationBacklog] | None) -> QueueView:
        if queue.is_node:
            pollers = int(self._slots.serves(queue)) + self._node_polls.serving(queue.key)
        else:
            queue.drop_ended_pollers()
            pollers = len(queue.pollers)
        depth = queue.depth + len(queue.parking) + queue.unseen
        if backlogs is not None and queue.parking.any_left:
            # The store counts those that the Worker has, too: it records their start with their outcome.
            waiting = sum(backlog.depth for backlog in backlogs if backlog.queue == queue.key)
            depth = max(waiting - self._slots.running(queue.key), 0)
        oldest = queue.oldest()
        return QueueView(
            queue=queue.key.name,
            kind=queue.key.kind.value,
            depth=depth,
            oldest_seconds=max(self._clock.now() - oldest, 0) / 1000 if oldest is not None else 0.0,
            pollers=pollers,
            dispatched=queue.dispatched,
            rate=queue.rate.per_second(trio.current_time()),
        )
