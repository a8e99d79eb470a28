"""Shared queues to test: those inside a process, and those in Redis, each with two who share them."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import trio
from redis_server import RedisServer, a_name

from daemon.drivers.lane import Lane
from daemon.queues.interface import PartitionQueues, TaskQueues, Terms
from daemon.queues.memory import MemoryTaskQueues
from daemon.queues.redis import host, queues
from daemon.queues.redis.queues import RedisTaskQueues
from tests.links.inline_driver import InlineProcess

LONG = Terms(tasks=20, lease_seconds=60.0, delay_seconds=60.0)


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


class _InlineHost(host.Host):
    def _close(self) -> None:
        self.close()


async def inline(
    module: str, replies: msgspec.msgpack.Decoder[Any], lost: Callable[[str], Exception]
) -> tuple[InlineProcess, Lane[Any], Lane[Any]]:
    """The driver in threads of this process."""
    assert module == host.__name__
    await trio.lowlevel.checkpoint()
    turns, driver_turns = socket.socketpair()
    notices, driver_notices = socket.socketpair()
    driver = _InlineHost()
    process = InlineProcess(
        driver,
        (driver_turns, driver.turn, host._turn_requests),
        (driver_notices, driver.hear, host._hear_requests),
    )
    return process, Lane(turns, replies, lost), Lane(notices, replies, lost)


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
        monkeypatch.setattr(queues, "spawn", inline)

        def make(terms: Terms) -> TaskQueues:
            return RedisTaskQueues(server.url, member=f"m{next(numbers)}", terms=terms, partitions=2, name=name)

    yield Sides(make, nursery)
    nursery.cancel_scope.cancel()
