"""Exchanges to test: the one inside a process, and the one over Redis, on whose two sides different processes stand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from both_sides import Both
from redis_server import RedisServer, a_name

from daemon.links.exchange import MemoryExchange
from daemon.links.redis.exchange import RedisExchange


@pytest.fixture(params=["memory", "redis"])
async def exchanges(request: pytest.FixtureRequest, nursery: trio.Nursery) -> AsyncIterator[Both]:
    if request.param == "memory":
        one = MemoryExchange()
        await nursery.start(one.run)
        yield Both(one, one)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        name = a_name()
        near, far = (RedisExchange(server.url, process=process, name=name) for process in ("near", "far"))
        async with trio.open_nursery() as starting:
            starting.start_soon(nursery.start, near.run)
            starting.start_soon(nursery.start, far.run)
        yield Both(near, far)
    nursery.cancel_scope.cancel()
