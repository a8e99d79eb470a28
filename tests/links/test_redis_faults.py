"""The exchange over Redis, with something going wrong: owners that die, connections that are cut, a Redis that forgets,
hangs or is full. Whatever it is, it ends; nothing hangs, and what is repeated is taken once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
from both_sides import ME
from cut_wire import cut_wire
from redis_server import RedisServer, a_name
from trio.testing import MockClock

from daemon.links.exchange import WORKER_CAPACITY
from daemon.links.interface import Link, Request
from daemon.links.redis import exchange as exchange_module
from daemon.links.redis import inbox as inbox_module
from daemon.links.redis.carrier import Carrier
from daemon.links.redis.exchange import RedisExchange
from daemon.links.redis.inbox import reply_stream
from daemon.links.redis.post import CAPACITY, Post
from daemon.links.routing import HistoryRouter
from daemon.redis.frames import Server
from enginekit.messages.calls import StartWorkflow, StartWorkflowResult
from enginekit.messages.links import LookAtClock, Ping, Pong, ReportAgain, RunRef, ToHistory, WakeRuns
from enginekit.messages.status import ErrorStatus, Refused

HERE = Path(__file__).parent


def wake(number: int) -> WakeRuns:
    return WakeRuns([RunRef("acme", f"order-{number}", f"run-{number}")])


def places(messages: list[ToHistory | Request]) -> list[str]:
    return [each.runs[0].run_id for each in messages if isinstance(each, WakeRuns)]


def all_of(count: int) -> set[str]:
    return {f"run-{number}" for number in range(count)}


async def until(happened: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def joined(nursery: trio.Nursery, *exchanges: RedisExchange) -> None:
    async with trio.open_nursery() as starting:
        for exchange in exchanges:
            starting.start_soon(nursery.start, exchange.run)


async def received(link: Link[ToHistory], count: int) -> list[ToHistory | Request]:
    """At least so many, and all are dealt with."""
    got: list[ToHistory | Request] = []
    with trio.fail_after(60):
        while len(got) < count:
            got += await link.receive()
    with trio.move_on_after(0.3):
        got += await link.receive()
    return got


async def collect(link: Link[ToHistory], got: list[ToHistory | Request]) -> None:
    while True:
        got += await link.receive()


async def answer_all(link: Link[ToHistory], executed: list[Request]) -> None:
    while True:
        for item in await link.receive():
            if isinstance(item, Request):
                executed.append(item)
                item.answer(Pong())


async def answered(link: Link[ToHistory]) -> bool:
    try:
        return await link.request(ME, Ping(), Pong, 1.0) == Pong()
    except Refused as refused:
        return refused.status is not ErrorStatus.UNAVAILABLE


async def test_what_a_dead_owner_had_not_dealt_with_goes_to_the_next(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """kill -9 of a process that had received three times: what it had asked for more after is gone, the rest comes."""
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await joined(nursery, here)
    for number in range(40):
        assert here.history(1).offer(wake(number))
    command = [sys.executable, str(HERE / "receive_and_hang.py"), redis_server.url, name, "1", "3"]
    async with trio.open_nursery() as running:
        victim: trio.Process = await running.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, capture_stdout=False)
        )
        assert victim.stdout is not None
        said = b""
        with trio.fail_after(60):
            while said.count(b"\n") < 3:
                said += await victim.stdout.receive_some()
        dealt_with = sum(map(int, said.split()[:2]))
        with closing(redis_server.client()) as client:
            await until(lambda: client.xlen(f"engine:{{{name}}}:history:1") == 40 - dealt_with)
        os.kill(victim.pid, signal.SIGKILL)
    got = await received(here.history(1), 40 - dealt_with)
    assert got == [wake(number) for number in range(dealt_with, 40)]
    with closing(redis_server.client()) as client:
        await until(lambda: client.xlen(f"engine:{{{name}}}:history:1") == 0)
    nursery.cancel_scope.cancel()


async def test_a_call_that_a_dead_owner_has_carried_out_is_known_to_the_next(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """It may have died between the commit and the word of it: the next one is given the call again, and sees that it is
    the same, though its caller has not named it."""
    name = a_name()
    asking, one, two = (
        RedisExchange(Server("links", redis_server.url), process=each, name=name) for each in ("asking", "one", "two")
    )
    await joined(nursery, asking, two)
    calls_seen: list[StartWorkflow] = []

    async def take(exchange: RedisExchange) -> None:
        while True:
            for item in await exchange.history(0).receive():
                assert isinstance(item, Request)
                assert isinstance(item.call, StartWorkflow)
                calls_seen.append(item.call)
                if exchange is two:
                    item.answer(StartWorkflowResult(workflow_id="w", run_id="r"))
            if exchange is one:
                await trio.sleep_forever()

    async with trio.open_nursery() as asked:
        router = HistoryRouter(asking, 1, random.Random(1))
        start = partial(router.request, ME, StartWorkflow(workflow="w"), StartWorkflowResult, 60)
        asked.start_soon(start)
        async with trio.open_nursery() as living:
            await living.start(one.run)
            living.start_soon(take, one)
            await until(lambda: calls_seen)
            living.cancel_scope.cancel()
        nursery.start_soon(take, two)
    assert calls_seen[1:] == calls_seen[:1]
    assert calls_seen[0].request_id is not None
    nursery.cancel_scope.cancel()


async def test_what_an_owner_is_given_that_hangs_goes_to_the_next(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """It is stopped while its read blocks, and has that read's messages: its successor finds them."""
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await joined(nursery, here)
    assert here.history(1).offer(wake(0))
    command = [sys.executable, str(HERE / "receive_and_hang.py"), redis_server.url, name, "1", "1"]
    async with trio.open_nursery() as running:
        victim: trio.Process = await running.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, capture_stdout=False)
        )
        assert victim.stdout is not None
        said = b""
        with trio.fail_after(60):
            while not said.endswith(b"\n"):
                said += await victim.stdout.receive_some()
        assert said == b"1\n"
        os.kill(victim.pid, signal.SIGSTOP)
        got: list[ToHistory | Request] = []
        with trio.fail_after(60):
            got += await here.history(1).receive()
            for number in (1, 2):
                assert here.history(1).offer(wake(number))
                await until(lambda: here.counts().waiting == 0)
            while len(got) < 3:
                got += await here.history(1).receive()
        # The victim's read may have had number 1: it comes when it has been missed.
        assert sorted(places(got)) == ["run-0", "run-1", "run-2"]
        os.kill(victim.pid, signal.SIGKILL)
    nursery.cancel_scope.cancel()


