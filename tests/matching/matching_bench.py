"""A Matching on memory links and the memory store; the test plays History, the Worker and the pollers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import trio
import trio.testing
from msgspec import Raw
from prometheus_client import CollectorRegistry

from daemon.clock import TrioClock
from daemon.links.interface import Caller, Link, Request
from daemon.links.memory import MemoryLink
from daemon.links.table import Links, memory_links
from daemon.metrics import Metrics
from daemon.nurseries.matching import Matching
from daemon.settings import BreakerSettings, MatchingSettings
from daemon.stores.faults import StoreUnavailable
from daemon.stores.memory import MemoryStore
from daemon.stores.rows import Batch, DestinationBacklog, NewExecution, QueueBacklog, RunWrite, TaskCursor
from enginekit.messages.calls import BreakerView, ListQueues, ListQueuesResult, QueueView
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    AttachWorker,
    CancelTasks,
    DestinationReport,
    ListBreakers,
    ListBreakersResult,
    MatchNodes,
    MatchNodesResult,
    MatchTasks,
    MatchTasksResult,
    OfferTask,
    QueuedTask,
    QueueKey,
    RetireTasks,
    RunRef,
    RunTask,
    TaskRef,
    TasksFinished,
    TaskSpec,
    ToHistory,
    ToMatching,
    ToWorker,
)
from enginekit.messages.status import BreakerState

SOME_QUEUE = QueueKey(tenant="acme", kind=TaskKind.NODE, name="echo")
"""Where a message goes; Matching itself does not look."""
RESOURCES = ["echo", "http"]

M = TypeVar("M")


class FlakyStore(MemoryStore):
    """The memory store, with reads that can be made to fail, or held up halfway."""

    def __init__(self) -> None:
        super().__init__(shards=1, token_key=b"key")
        self.away = False
        self.reads = 0
        self.read_tasks = 0
        self.counted = 0
        self.counting_seconds = 0.0
        self.came_back = trio.Event()
        self.hold: trio.Event | None = None
        self.held = trio.Event()

    async def wait_ready(self) -> None:
        await self.came_back.wait()

    async def queue_backlogs(self) -> list[QueueBacklog]:
        self._check_there()
        return await super().queue_backlogs()

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        self._check_there()
        self.counted += 1
        await trio.sleep(self.counting_seconds)
        return await super().destination_backlogs(tenant)

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]:
        self._check_there()
        self.reads += 1
        page = await super().waiting_tasks(queue, limit, after, without)
        self.read_tasks += len(page)
        if self.hold is not None:
            self.held.set()
            await self.hold.wait()
        return page

    def _check_there(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")


class Bench:
    def __init__(self, queue_tasks: int = 2000, breakers: BreakerSettings | None = None) -> None:
        self.links: Links = memory_links()
        self.store = FlakyStore()
        self.clock = TrioClock()
        self.settings = MatchingSettings(queue_tasks=queue_tasks)
        self.breakers = breakers if breakers is not None else BreakerSettings()
        self.metrics = Metrics(CollectorRegistry())
        self.serial = 0
        self.matching: Matching | None = None
        self.destinations: dict[TaskRef, str] = {}
        self.more = False

    # --- the test as History ---

    async def commit(
        self,
        count: int = 1,
        *,
        tenant: str = "acme",
        kind: TaskKind = TaskKind.NODE,
        name: str = "echo",
        priority: int = 0,
        scheduled_at: int | None = None,
        destination: str | None = None,
    ) -> list[QueuedTask]:
        """Schedule tasks of one new run, on disk; nobody is told."""
        if self.serial == 0:
            await self.store.take_shards()
        self.serial += 1
        run = RunRef(tenant=tenant, workflow_id=f"w{self.serial:05}", run_id=f"r{self.serial:05}")
        queue = QueueKey(tenant=tenant, kind=kind, name=name)
        at = scheduled_at if scheduled_at is not None else self.clock.now() + self.serial
        tasks = [QueuedTask(TaskRef(run, n), queue, priority, at, destination) for n in range(1, count + 1)]
        if destination is not None:
            self.destinations |= dict.fromkeys((task.task for task in tasks), destination)
        created = NewExecution(
            workflow=None, version=None, definition_hash="h", labels={}, request_id=None, started_at=at
        )
        await self.store.commit(
            Batch(
                runs=[
                    RunWrite(
                        shard=0,
                        epoch=1,
                        run=run,
                        first_event_id=1,
                        events=[b"{}"] * count,
                        wake_at=None,
                        created=created,
                        tasks_added=tasks,
                    )
                ]
            )
        )
        return tasks

    async def remove(self, *refs: TaskRef, started: bool = False) -> None:
        """These are over (or started), on disk; nobody is told."""
        for ref in refs:
            over = {"tasks_started" if started else "tasks_removed": [ref.event_id]}
            await self.store.commit(
                Batch(
                    runs=[
                        RunWrite(shard=0, epoch=1, run=ref.run, first_event_id=1, events=[], wake_at=None, **over)  # type: ignore[arg-type]
                    ]
                )
            )

    def returned(self, ref: TaskRef) -> Batch:
        """What writes that it waits again."""
        again = RunWrite(
            shard=0, epoch=1, run=ref.run, first_event_id=1, events=[], wake_at=None, tasks_returned=[ref.event_id]
        )
        return Batch(runs=[again])

    def tell(self, message: ToMatching) -> None:
        assert self.links.matching.offer(message)

    def offer(self, tasks: list[QueuedTask], *, specs: bool = False, input: bytes = b"{}") -> None:
        for task in tasks:
            self.tell(OfferTask(task, spec_of(task, input) if specs else None))

    async def schedule(self, count: int = 1, **how: object) -> list[TaskRef]:
        """Commit and offer."""
        tasks = await self.commit(count, **how)  # type: ignore[arg-type]
        self.offer(tasks)
        await settle()
        return [task.task for task in tasks]

    async def end(self, *refs: TaskRef, cancel: bool = False) -> None:
        """Remove and retire."""
        await self.remove(*refs)
        self.tell(RetireTasks(list(refs), cancel))
        await settle()

    async def to_history(self) -> list[ToHistory]:
        return await drained(self.links.history)

    # --- the test as the Worker ---

    async def attach(self, slots: int, incarnation: int = 1, resources: list[str] | None = None) -> None:
        self.tell(AttachWorker("daemon", incarnation, RESOURCES if resources is None else resources, slots))
        await settle()

    async def finish(self, *refs: TaskRef, incarnation: int = 1) -> None:
        self.tell(TasksFinished("daemon", incarnation, list(refs)))
        await settle()

    async def failed(self, *refs: TaskRef) -> None:
        """Their destination did not do its work; the attempts are over, on disk and everywhere."""
        await self._reported(refs, healthy=False)

    async def went_well(self, *refs: TaskRef) -> None:
        await self._reported(refs, healthy=True)

    async def _reported(self, refs: Sequence[TaskRef], healthy: bool) -> None:
        reports = [DestinationReport(ref, self.destinations[ref], healthy) for ref in refs]
        self.tell(TasksFinished("daemon", 1, list(refs), reports))
        await settle()
        await self.end(*refs)

    async def work_off(self, healthy: Callable[[TaskRef], bool]) -> list[TaskRef]:
        """Run whatever is handed out until nothing is any more."""
        done: list[TaskRef] = []
        while handed := await self.handed():
            done += handed
            for ref in handed:
                await (self.went_well if healthy(ref) else self.failed)(ref)
        return done

    async def to_worker(self) -> list[ToWorker]:
        """Everything that was sent to the Worker since the last look."""
        return await drained(self.links.worker)

    async def handed(self) -> list[TaskRef]:
        return [m.task for m in await self.to_worker() if isinstance(m, RunTask)]

    async def canceled(self) -> list[TaskRef]:
        return [ref for m in await self.to_worker() if isinstance(m, CancelTasks) for ref in m.tasks]

    # --- the test as a Worker in another process ---

    async def poll_nodes(
        self,
        max_tasks: int = 1,
        *,
        resources: list[str] | None = None,
        worker_id: str = "w-1",
        wait_seconds: float = 30.0,
    ) -> list[TaskRef]:
        call = MatchNodes(
            resources=RESOURCES if resources is None else resources,
            worker_id=worker_id,
            max_tasks=max_tasks,
            wait_seconds=wait_seconds,
        )
        caller = Caller(tenant="", subject=worker_id)
        found = await self.links.matching.request(caller, call, MatchNodesResult, wait_seconds + 5)
        self.more = found.more
        return found.tasks

    async def begun(self, *refs: TaskRef) -> None:
        """Their start is on disk."""
        await self.remove(*refs, started=True)
        self.tell(RetireTasks(list(refs)))
        await settle()

    async def ended(self, *refs: TaskRef, healthy: bool | None = None) -> None:
        """The Worker in another process has ended them: first they are over, then it says how their destination did."""
        await self.end(*refs)
        reports = [] if healthy is None else [DestinationReport(ref, self.destinations[ref], healthy) for ref in refs]
        self.tell(TasksFinished("w-1", 0, list(refs), reports))
        await settle()

    # --- the test as somebody who polls or looks ---

    async def poll(
        self, name: str = "render", *, max_tasks: int = 1, wait_seconds: float = 30.0, tenant: str = "acme"
    ) -> list[TaskRef]:
        call = MatchTasks(
            queue=QueueKey(tenant=tenant, kind=TaskKind.ACTIVITY, name=name),
            worker_id="w",
            max_tasks=max_tasks,
            wait_seconds=wait_seconds,
        )
        caller = Caller(tenant=tenant, subject="w")
        return (await self.links.matching.request(caller, call, MatchTasksResult, wait_seconds + 5)).tasks

    async def views(self, tenant: str = "acme") -> dict[str, QueueView]:
        caller = Caller(tenant=tenant, subject="me")
        result = await self.links.matching.request(caller, ListQueues(), ListQueuesResult, 5)
        return {view.queue: view for view in result.queues}

    async def breakers_seen(self, tenant: str = "acme") -> list[BreakerView]:
        caller = Caller(tenant=tenant, subject="me")
        return (await self.links.matching.request(caller, ListBreakers(), ListBreakersResult, 5)).breakers

    async def breaker(self, destination: str) -> BreakerView:
        (found,) = [view for view in await self.breakers_seen() if view.destination == destination]
        return found

    def gauge(self, state: BreakerState) -> float | None:
        return self.metrics.registry.get_sample_value("engine_breakers", {"state": state.value})

    def in_memory(self) -> int:
        """How many tasks Matching knows."""
        assert self.matching is not None
        return self.matching.known

    # --- the service ---

    async def start(self, nursery: trio.Nursery) -> trio.CancelScope:
        """Start a Matching; cancelling the scope ends it."""
        matching = self.matching = Matching(
            self.links, self.store, self.settings, self.breakers, self.clock, self.metrics
        )
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await matching.run(task_status=task_status)

        await nursery.start(run)
        await settle()
        return scope


def spec_of(task: QueuedTask, input: bytes = b"{}") -> TaskSpec:
    return TaskSpec(
        task=task.task,
        resource=task.queue.name,
        node="N",
        path="N",
        input=Raw(input),
        attempt=1,
        timeout_seconds=60,
        idempotency_key="k",
    )


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def drained(link: Link[M]) -> list[M]:
    """All that waits in a memory link, without waiting for more."""
    assert isinstance(link, MemoryLink)
    found: list[M] = []
    while len(link):
        found += [message for message in await link.receive() if not isinstance(message, Request)]
    return found
