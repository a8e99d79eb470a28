"""A daemon in one thread whose Matching is in partitions and whose Workers are elsewhere, as processes of their own
would be: they know one another by the exchange alone.

`split` runs a scenario against it. What stands for a process is a nursery: cancelled, it is as good as killed, for
nothing of it runs any more and nobody was told.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from simulation import Simulation
from trio.testing import MockClock

from daemon import assembly
from daemon.dispatch.membership import MemoryMembership
from daemon.dispatch.remote import RemoteSlots
from daemon.links.exchange import HISTORY_CAPACITY, Exchange, Heard, MemoryExchange
from daemon.links.interface import Caller, Link, Request
from daemon.links.memory import MemoryLink
from daemon.links.routing import HistoryRouter, MatchingRouter, WorkerRouter
from daemon.links.table import Links
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.partitions import PartitionedMatching
from daemon.nurseries.shared_partitions import SharedPartitions
from daemon.nurseries.worker import Worker
from daemon.queues.memory import MemoryTaskQueues
from daemon.queues.open import terms_of
from daemon.settings import Settings
from daemon.supervisor import ServiceName, ServiceSpec
from enginekit.messages.calls import Call, Result
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.node import Node

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R", bound=Result)

SHARDS = 4


class OneHistory(MemoryExchange):
    """One History has all shards, and receives from one inbox."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox: MemoryLink[ToHistory] = MemoryLink("History", HISTORY_CAPACITY)

    def history(self, shard: int) -> Link[ToHistory]:
        return self.inbox


class Wire(Exchange):
    """A process's way to the exchange, which may be cut: then all that goes either way is lost."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.cut = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._exchange.run(task_status=task_status)

    def belongs_to(self, cluster: str | None) -> None:
        self._exchange.belongs_to(cluster)

    @property
    def ready(self) -> bool:
        return not self.cut

    async def call_out(self, process: str, said: bytes, forget: list[str], *, listen: bool) -> list[Heard]:
        return await self._exchange.call_out(process, said, forget, listen=listen)

    def history(self, shard: int) -> Link[ToHistory]:
        return _WireLink(self, self._exchange.history(shard))

    def matching(self, partition: int) -> Link[ToMatching]:
        return _WireLink(self, self._exchange.matching(partition))

    def worker(self, worker_id: str) -> Link[ToWorker]:
        return _WireLink(self, self._exchange.worker(worker_id))

    @property
    def timer(self) -> Link[ToTimer]:
        return self._exchange.timer


class _WireLink(Link[M]):
    def __init__(self, wire: Wire, link: Link[M]) -> None:
        self._wire = wire
        self._link = link

    def offer(self, message: M) -> bool:
        return self._wire.cut or self._link.offer(message)

    async def send(self, message: M) -> None:
        if not self._wire.cut:
            await self._link.send(message)

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        if not self._wire.cut:
            answer = await self._link.request(caller, call, result, timeout)
            if not self._wire.cut:
                return answer
        await trio.sleep(timeout)
        raise Refused(ErrorStatus.UNAVAILABLE, "the wire is cut")

    async def receive(self, limit: int = 256) -> list[M | Request]:
        while True:
            messages = await self._link.receive(limit)
            if not self._wire.cut:
                return messages


class Process:
    """Something that can be killed."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()

    async def kill(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


class WorkerProcess(Process):
    """Its Worker, and what stands between it and the others."""

    def __init__(self, wire: Wire, slots: RemoteSlots, worker: Worker, worker_id: str) -> None:
        super().__init__()
        self.wire = wire
        self.slots = slots
        self.worker = worker
        self.worker_id = worker_id

    async def drain(self) -> None:
        """As on SIGTERM."""
        await self.slots.drain()
        await self.worker.drain()
        await self.kill()


class MatchingProcess(Process):
    def __init__(self, service: PartitionedMatching | SharedPartitions) -> None:
        super().__init__()
        self.service = service


class Split(Simulation):
    """The daemon without Matching and Worker; those are added as processes."""

    shared_queues = False
    """Whether Matchings share their queues, or each partition's owner has them."""

    def __init__(
        self, settings: Settings, folder: Path, seed: int, made: Mapping[str, Node], nursery: trio.Nursery
    ) -> None:
        self.exchange = OneHistory()
        partitions = settings.matching.partitions
        links = Links(
            history=HistoryRouter(self.exchange, SHARDS, random.Random(f"{seed} ids")),
            matching=MatchingRouter(self.exchange, partitions),
            worker=WorkerRouter(self.exchange),
            timer=self.exchange.timer,
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(assembly, "memory_links", lambda: links)
            super().__init__(settings, folder, seed, made=made)
        self.membership = MemoryMembership()
        self.queues = MemoryTaskQueues(terms_of(settings))
        self.made = made
        self.processes = nursery
        self.serial = itertools.count(1)
        self.chance = random.Random(seed)

    def services(self) -> list[ServiceSpec]:
        return [spec for spec in super().services() if spec.name not in (ServiceName.MATCHING, ServiceName.WORKER)]

    def _make_history(self):
        self.links, kept = (
            Links(
                history=self.exchange.inbox,
                matching=self.links.matching,
                worker=self.links.worker,
                timer=self.links.timer,
            ),
            self.links,
        )
        try:
            return super()._make_history()
        finally:
            self.links = kept

    async def matching(self) -> MatchingProcess:
        """One more process with the role matching, once it has what is its own."""
        name = f"m{next(self.serial)}"
        service: PartitionedMatching | SharedPartitions = (
            SharedPartitions(self.links, self.exchange, self.memory, self.queues, self._settings, self.clock, name)
            if self.shared_queues
            else PartitionedMatching(
                self.links,
                self.exchange,
                self.memory,
                self._settings.matching,
                self._settings.breakers,
                self.clock,
                self.membership,
                name,
            )
        )
        process = MatchingProcess(service)
        await self.processes.start(_live, process, process.service.run)
        return process

    async def worker(self, nodes: Mapping[str, Node] | None = None) -> WorkerProcess:
        """One more process with the role worker."""
        worker_id = f"w{next(self.serial)}"
        wire = Wire(self.exchange)
        history = HistoryRouter(wire, SHARDS, self._entropy)
        slots = RemoteSlots(wire, history, self._settings.matching.partitions, worker_id)
        types = NodeTypes(self._settings, made=self.made if nodes is None else nodes)
        worker = Worker(slots.links, self._settings.worker, types, incarnations=itertools.count(1), worker_id=worker_id)
        process = WorkerProcess(wire, slots, worker, worker_id)
        await self.processes.start(_live, process, slots.run, worker.run)
        return process


async def _live(process: Process, *runs: Callable[..., Awaitable[None]], task_status: trio.TaskStatus[None]) -> None:
    with process.scope:
        async with trio.open_nursery() as nursery:
            for run in runs:
                await nursery.start(run)
            task_status.started()
    process.ended.set()


def split(
    scenario: Callable[[Split], Awaitable[T]],
    folder: Path,
    settings: Settings,
    made: Mapping[str, Node],
    seed: int = 1,
) -> T:
    """Run the scenario; nobody matches or works but whom it adds."""
    trio._core._run._r.seed(seed)
    outcome: list[T] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery, trio.open_nursery() as processes:
            daemon = Split(settings, folder, seed, made, processes)
            await nursery.start(daemon.run)
            outcome.append(await scenario(daemon))
            processes.cancel_scope.cancel()
            daemon.drain()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return outcome[0]