async def test_an_inbox_moves_between_owners_that_live(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Back and forth, under load, each owner stopped in the middle of its work: nothing is lost."""
    name = a_name()
    one, two = (
        RedisExchange(Server("links", redis_server.url), process=process, name=name) for process in ("one", "two")
    )
    await joined(nursery, one, two)
    got: list[ToHistory | Request] = []
    sent = 0

    async def own(exchange: RedisExchange) -> None:
        while True:
            got.extend(await exchange.history(0).receive(20))
            await trio.sleep(0.005)

    async def send() -> None:
        nonlocal sent
        while True:
            for _ in range(5):
                assert one.history(0).offer(wake(sent))
                sent += 1
            await trio.sleep(0.005)

    async with trio.open_nursery() as sending:
        sending.start_soon(send)
        for turn in range(6):
            before = len(got)
            async with trio.open_nursery() as owning:
                owning.start_soon(own, (one, two)[turn % 2])
                await until(lambda before=before: len(got) > before + 50)  # type: ignore[misc]
                owning.cancel_scope.cancel()
        sending.cancel_scope.cancel()
    async with trio.open_nursery() as owning:
        owning.start_soon(own, one)
        await until(lambda: set(places(got)) == all_of(sent))
        owning.cancel_scope.cancel()
    nursery.cancel_scope.cancel()


async def test_what_was_sent_when_the_connection_was_cut_is_taken_once(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """Redis has it, and the sender does not know: it sends it again. Messages, requests and answers."""
    name = a_name()
    there = RedisExchange(Server("links", redis_server.url), process="there", name=name)
    executed: list[Request] = []
    async with cut_wire(redis_server.port) as wire:
        here = RedisExchange(Server("links", wire.url), process="here", name=name)
        await joined(nursery, here, there)
        got: list[ToHistory | Request] = []
        nursery.start_soon(collect, there.history(0), got)
        for number in range(3):
            await until(lambda number=number: here.ready and here.reconnects == number)  # type: ignore[misc]
            wire.deafen()
            for place in range(20):
                assert here.history(0).offer(wake(number * 20 + place))
            await until(lambda number=number: len(got) == number * 20 + 20)  # type: ignore[misc]
            wire.cut()
            await until(lambda number=number: there.counts().repeated >= number * 20 + 20)  # type: ignore[misc]
        assert got == [wake(place) for place in range(60)]
        await until(lambda: here.ready and here.reconnects == 3)
        nursery.start_soon(answer_all, there.history(1), executed)

        async def ask() -> None:
            assert await here.history(1).request(ME, Ping(), Pong, 60.0) == Pong()

        async with trio.open_nursery() as asking:
            wire.deafen()
            for _ in range(10):
                asking.start_soon(ask)
            await until(lambda: len(executed) == 10)
            wire.cut()
        assert len(executed) == 10
        nursery.cancel_scope.cancel()


async def test_redis_forgets_everything(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """FLUSHALL, and a restart with empty memory: who waits for an answer waits until its deadline, then all goes on."""
    here = RedisExchange(Server("links", own_redis.url), process="here", cluster="c-1", shards=4, partitions=2)
    there = RedisExchange(Server("links", own_redis.url), process="there")
    await joined(nursery, here, there)
    executed: list[Request] = []
    nursery.start_soon(answer_all, there.history(1), executed)
    assert await here.history(1).request(ME, Ping(), Pong, 60.0) == Pong()

    async def ask_nobody(link: Link[ToHistory]) -> None:
        with pytest.raises(Refused) as refused:
            await link.request(ME, Ping(), Pong, 1.0)
        assert refused.value.status is ErrorStatus.UNAVAILABLE

    def flush() -> None:
        with closing(own_redis.client()) as client:
            client.flushall()

    for forget in (flush, own_redis.restart, flush):
        assert here.history(2).offer(LookAtClock())
        async with trio.open_nursery() as asking:
            asking.start_soon(ask_nobody, here.history(3))
            await trio.sleep(0.1)
            await trio.to_thread.run_sync(forget)
        with trio.fail_after(60):
            while not await answered(here.history(1)):
                await trio.lowlevel.checkpoint()
        assert there.history(0).offer(LookAtClock())
        assert await received(here.history(0), 1) == [LookAtClock()]
        with closing(own_redis.client()) as client:
            await until(lambda: client.hget("engine:{engine}:cluster", "cluster") == b"c-1")
    assert await there.layout() == (4, 2)
    nursery.cancel_scope.cancel()


async def test_redis_hangs(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """It is stopped for a while: offers fill what there is and then say no, requests end, and all goes on."""
    here, there = (
        RedisExchange(Server("links", own_redis.url, timeout_seconds=0.4), process=each) for each in ("here", "there")
    )
    await joined(nursery, here, there)
    own_redis.stop()
    assert here.history(0).offer(wake(0))
    await until(lambda: not here.ready)
    offered = 1
    while here.history(0).offer(wake(offered)):
        offered += 1
    assert CAPACITY <= offered <= CAPACITY + 1
    with pytest.raises(Refused) as full:
        await here.history(1).request(ME, Ping(), Pong, 0.5)
    assert full.value.status is ErrorStatus.RESOURCE_EXHAUSTED
    with pytest.raises(Refused) as nobody:
        await there.history(1).request(ME, Ping(), Pong, 0.5)
    assert nobody.value.status is ErrorStatus.UNAVAILABLE
    sender = trio.Event()

    async def send_later() -> None:
        await here.history(0).send(wake(offered))
        sender.set()

    nursery.start_soon(send_later)
    await trio.sleep(0.3)
    assert not sender.is_set()
    own_redis.go_on()
    got: list[ToHistory | Request] = []
    with trio.fail_after(60):
        while len(got) <= offered:
            got += await there.history(0).receive()
    assert got == [wake(number) for number in range(offered + 1)]
    await until(lambda: here.ready)
    await until(sender.is_set)
    nursery.cancel_scope.cancel()


async def test_the_driver_is_killed(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    name = a_name()
    here, there = (
        RedisExchange(Server("links", redis_server.url), process=each, name=name) for each in ("here", "there")
    )
    await joined(nursery, here, there)
    got: list[ToHistory | Request] = []
    for turn in range(2):
        victim = (here, there)[turn]
        for place in range(500):
            assert here.history(0).offer(wake(turn * 500 + place))
        await trio.sleep(0.01)
        pid = victim.driver_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        got += await received(there.history(0), 500)
    assert got == [wake(number) for number in range(1000)]
    nursery.cancel_scope.cancel()


async def test_an_inbox_that_nobody_empties_is_full(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await joined(nursery, here)
    with closing(redis_server.client()) as client:
        key = f"engine:{{{name}}}:worker:w"
        sent = 0
        while here.worker("w").offer(ReportAgain()):
            sent += 1
            if sent % 100 == 0:
                await until(lambda: here.counts().waiting == 0)
        assert WORKER_CAPACITY <= sent <= WORKER_CAPACITY + 100
        assert here.history(0).offer(LookAtClock())
        assert 0 < client.pttl(key) <= 3_600_000
        got = 0
        with trio.fail_after(60):
            while got < sent:
                got += len(await here.worker("w").receive())
            with trio.move_on_after(0.1):
                await here.worker("w").receive()
        await until(lambda: here.worker("w").offer(ReportAgain()))
    nursery.cancel_scope.cancel()


async def test_redis_s_memory_is_full(nursery: trio.Nursery) -> None:
    """What is on its way can be received, which makes room; what was to be sent waits, and is sent once."""
    with closing(RedisServer("--maxmemory", "8mb")) as server:
        here, there = (RedisExchange(Server("links", server.url), process=each) for each in ("here", "there"))
        await joined(nursery, here, there)
        assert there.history(0).offer(LookAtClock())
        assert await received(there.history(0), 1) == [LookAtClock()]
        for number in range(100):
            assert here.history(0).offer(wake(number))
        await until(lambda: here.counts().waiting == 0)
        with closing(server.client()) as client:
            client.config_set("maxmemory", "1")
            assert here.history(0).offer(wake(100))
            got = await received(there.history(0), 100)
            assert places(got) == [f"run-{number}" for number in range(100)]
            assert here.counts().waiting == 1
            assert here.reconnects == there.reconnects == 0
            client.config_set("maxmemory", "8mb")
            assert await received(there.history(0), 1) == [wake(100)]
        nursery.cancel_scope.cancel()


async def test_a_receiver_that_is_long_at_work(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inbox is left meanwhile; when it comes back it goes on where it was."""
    monkeypatch.setattr(inbox_module, "BUSY_SECONDS", 0.1)
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await joined(nursery, here)
    for number in range(30):
        assert here.history(0).offer(wake(number))
    got: list[ToHistory | Request] = []
    with trio.fail_after(60):
        while len(got) < 30:
            got += await here.history(0).receive(10)
            await trio.sleep(0.4)
    assert got == [wake(number) for number in range(30)]
    with trio.move_on_after(0.5):
        await here.history(0).receive()
        raise AssertionError("nothing is left to receive")
    nursery.cancel_scope.cancel()


class Left:
    """An inbox that only knows whether it was left."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.is_left = False

    def leave(self) -> None:
        self.is_left = True
        self._post.came(self)  # type: ignore[arg-type]


async def test_a_receiver_that_goes_is_noticed_while_others_work(autojump_clock: MockClock) -> None:
    post = Post(b"here", reply_stream("replies"))
    at_work, gone = Left(post), Left(post)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Carrier(post, 5.0).watch_receivers)
        post.left(at_work, trio.current_time() + 5.0)  # type: ignore[arg-type]
        await trio.sleep(1.0)
        post.left(gone, trio.current_time() + 0.2)  # type: ignore[arg-type]
        await trio.sleep(0.5)
        assert (at_work.is_left, gone.is_left) == (False, True)
        await trio.sleep(4.0)
        assert at_work.is_left
        nursery.cancel_scope.cancel()


async def test_workers_come_and_go(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their links are not kept for ever, and one that was not kept is as good as another."""
    monkeypatch.setattr(exchange_module, "_WORKERS", 2)
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await joined(nursery, here)
    link = here.worker("first")
    for number in range(5):
        assert here.worker(f"worker-{number}").offer(ReportAgain())
    assert len(here._workers) == 2
    assert here.worker("first").offer(ReportAgain())
    with trio.fail_after(60):
        assert await link.receive() == [ReportAgain()]
        assert await here.worker("worker-0").receive() == [ReportAgain()]
    nursery.cancel_scope.cancel()
