"""What a message costs through Redis, against a link inside the process: `python -m benchmarks.links`.

One sends, the other receives: two exchanges of this process, so that its processor time is both ends' together. Beside
it stand that of their two driver processes, and that of the Redis server (REDIS_SERVER, or the one from the wheel that
the tests use). Messages are task outcomes with a payload of 200 bytes, requests are answered at once. Prints figures,
checks nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from msgspec import Raw

from daemon.links.exchange import Exchange, MemoryExchange
from daemon.links.interface import Caller, Request
from daemon.links.redis.exchange import RedisExchange
from daemon.redis.frames import Server
from enginekit.messages.links import Ping, Pong, RunRef, TaskOutcome, TaskRef

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from redis_server import RedisServer, a_name

OUTCOME = TaskOutcome(
    TaskRef(RunRef("default", "order-17", "0198c0de-0000-7000-8000-000000000017"), 12),
    "worker-1",
    output=Raw(b'{"note": "' + b"x" * 190 + b'"}'),
    ran_seconds=0.25,
)
ME = Caller("default", "bench")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """Of one message, in microseconds; `seconds` of all of them."""

    here: float
    drivers: float
    server: float
    seconds: float


def _cpu(pids: list[int]) -> float:
    spent = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        spent += (int(fields[11]) + int(fields[12])) / _TICKS
    return spent


async def _measured(
    work: Callable[[], Coroutine[Any, Any, None]], count: int, drivers: list[int], server: list[int]
) -> Cost:
    before = time.process_time(), _cpu(drivers), _cpu(server), time.perf_counter()
    await work()
    after = time.process_time(), _cpu(drivers), _cpu(server), time.perf_counter()
    here, by_drivers, by_server, seconds = (b - a for a, b in zip(before, after, strict=True))
    return Cost(here / count * 1e6, by_drivers / count * 1e6, by_server / count * 1e6, seconds)


async def one_way(near: Exchange, far: Exchange, count: int, gathered: int) -> None:
    """`gathered` messages in each turn of the loop, at most ten times as many under way."""
    received = 0
    room = trio.Event()

    async def receive() -> None:
        nonlocal received, room
        while received < count:
            received += len(await far.history(0).receive())
            room.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        sent = 0
        while sent < count:
            while sent - received > 10 * gathered:
                room = trio.Event()
                await room.wait()
            for _ in range(gathered):
                await near.history(0).send(OUTCOME)
            sent += gathered
            await trio.lowlevel.checkpoint()


async def requests(near: Exchange, far: Exchange, count: int, in_flight: int) -> None:
    async def answer() -> None:
        while True:
            for item in await far.history(1).receive():
                assert isinstance(item, Request)
                item.answer(Pong())

    async def ask() -> None:
        for _ in range(count // in_flight):
            await near.history(1).request(ME, Ping(), Pong, 30.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with trio.open_nursery() as asking:
            for _ in range(in_flight):
                asking.start_soon(ask)
        nursery.cancel_scope.cancel()


async def _run(server: RedisServer, count: int) -> None:
    inside = MemoryExchange()
    name = a_name()
    near, far = (RedisExchange(Server("links", server.url), process=process, name=name) for process in ("near", "far"))
    async with trio.open_nursery() as nursery:
        await nursery.start(near.run)
        await nursery.start(far.run)
        drivers = [pid for each in (near, far) if (pid := each.driver_pid) is not None]
        print(f"{'':34}{'inside':>8}{'Redis':>8}{'ratio':>8}{'drivers':>9}{'server':>8}{'a second':>10}")
        for label, work, width in (
            ("a message, 64 gathered", one_way, 64),
            ("a message, 8 gathered", one_way, 8),
            ("a message, alone", one_way, 1),
            ("a request, 64 under way", requests, 64),
            ("a request, 8 under way", requests, 8),
            ("a request, alone", requests, 1),
        ):
            number = max(count // (1 if width == 64 else 4), 1) // width * width
            await work(near, far, width * 10, width)
            memory = await _measured(lambda: work(inside, inside, number, width), number, [], [])  # noqa: B023
            redis = await _measured(lambda: work(near, far, number, width), number, drivers, [server.pid])  # noqa: B023
            print(
                f"{label:34}{memory.here:8.1f}{redis.here:8.1f}{redis.here / memory.here:8.1f}{redis.drivers:9.1f}"
                f"{redis.server:8.1f}{number / redis.seconds:10.0f}"
            )
        idle_before, began = (time.process_time(), _cpu(drivers), _cpu([server.pid])), time.perf_counter()
        held = trio.CancelScope()

        async def hold() -> None:
            with held:
                async with trio.open_nursery() as receivers:
                    for shard in range(64):
                        receivers.start_soon(far.history(shard).receive)

        nursery.start_soon(hold)
        await trio.sleep(20)
        spent = (time.process_time(), _cpu(drivers), _cpu([server.pid]))
        took = time.perf_counter() - began
        shares = [(b - a) / took * 100 for a, b in zip(idle_before, spent, strict=True)]
        shown = ", ".join(
            f"{who} {share:.2f}" for who, share in zip(("here", "drivers", "server"), shares, strict=True)
        )
        print(f"idle, 64 inboxes, in per cent of a core: {shown}")
        held.cancel()
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    arguments = parser.parse_args()
    with closing(RedisServer()) as server:
        trio.run(_run, server, arguments.messages)


if __name__ == "__main__":
    main()
