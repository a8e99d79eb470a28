"""Connections cut and made deaf, drivers killed, at random and under load: while Redis itself lives and keeps what it
has, every message comes once and in order, and every request is executed once and answered."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack

import trio
from both_sides import ME
from cut_wire import cut_wire
from redis_server import RedisServer, a_name

from daemon.links.interface import Request
from daemon.links.redis.exchange import RedisExchange
from daemon.redis.frames import Server
from enginekit.messages.links import Pong, RunRef, StartTasks, WakeRuns

SHARDS = 3
SECONDS = 3.0


async def test_a_storm(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    came: dict[int, list[int]] = {shard: [] for shard in range(SHARDS)}
    executed: Counter[str] = Counter()
    asked = 0
    sent = 0
    over = trio.Event()

    async def receive(exchange: RedisExchange, shard: int) -> None:
        while True:
            for item in await exchange.history(shard).receive():
                if isinstance(item, Request):
                    assert isinstance(item.call, StartTasks)
                    executed[item.call.worker_id] += 1
                    item.answer(Pong())
                elif isinstance(item, WakeRuns):
                    came[shard].append(int(item.runs[0].run_id))
            if dice.random() < 0.2:
                await trio.sleep(dice.random() * 0.01)

    async def send(exchange: RedisExchange) -> None:
        nonlocal sent
        while not over.is_set():
            for _ in range(dice.randint(1, 40)):
                await exchange.history(sent % SHARDS).send(WakeRuns([RunRef("acme", "order", str(sent))]))
                sent += 1
            await trio.sleep(dice.random() * 0.01)

    async def ask(exchange: RedisExchange, number: int) -> None:
        nonlocal asked
        while not over.is_set():
            asked += 1
            call = StartTasks(tasks=[], worker_id=f"{number}.{asked}")
            assert await exchange.history(asked % SHARDS).request(ME, call, Pong, 120.0) == Pong()

    async with AsyncExitStack() as wires:
        ends = []
        name = a_name()
        for process in ("near", "far"):
            wire = await wires.enter_async_context(cut_wire(redis_server.port))
            exchange = RedisExchange(Server("links", wire.url, timeout_seconds=5.0), process=process, name=name)
            ends.append((wire, exchange))
            await nursery.start(exchange.run)
        (_, near), (_, far) = ends
        for shard in range(SHARDS):
            nursery.start_soon(receive, far, shard)
        async with trio.open_nursery() as load:
            load.start_soon(send, near)
            for number in range(8):
                load.start_soon(ask, near, number)
            with trio.move_on_after(SECONDS):
                while True:
                    await trio.sleep(dice.random() * 0.5)
                    wire, exchange = dice.choice(ends)
                    what = dice.choice(("cut", "deafen", "kill"))
                    if what == "deafen":
                        wire.deafen()
                        await trio.sleep(dice.random() * 0.1)
                    elif what == "kill" and exchange.driver_pid is not None:
                        os.kill(exchange.driver_pid, signal.SIGKILL)
                    wire.cut()
            for wire, _ in ends:
                wire.cut()
            over.set()
        with trio.fail_after(120):
            while sum(map(len, came.values())) < sent:  # noqa: ASYNC110
                await trio.sleep(0.01)
        for shard in range(SHARDS):
            assert came[shard] == list(range(shard, sent, SHARDS)), f"seed {seed}"
        assert len(executed) == asked
        assert max(executed.values()) == 1, f"seed {seed}"
        assert near.reconnects + far.reconnects > 0
        nursery.cancel_scope.cancel()
