"""Many processes in one thread: Histories that share a store, partitions of the task queues, Workers and Timers, joined
by an exchange alone. What stands for a process is a nursery, and what stands for its network is a store that can be cut
off from it.

`simulate_cluster` runs a scenario against it; the seed decides everything that chance decides.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import trio
from prometheus_client import CollectorRegistry
from simulation import OWNER
from trio.testing import MockClock

from daemon.api.gateway import Gateway
from daemon.clock import TrioClock
from daemon.dispatch.membership import MemoryMembership
from daemon.dispatch.remote import RemoteSlots
from daemon.links.exchange import MemoryExchange
from daemon.links.table import shared_links
from daemon.metrics import Metrics
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.history import History
from daemon.nurseries.partitions import PartitionedMatching
from daemon.nurseries.timer import Timer
from daemon.nurseries.worker import Worker
from daemon.settings import Settings
from daemon.stores.interface import Fenced, StoreUnavailable
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages.events import AnyEvent, decode_event
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import ErrorStatus, Refused

T = TypeVar("T")
R = TypeVar("R", bound=calls.Result)

SHARDS = 8
CALL_SECONDS = 3.0
_ASYNC = {name for name in dir(MemoryStore) if not name.startswith("_")} - {"ready", "restarts", "fail_next_commit"}


class Wire:
    """A store as one process sees it. While it is cut, what is asked waits; when it is mended, it goes through after
    all, or was given up before that. It may be cut for all but some looks, which another connection is for. Its answers
    may be late, or be lost."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._mended = trio.Event()
        self._mended.set()
        self._passes: tuple[str, ...] = ()
        self.fenced = 0
        """Commits that the store has refused because another owns a shard."""
        self.late: dict[str, float] = {}
        """By what was asked: how many seconds its answer takes."""
        self.lost: list[str] = []
        """What is asked next of each of these is done, and nobody hears of it."""

    def cut(self, *passes: str) -> None:
        """All but these."""
        self._mended = trio.Event()
        self._passes = passes

    def mend(self) -> None:
        self._mended.set()

    def __getattr__(self, name: str) -> object:
        real = getattr(self._store, name)
        if name not in _ASYNC or name in ("run", "wait_ready"):
            return real

        async def call(*arguments: object) -> object:
            if not self._mended.is_set() and name not in self._passes:
                with trio.move_on_after(CALL_SECONDS):
                    await self._mended.wait()
                if not self._mended.is_set():
                    raise StoreUnavailable("nothing gets through")
            try:
                answer = await real(*arguments)
            except Fenced:
                self.fenced += 1
                raise
            await trio.sleep(self.late.get(name, 0.0))
            if name in self.lost:
                self.lost.remove(name)
                raise StoreUnavailable("its answer was lost")
            return answer

        return call


