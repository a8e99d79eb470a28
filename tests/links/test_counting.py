"""What the links count, and how it is shown, over a real server."""

from __future__ import annotations

from collections.abc import Callable

import inline_driver
import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from redis_server import RedisServer, a_name

from daemon.links.counting import LinkCollector, LinkCounts
from daemon.links.exchange import MemoryExchange
from daemon.links.redis import exchange as exchange_module
from daemon.links.redis import reading as reading_module
from daemon.links.redis.exchange import RedisExchange
from daemon.links.redis.keys import history_key
from daemon.redis import driver
from daemon.redis.frames import Server
from daemon.redis.keys import prefix_of
from enginekit.messages.links import WakeRuns

SHARD = 3
INBOX = f"history:{SHARD}"
PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def inbox(counts: LinkCounts) -> tuple[int, int] | None:
    return next(((each.lag, each.pending) for each in counts.inboxes if each.inbox == INBOX), None)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "spawn", inline_driver.spawn)
    monkeypatch.setattr(reading_module, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(reading_module, "_LOOK_LIMIT_SECONDS", 0.02)


async def test_what_went_what_came_and_what_lies_there(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    name = a_name()
    sender, owner, heir = (
        RedisExchange(Server("links", redis_server.url), process=each, name=name) for each in ("s", "o", "h")
    )
    for each in (sender, owner, heir):
        await nursery.start(each.run)
    for _ in range(20):
        assert sender.history(SHARD).offer(WakeRuns([]))
    await until(lambda: sender.counts().sent == 20)
    counts = sender.counts()
    assert counts.batches in range(1, 21)
    assert (counts.received, counts.claimed, counts.repeated, counts.trimmed, counts.dropped) == (0, 0, 0, 0, 0)
    assert counts.waiting == 0

    assert len(await owner.history(SHARD).receive(5)) == 5
    assert owner.counts().received == 5
    await until(lambda: inbox(owner.counts()) == (0, 20))  # all were read ahead
    owner.history(SHARD).leave()  # type: ignore[attr-defined]
    assert inbox(owner.counts()) is None

    assert len(await heir.history(SHARD).receive()) == 20
    assert heir.counts().claimed == 20
    with trio.move_on_after(0.1):
        await heir.history(SHARD).receive()  # what it had is dealt with
    await until(lambda: inbox(heir.counts()) in ((0, 0), None))
    nursery.cancel_scope.cancel()


async def test_what_is_sent_into_a_full_inbox_cuts_it(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "HISTORY_CAPACITY", 8)
    name = a_name()
    sender = RedisExchange(Server("links", redis_server.url), process="s", name=name)
    await nursery.start(sender.run)
    with redis_server.client() as client:
        for _ in range(16):
            client.xadd(history_key(prefix_of(name), SHARD), {"m": b"by somebody else"})
    for _ in range(3):
        assert sender.history(SHARD).offer(WakeRuns([]))
    await until(lambda: sender.counts().sent == 3)
    assert sender.counts().trimmed == 3
    nursery.cancel_scope.cancel()


async def test_a_connection_that_is_lost(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    sender = RedisExchange(Server("links", redis_server.url), process="s", name=a_name())
    await nursery.start(sender.run)
    assert (sender.counts().connected, sender.counts().reconnects) == (True, 0)
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: sender.counts().reconnects == 1 and sender.counts().connected)
    nursery.cancel_scope.cancel()


async def test_metrics_name_inboxes_by_their_number_alone(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    exchange = RedisExchange(Server("links", redis_server.url), process="s", name=a_name())
    await nursery.start(exchange.run)
    registry = CollectorRegistry()
    LinkCollector(exchange.counts, registry)
    receiving = (exchange.history(SHARD), exchange.matching(1), exchange.worker("somebody"), exchange.timer)
    for link in receiving:
        nursery.start_soon(link.receive)
    wanted = {INBOX, "matching:1", "worker", "timer", "replies"}
    await until(lambda: {each.inbox for each in exchange.counts().inboxes} == wanted)
    text = generate_latest(registry).decode()
    assert "engine_link_connected 1.0" in text
    assert "engine_link_messages_sent_total 0.0" in text
    for each in wanted:
        assert f'engine_link_inbox_lag{{inbox="{each}"}} 0.0' in text
        assert f'engine_link_inbox_pending{{inbox="{each}"}} 0.0' in text
    assert "somebody" not in text
    nursery.cancel_scope.cancel()


def test_nothing_leaves_a_process_that_is_alone() -> None:
    assert MemoryExchange().counts() == LinkCounts(connected=True)
