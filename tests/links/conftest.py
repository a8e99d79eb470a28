"""Exchanges to test: the one inside a process, and the one over Redis, on whose two sides different processes stand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import inline_driver
import pytest
import trio
from both_sides import Both
from redis_server import RedisServer, a_name

from daemon.links.exchange import MemoryExchange
from daemon.links.redis.exchange import RedisExchange
from daemon.redis import driver
from daemon.redis.frames import Server


@pytest.fixture(params=["memory", "redis"])
async def exchanges(
    request: pytest.FixtureRequest, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Both]:
    if request.param == "memory":
        inside = MemoryExchange()
        await nursery.start(inside.run)
        yield Both(inside, inside)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        name = a_name()
        monkeypatch.setattr(driver, "spawn", inline_driver.spawn)
        # Every message goes through Redis, also to an inbox of one's own.
        one = RedisExchange(Server("links", server.url), process="one", name=name)
        await nursery.start(one.run)
        yield Both(one, one)
    nursery.cancel_scope.cancel()