class Process:
    """Something that can be killed: nothing of it goes on, and nobody is told."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.wire = wire

    async def kill(self) -> None:
        if self.wire is not None:
            self.wire.cut()
        self.scope.cancel()
        await self.ended.wait()


class HistoryProcess(Process):
    def __init__(self, service: History, wire: Wire) -> None:
        super().__init__(wire)
        self.service = service
        self.wire = wire

    @property
    def shards(self) -> set[int]:
        return {view.shard for view in self.service.shards()}


class Cluster:
    def __init__(self, settings: Settings, seed: int, processes: trio.Nursery) -> None:
        self.settings = settings
        self.memory = MemoryStore(SHARDS, b"k" * 32, shared=True)
        self.exchange = MemoryExchange()
        self.links = shared_links(self.exchange, SHARDS, settings.matching.partitions, random.Random(f"{seed} ids"))
        self.clock = TrioClock()
        self.chance = random.Random(seed)
        self.membership = MemoryMembership()
        self.serial = itertools.count(1)
        self.gateway = Gateway(self.links, settings, _undescribed, self.clock, _metrics())
        self._processes = processes
        self._nodes = NodeTypes(settings)

    # --- processes --------------------------------------------------------------------------------------------------

    async def history(self) -> HistoryProcess:
        wire = Wire(self.memory)
        service = History(
            self.links,
            wire,
            self.settings,
            self.clock,
            f"h{next(self.serial)}",
            self.chance,
            self._nodes.names(),
            self._nodes.check,
            _metrics(),
        )
        process = HistoryProcess(service, wire)
        await self._processes.start(_live, process, service.run)
        return process

    async def matching(self) -> Process:
        service = PartitionedMatching(
            self.links,
            self.exchange,
            self.memory,
            self.settings.matching,
            self.settings.breakers,
            self.clock,
            self.membership,
            f"m{next(self.serial)}",
        )
        process = Process()
        await self._processes.start(_live, process, service.run)
        return process

    async def worker(self) -> Process:
        name = f"w{next(self.serial)}"
        slots = RemoteSlots(self.exchange, self.links.history, self.settings.matching.partitions, name)
        worker = Worker(
            slots.links, self.settings.worker, NodeTypes(self.settings), incarnations=itertools.count(1), worker_id=name
        )
        process = Process()
        await self._processes.start(_live, process, slots.run, worker.run)
        return process

    async def timer(self) -> Process:
        process = Process()
        await self._processes.start(_live, process, Timer(self.links, self.memory, self.settings.timer, self.clock).run)
        return process

    async def everything(self, histories: int = 2) -> list[HistoryProcess]:
        """One of each, and so many Histories, which have settled who has what."""
        await self.matching()
        await self.worker()
        await self.timer()
        there = [await self.history() for _ in range(histories)]
        await trio.sleep(3)
        return there

    # --- calls ------------------------------------------------------------------------------------------------------

    async def call(self, call: calls.Call, result: type[R]) -> R:
        """As the client does it: asked again while a shard is on its way."""
        with trio.fail_after(600):
            while True:
                try:
                    answer = await self.gateway.call(OWNER, type(call).__name__, msgspec.json.encode(call))
                    return msgspec.json.decode(answer, type=result)
                except Refused as refused:
                    if refused.status is not ErrorStatus.UNAVAILABLE:
                        raise
                await trio.sleep(0.25)

    async def start(self, definition: dict[str, JSON], name: str, data: JSON = None) -> calls.StartWorkflowResult:
        return await self.call(
            calls.StartWorkflow(
                definition=encode(definition),
                input=encode({} if data is None else data),
                workflow_id=name,
                request_id=f"start-{name}",
            ),
            calls.StartWorkflowResult,
        )

    async def closed(self, started: calls.StartWorkflowResult) -> calls.DescribeWorkflowResult:
        while True:
            call = calls.WaitWorkflow(workflow_id=started.workflow_id, run_id=started.run_id, wait_seconds=20)
            seen = await self.call(call, calls.DescribeWorkflowResult)
            if seen.status.closed:
                return seen

    async def events(self, run_id: str) -> list[AnyEvent]:
        """As they are in the store."""
        data = await self.memory.events(OWNER.tenant, run_id, 0, 100_000, 1 << 30)
        return [decode_event(event) for event in data]


async def until(true: Callable[[], bool]) -> None:
    """Time passes until it is so: ten minutes at most."""
    with trio.fail_after(600):
        while not true():  # noqa: ASYNC110 - nobody tells when it comes to be so
            await trio.sleep(0.1)


def _metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def _undescribed() -> calls.DescribeDaemonResult:
    raise AssertionError("nobody asks")


async def _live(process: Process, *runs: Callable[..., Awaitable[None]], task_status: trio.TaskStatus[None]) -> None:
    with process.scope:
        async with trio.open_nursery() as nursery:
            for run in runs:
                await nursery.start(run)
            task_status.started()
    process.ended.set()


def simulate_cluster(scenario: Callable[[Cluster], Awaitable[T]], seed: int = 1, settings: Settings | None = None) -> T:
    """Run the scenario; nobody is there but whom it adds."""
    trio._core._run._r.seed(seed)
    outcome: list[T] = []

    async def main() -> None:
        async with trio.open_nursery() as processes:
            outcome.append(await scenario(Cluster(settings or Settings(), seed, processes)))
            processes.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return outcome[0]
