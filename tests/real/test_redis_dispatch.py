"""Partitions and Workers over a real Redis: processes that are killed, and a Redis that forgets all, lose no task.

What would be processes of their own are services with an exchange of their own each, in this one; the store is in
memory, and shared.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio
from prometheus_client import CollectorRegistry
from redis_server import RedisServer, a_name

from daemon.api.auth import Principal
from daemon.api.gateway import Gateway
from daemon.clock import TrioClock
from daemon.dispatch.membership import MemoryMembership
from daemon.dispatch.remote import RemoteSlots
from daemon.links.redis.exchange import RedisExchange
from daemon.links.table import Links, shared_links
from daemon.metrics import Metrics
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.history import History
from daemon.nurseries.partitions import PartitionedMatching
from daemon.nurseries.timer import Timer
from daemon.nurseries.worker import Worker
from daemon.redis.frames import Server
from daemon.settings import FrontendSettings, MatchingSettings, Settings, TaskSettings, TimerSettings, WorkerSettings
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages.events import AnyEvent, TaskCompleted, TaskReturned, TaskStarted, decode_event
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.node import NodeCall

SHARDS = 4
OWNER = Principal(tenant="acme", subject="tester", scopes=frozenset({"read", "write"}), expires_at=None)
SETTINGS = Settings(
    frontend=FrontendSettings(call_timeout_seconds=2.0),
    worker=WorkerSettings(slots=8),
    tasks=TaskSettings(lease_seconds=2.0, returns=20),
    matching=MatchingSettings(partitions=3, lease_seconds=1.0, scan_seconds=1.0, handout_seconds=2.0),
    timer=TimerSettings(scan_seconds=1.0, scan_limit_seconds=20.0),
)
R = TypeVar("R", bound=calls.Result)


class Slow:
    """A node that takes its time. `running`: how many calls are under way."""

    def __init__(self) -> None:
        self.running = 0

    async def run(self, call: NodeCall) -> JSON:
        self.running += 1
        try:
            await trio.sleep(0.05)
        finally:
            self.running -= 1
        return call.input


class Split:
    def __init__(self, server: RedisServer, nursery: trio.Nursery) -> None:
        self._server = server
        self._name = a_name()
        self._nursery = nursery
        self._serial = itertools.count(1)
        self._membership = MemoryMembership()
        self._clock = TrioClock()
        self.store = MemoryStore(SHARDS, b"k" * 32, shared=True)
        self.slow: list[Slow] = []
        """The Workers' nodes, in the order in which those were started."""

    async def _process(self, name: str, *makers: Callable[[RedisExchange, Links], list[object]]) -> trio.CancelScope:
        """Services behind an exchange of their own; cancelling the scope kills them."""
        exchange = RedisExchange(
            Server("links", self._server.url), process=name, name=self._name, cluster="c", shards=SHARDS, partitions=3
        )
        links = shared_links(exchange, SHARDS, 3, random.Random(name))
        scope = trio.CancelScope()

        async def live(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(exchange.run)
                    for maker in makers:
                        for service in maker(exchange, links):
                            await nursery.start(service.run)  # type: ignore[attr-defined]
                    task_status.started()

        await self._nursery.start(live)
        return scope

    async def brain(self) -> None:
        """History, Timer and the way in."""

        def make(exchange: RedisExchange, links: Links) -> list[object]:
            nodes = NodeTypes(SETTINGS)
            entropy, metrics = random.Random(1), Metrics(CollectorRegistry())
            self._gateway = Gateway(links, SETTINGS, _undescribed, self._clock, Metrics(CollectorRegistry()))
            history = History(
                links, self.store, SETTINGS, self._clock, "h", entropy, nodes.names(), nodes.check, metrics
            )
            return [history, Timer(links, self.store, SETTINGS.timer, self._clock)]

        await self._process("brain", make)

    async def matching(self) -> trio.CancelScope:
        name = f"m{next(self._serial)}"

        def make(exchange: RedisExchange, links: Links) -> list[object]:
            return [
                PartitionedMatching(
                    links,
                    exchange,
                    self.store,
                    SETTINGS.matching,
                    SETTINGS.breakers,
                    self._clock,
                    self._membership,
                    name,
                )
            ]

        return await self._process(name, make)

    async def worker(self) -> trio.CancelScope:
        name = f"w{next(self._serial)}"
        slow = Slow()
        self.slow.append(slow)

        def make(exchange: RedisExchange, links: Links) -> list[object]:
            slots = RemoteSlots(exchange, links.history, 3, name)
            nodes = NodeTypes(SETTINGS, made={"echo": slow})
            numbers = itertools.count(1)
            return [slots, Worker(slots.links, SETTINGS.worker, nodes, incarnations=numbers, worker_id=name)]

        return await self._process(name, make)

    async def call(self, call: calls.Call, result: type[R]) -> R:
        while True:
            try:
                answer = await self._gateway.call(OWNER, type(call).__name__, msgspec.json.encode(call))
                return msgspec.json.decode(answer, type=result)
            except Refused as refused:
                if refused.status is not ErrorStatus.UNAVAILABLE:
                    raise
            await trio.sleep(0.1)

    async def run(self, number: int, tasks: int) -> list[AnyEvent]:
        """One execution to its end: its history."""
        states: dict[str, JSON] = {
            f"S{at}": {"Type": "Task", "Resource": "echo", **({"End": True} if at == tasks else {"Next": f"S{at + 1}"})}
            for at in range(1, tasks + 1)
        }
        name = f"order-{number}"
        definition = encode({"StartAt": "S1", "States": states})
        start = calls.StartWorkflow(definition=definition, input=encode({}), workflow_id=name, request_id=name)
        begun = await self.call(start, calls.StartWorkflowResult)
        wait = calls.WaitWorkflow(workflow_id=name, run_id=begun.run_id, wait_seconds=2)
        while not (seen := await self.call(wait, calls.DescribeWorkflowResult)).status.closed:
            pass
        assert seen.status is ExecutionStatus.SUCCEEDED
        found = [decode_event(data) for data in await self.store.events("acme", begun.run_id, 0, 10_000, 1 << 30)]
        assert [event.id for event in found] == list(range(1, len(found) + 1))
        assert sum(isinstance(event, TaskCompleted) for event in found) == tasks
        return found

    async def load(self, executions: int, tasks: int = 3, *, first: int = 0) -> list[list[AnyEvent]]:
        left, histories = iter(range(first, first + executions)), []

        async def lane() -> None:
            for number in left:
                histories.append(await self.run(number, tasks))

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for _ in range(24):
                    nursery.start_soon(lane)
        return histories


def _undescribed() -> calls.DescribeDaemonResult:
    raise AssertionError("nobody asks")


async def everything(server: RedisServer, nursery: trio.Nursery) -> tuple[Split, trio.CancelScope, trio.CancelScope]:
    split = Split(server, nursery)
    await split.brain()
    matching = await split.matching()
    await split.matching()
    worker = await split.worker()
    await split.worker()
    return split, matching, worker


def _workers(histories: list[list[AnyEvent]]) -> set[str]:
    """Who has begun a task."""
    return {event.worker for history in histories for event in history if isinstance(event, TaskStarted)}


async def test_processes_that_are_killed_have_their_tasks_run_by_others(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    split, matching, worker = await everything(redis_server, nursery)
    killed = trio.Event()

    async def kill() -> None:
        while not split.slow[0].running:  # noqa: ASYNC110
            await trio.sleep(0.005)
        worker.cancel()
        await trio.sleep(0.3)
        matching.cancel()
        await split.worker()
        killed.set()

    nursery.start_soon(kill)
    histories = await split.load(80)
    assert any(isinstance(event, TaskReturned) for history in histories for event in history)
    with trio.fail_after(120):
        await killed.wait()
        while len(_workers(histories)) < 3:
            histories += await split.load(24, first=len(histories))
    nursery.cancel_scope.cancel()


async def test_what_redis_forgets_is_in_the_store(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    split, _, _ = await everything(own_redis, nursery)

    async def forget() -> None:
        client = own_redis.client()
        for _ in range(4):
            await trio.sleep(0.3)
            client.flushall()
        client.close()
        await trio.sleep(0.3)
        own_redis.restart()

    nursery.start_soon(forget)
    await split.load(80)
    nursery.cancel_scope.cancel()
