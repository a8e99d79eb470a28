"""Who is there: in one process by a clock that jumps, and over a real Redis."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import inline_driver
import pytest
import trio
from redis_server import RedisServer, a_name
from structlog.testing import capture_logs
from trio.testing import MockClock

from daemon.links import roster as roster_module
from daemon.links.exchange import Exchange, Heard, MemoryExchange
from daemon.links.redis.exchange import RedisExchange
from daemon.links.roster import Announcement, Roster, added_up
from daemon.redis import driver
from daemon.redis.frames import Server
from daemon.redis.keys import prefix_of
from enginekit.messages.calls import ProcessView, StoreView
from enginekit.messages.subscriptions import ServiceRate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STORE = StoreView(kind="postgresql", state="READY", schema_version=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def view(process: str) -> ProcessView:
    return ProcessView(
        process=process, roles=["worker"], engine="1", host="h", pid=1, started_at=NOW, services=[], store=STORE
    )


def roster(exchange: Exchange, process: str, *, listens: bool = True) -> Roster:
    rates = [ServiceRate(service="worker", what="tasks", per_second=2.5)]
    said = Announcement(view=view(process), rates=rates)
    return Roster(exchange, process, lambda: said, ago, listens=listens)


def names(of: Roster) -> list[str]:
    return [each.process for each in of.others()]


async def test_who_speaks_who_is_silent_and_who_is_forgotten(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    exchange = MemoryExchange()
    asked = roster(exchange, "asked")
    nursery.start_soon(asked.run)
    scopes: dict[str, trio.CancelScope] = {}

    async def live(name: str) -> None:
        with trio.CancelScope() as scopes[name]:
            await roster(exchange, name, listens=False).run()

    for name in ("b", "a", "c"):
        nursery.start_soon(live, name)
    await trio.sleep(3)
    assert names(asked) == ["a", "b", "c"], "itself it knows better"
    assert [each.silent_since for each in asked.others()] == [None] * 3
    (rate,) = added_up(asked.rates())
    assert rate.per_second == 7.5

    scopes["a"].cancel()
    await trio.sleep(30)
    scopes["b"].cancel()
    await trio.sleep(30)
    assert names(asked) == ["c", "b", "a"]
    since = [each.silent_since for each in asked.others()]
    assert since[0] is None
    assert [round((NOW - at).total_seconds()) for at in since if at is not None] == pytest.approx([30, 60], abs=2)
    assert added_up(asked.rates())[0].per_second == 2.5

    await trio.sleep(roster_module.FORGET_SECONDS - 40)
    assert names(asked) == ["c", "b"]
    await trio.sleep(35)
    assert names(asked) == ["c"]
    assert set(exchange._said) == {"asked", "c"}, "nobody keeps them"
    nursery.cancel_scope.cancel()


async def test_who_ends_in_order_is_gone_at_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    exchange = MemoryExchange()
    asked, ends = roster(exchange, "asked"), roster(exchange, "ends")
    nursery.start_soon(asked.run)
    nursery.start_soon(ends.run)
    await trio.sleep(3)
    assert names(asked) == ["ends"]
    await ends.depart()
    await trio.sleep(3)
    assert names(asked) == []
    nursery.cancel_scope.cancel()


async def test_an_announcement_on_its_way_does_not_undo_a_departure(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    class Slow(MemoryExchange):
        async def call_out(self, process: str, said: bytes, forget: list[str], *, listen: bool) -> list[Heard]:
            if said:
                await trio.sleep(0.5)
            return await super().call_out(process, said, forget, listen=listen)

    exchange = Slow()
    asked, ends = roster(exchange, "asked"), roster(exchange, "ends")
    nursery.start_soon(ends.run)
    await trio.sleep(1.8)  # Its second announcement is on its way, until 2.0.
    await ends.depart()
    nursery.start_soon(asked.run)
    await trio.sleep(3)
    assert names(asked) == []
    nursery.cancel_scope.cancel()


async def test_it_is_bounded(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    exchange = MemoryExchange()
    asked = roster(exchange, "asked")
    for number in range(2 * roster_module.MOST):
        said = roster_module._encoder.encode(Announcement(view=view(f"p{number}")))
        await exchange.call_out(f"p{number}", said, [], listen=False)
        await trio.sleep(0.01)
    nursery.start_soon(asked.run)
    await trio.sleep(3)
    assert len(names(asked)) == roster_module.MOST - 1
    assert f"p{2 * roster_module.MOST - 1}" in names(asked), "the last are kept"
    assert len(exchange._said) == roster_module.MOST
    nursery.cancel_scope.cancel()


async def test_what_cannot_be_read_is_passed_over(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    exchange = MemoryExchange()
    asked = roster(exchange, "asked")
    await exchange.call_out("strange", b"not JSON", [], listen=False)
    nursery.start_soon(asked.run)
    nursery.start_soon(roster(exchange, "plain").run)
    await trio.sleep(3)
    assert names(asked) == ["plain"]
    nursery.cancel_scope.cancel()


async def test_over_redis(redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "spawn", inline_driver.spawn)
    name = a_name()
    one, other = (
        RedisExchange(Server("links", redis_server.url), process=each, name=name) for each in ("one", "other")
    )
    await nursery.start(one.run)
    await nursery.start(other.run)
    assert await one.call_out("one", b"first", [], listen=False) == []
    await one.call_out("one", b"again", [], listen=False)
    heard = await other.call_out("other", b"here", [], listen=True)
    assert {each.process: each.said for each in heard} == {"one": b"again", "other": b"here"}
    assert all(0 <= each.seconds_ago < 60 for each in heard)
    (left,) = await other.call_out("other", b"", ["one"], listen=True)
    assert left.process == "other"
    with closing(redis_server.client()) as client:
        assert client.pttl(f"{prefix_of(name)}:processes") > 0
    nursery.cancel_scope.cancel()


async def test_a_user_who_may_not_say_anything_is_told_once_and_goes_on(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "spawn", inline_driver.spawn)
    name = a_name()
    with closing(redis_server.client()) as client:
        rules = ["on", ">secret", "~*", "+@all", "-hset", "-hdel"]
        client.execute_command("ACL", "SETUSER", "old", "reset", *rules)
    url = f"redis://old:secret@127.0.0.1:{redis_server.port}"
    exchange = RedisExchange(Server("links", url), process="one", name=name)
    await nursery.start(exchange.run)
    with capture_logs() as logs:
        for _ in range(3):
            assert await exchange.call_out("one", b"x", [], listen=True) == []
    assert exchange.ready
    assert ["processes cannot tell of one another" in each["event"] for each in logs] == [True]
    nursery.cancel_scope.cancel()
