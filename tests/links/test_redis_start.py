"""What stops links at the start beyond what stops every driver of Redis, and what is waited for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import trio
from redis_server import RedisServer, a_name, documented_user

from daemon.links.exchange import MemoryExchange
from daemon.links.open import open_exchange
from daemon.links.redis import frames
from daemon.links.redis.exchange import RedisExchange
from daemon.links.redis.host import Host
from daemon.redis.frames import Layout, Opened, Server, Unusable
from daemon.redis.keys import prefix_of
from daemon.settings import LinkSettings
from enginekit.messages.links import LookAtClock

NOTHING_KNOWN = Layout(None, None, None)
DOCS = Path(__file__).parents[2] / "docs" / "links.md"


def opened(url: str, *, name: str = "engine", layout: Layout = NOTHING_KNOWN) -> object:
    """What the driver answers who tells it to open this."""
    prefix = prefix_of(name)
    host = Host()
    try:
        return host.call(frames.Open(Server("links", url), prefix, layout, "one", f"{prefix}:replies:one"))
    finally:
        host.close()


def test_redis_is_too_old() -> None:
    """A server without XAUTOCLAIM, as it says itself."""
    with closing(RedisServer("--rename-command", "XAUTOCLAIM", "")) as old:
        answer = opened(old.url)
    assert isinstance(answer, Unusable)
    assert "too old (" in answer.message
    assert "6.2" in answer.message


async def test_a_user_who_may_do_what_is_documented(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """... and nothing else: not even ask for the configuration."""
    rules = documented_user(DOCS)
    with closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "engine", "reset", *rules)
        client.execute_command("ACL", "SETUSER", "other", "reset", *rules, "resetkeys", "~engine:{other}:*")
    url = f"redis://engine:secret@127.0.0.1:{own_redis.port}"
    exchange = RedisExchange(Server("links", url), process="here", cluster="c", shards=4, partitions=4)
    await nursery.start(exchange.run)
    assert exchange.history(1).offer(LookAtClock())
    with trio.fail_after(60):
        assert await exchange.history(1).receive() == [LookAtClock()]
        with trio.move_on_after(1.2):  # Long enough for a look at what others left.
            await exchange.history(1).receive()
    assert exchange.ready
    assert exchange.reconnects == 0
    answer = opened(f"redis://other:secret@127.0.0.1:{own_redis.port}")
    assert isinstance(answer, Unusable)
    assert "docs/links.md" in answer.message
    nursery.cancel_scope.cancel()


async def test_what_is_sent_before_redis_is_there_waits_for_it(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    own_redis.kill()
    exchange = RedisExchange(Server("links", own_redis.url), process="here")
    nursery.start_soon(nursery.start, exchange.run)
    assert exchange.history(0).offer(LookAtClock())
    await trio.to_thread.run_sync(own_redis.start)
    with trio.fail_after(60):
        assert await exchange.history(0).receive() == [LookAtClock()]
    nursery.cancel_scope.cancel()


async def test_who_knows_no_numbers_learns_them(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    name = a_name()
    worker = RedisExchange(Server("links", redis_server.url), process="worker", name=name)
    await nursery.start(worker.run)
    learned: list[tuple[int, int]] = []

    async def learn() -> None:
        learned.append(await worker.layout())

    async with trio.open_nursery() as learning:
        learning.start_soon(learn)
        await trio.sleep(0.1)
        assert not learned
        answer = await trio.to_thread.run_sync(
            lambda: opened(redis_server.url, name=name, layout=Layout("store", 64, 8))
        )
        assert isinstance(answer, Opened)
    assert learned == [(64, 8)]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("url", "kind"), [("memory:", MemoryExchange), ("redis://localhost", RedisExchange)])
def test_settings_name_the_exchange(url: str, kind: type) -> None:
    assert isinstance(open_exchange(LinkSettings(url=url), process="one"), kind)
