"""Shared queues to test: those inside a process, and those in Redis, each with two who share them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import inline_driver
import pytest
import trio
from redis_server import RedisServer, a_name

from daemon.queues.interface import PartitionQueues, TaskQueues, Terms
from daemon.queues.memory import MemoryTaskQueues
from daemon.queues.redis.queues import RedisTaskQueues
from daemon.redis import driver
from daemon.redis.frames import Server

LONG = Terms(tasks=20, lease_seconds=3600.0, delay_seconds=3600.0)


class Sides:
    """Makes those who share partition 0 of the same queues, by `terms`."""

    def __init__(self, make: Callable[[Terms], TaskQueues], nursery: trio.Nursery) -> None:
        self._make = make
        self._nursery = nursery
        self._made: dict[Terms, TaskQueues] = {}

    async def two(self, terms: Terms = LONG) -> tuple[PartitionQueues, PartitionQueues]:
        return await self.one(terms), await self.one(terms)

    async def one(self, terms: Terms = LONG) -> PartitionQueues:
        made = self._make(terms)
        await self._nursery.start(made.run)
        return made.partition(0)


@pytest.fixture(params=["memory", "redis"])
async def sides(
    request: pytest.FixtureRequest, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sides]:
    if request.param == "memory":
        inside: list[MemoryTaskQueues] = []

        def make(terms: Terms) -> TaskQueues:
            if not inside:
                inside.append(MemoryTaskQueues(terms))
            return inside[0]
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        name = a_name()
        numbers = itertools.count(1)
        monkeypatch.setattr(driver, "spawn", inline_driver.spawn)

        def make(terms: Terms) -> TaskQueues:
            return RedisTaskQueues(
                Server("queues", server.url), member=f"m{next(numbers)}", terms=terms, partitions=2, name=name
            )

    yield Sides(make, nursery)
    nursery.cancel_scope.cancel()
