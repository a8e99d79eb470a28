"""Queues in Redis beyond what all queues promise and every driver of Redis looks at: who is let in, what is refused,
what is waited for, and that all of it may be lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing
from redis_server import RedisServer, a_name, documented_user

from daemon.drivers.faults import ServerUnusable
from daemon.queues.interface import Ask, Demand, PartitionQueues, Terms
from daemon.queues.open import open_queues
from daemon.queues.redis.host import check_version
from daemon.queues.redis.queues import RedisTaskQueues
from daemon.redis.frames import Server
from daemon.settings import QueueSettings, Settings
from enginekit.messages.links import EndNodePolls, QueuedTask, QueueKey, RunRef, TaskKind, TaskRef

DOCS = Path(__file__).parents[2] / "docs" / "queues.md"
TERMS = Terms(tasks=20, lease_seconds=60.0, delay_seconds=60.0)
ORDERS = QueueKey("acme", TaskKind.ACTIVITY, "orders")
HTTP = QueueKey("acme", TaskKind.NODE, "http")


def task(number: int, queue: QueueKey = ORDERS, destination: str | None = None) -> QueuedTask:
    run = RunRef("acme", f"order-{number}", f"0190f0e0-0000-7000-8000-{number:012d}")
    return QueuedTask(TaskRef(run, 3), queue, 0, 1_764_000_000_000 + number, destination)


def shared(url: str, *, name: str = "engine", timeout_seconds: float = 5.0, partitions: int = 1) -> RedisTaskQueues:
    server = Server("queues", url, timeout_seconds=timeout_seconds)
    return RedisTaskQueues(server, member="m1", terms=TERMS, partitions=partitions, name=name)


async def claimed(queues: PartitionQueues) -> list[QueuedTask]:
    return (await queues.turn(Ask(demands=[Demand(tasks=100, queue=ORDERS)]))).claims[0].tasks


@pytest.fixture
async def driven(own_redis: RedisServer, nursery: trio.Nursery) -> AsyncIterator[RedisTaskQueues]:
    """With its driver in a process, and a Redis of its own."""
    queues = shared(own_redis.url, timeout_seconds=2.0)
    await nursery.start(queues.run)
    yield queues
    nursery.cancel_scope.cancel()


async def refusal(queues: RedisTaskQueues) -> str:
    """Why it does not run."""
    with pytest.raises(ServerUnusable) as raised, trio.fail_after(60):
        await queues.run()
    assert not queues.ready
    assert queues.driver_pid is None
    return str(raised.value)


# --- who is let in ---------------------------------------------------------------------------------------------------


async def do_everything(queues: RedisTaskQueues) -> None:
    """Every branch of the script, and what is heard."""
    part = queues.partition(0)
    many = [task(each) for each in range(1, 25)]
    await part.turn(Ask(offered=[*many, task(50, HTTP, "d"), task(51, HTTP, "d"), task(52, HTTP)]))
    demands = [Demand(tasks=12, queue=ORDERS), Demand(tasks=2, resources=["http"], without=[("acme", "d")])]
    await part.turn(Ask(demands=demands, notices=[EndNodePolls("w")], scan_seconds=10.0))
    refs = [each.task for each in many]
    await part.turn(Ask(offered=[many[0]], released=[refs[1]], delayed=[refs[2]], renewed=[refs[3]]))
    await part.turn(Ask(dropped=refs[:12], fills=[ORDERS], scan_seconds=1.0))
    await part.turn(Ask(filled=[ORDERS]))
    assert await part.depths()
    await part.turn(Ask(dropped=[task(each, HTTP).task for each in (50, 51, 52)]))
    with trio.fail_after(60):
        while EndNodePolls("w") not in (await part.hear()).notices:
            pass


async def test_a_user_who_may_do_what_is_documented(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    with closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "engine", "reset", *documented_user(DOCS))
        client.execute_command(
            "ACL", "SETUSER", "other", "reset", *documented_user(DOCS), "resetkeys", "~engine:{other}:*"
        )
    queues = shared(f"redis://engine:secret@127.0.0.1:{own_redis.port}", name="engine")
    queues.belongs_to("store-1")
    await nursery.start(queues.run)
    await do_everything(queues)
    with closing(own_redis.client()) as client:
        # It is tried, and done without.
        # Redis 6.2 names no part of a command.
        assert {each["object"] for each in client.acl_log()} in ({"config|get"}, {"config"})
    assert "docs/queues.md" in await refusal(shared(f"redis://other:secret@127.0.0.1:{own_redis.port}"))
    nursery.cancel_scope.cancel()


async def test_no_command_is_documented_that_is_not_needed(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    rules = documented_user(DOCS)
    queues = shared(own_redis.url)
    await nursery.start(queues.run)
    await do_everything(queues)
    with closing(own_redis.client()) as client:
        used = {name.removeprefix("cmdstat_").lower() for name in client.info("commandstats")}
    allowed = {rule[1:] for rule in rules if rule.startswith("+")} - {"auth", "select"}
    assert allowed <= used
    nursery.cancel_scope.cancel()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "old"), [("6.0.16", True), ("5.0.7", True), ("6.2.0", False), ("7.2.4", False)])
def test_redis_is_too_old(version: str, old: bool) -> None:
    if old:
        with pytest.raises(ServerUnusable, match=rf"too old \({version}\).*6\.2"):
            check_version(version)
    else:
        check_version(version)


def test_settings_name_the_queues() -> None:
    assert open_queues(Settings(), "m1") is None
    assert isinstance(open_queues(Settings(queues=QueueSettings(url="redis://localhost")), "m1"), RedisTaskQueues)


async def test_keys_that_are_something_else_are_said(redis_server: RedisServer) -> None:
    name = a_name()
    with closing(redis_server.client()) as client:
        client.hset(f"engine:{{{name}}}:queue:0:tasks", f"{task(1).task.run.run_id}/0000003", "mine")
    queues = shared(redis_server.url, name=name)

    async def use() -> None:
        await queues.partition(0).turn(Ask(dropped=[task(1).task]))

    async with trio.open_nursery() as using:
        using.start_soon(use)
        assert "delete the keys engine:{" in await refusal(queues)
        using.cancel_scope.cancel()


# --- what is lost, and waited for ------------------------------------------------------------------------------------


async def test_a_flush_is_noticed(own_redis: RedisServer, driven: RedisTaskQueues) -> None:
    part = driven.partition(0)
    assert (await part.turn(Ask(offered=[task(1)]))).anew
    assert not (await part.turn(Ask())).anew
    with closing(own_redis.client()) as client:
        client.flushall()
    assert (await part.turn(Ask())).anew
    assert await part.depths() == []
    await part.turn(Ask(offered=[task(1)]))
    assert await claimed(part) == [task(1)]


@pytest.mark.parametrize("how", ["restarted", "its driver killed", "its connections cut"])
async def test_a_connection_that_is_lost_is_made_anew(
    own_redis: RedisServer, driven: RedisTaskQueues, how: str
) -> None:
    part = driven.partition(0)
    await part.turn(Ask(offered=[task(1)]))
    if how == "restarted":
        await trio.to_thread.run_sync(own_redis.restart)
    elif how == "its driver killed":
        assert driven.driver_pid is not None
        os.kill(driven.driver_pid, signal.SIGKILL)
    else:
        with closing(own_redis.client()) as client:
            client.client_kill_filter(_type="normal")
    with trio.fail_after(60):
        told = await part.turn(Ask(offered=[task(2)], notices=[EndNodePolls("w")]))
        assert told.anew == (how == "restarted")
        assert {each.task for each in await claimed(part)} >= {task(2).task}
        # What is said from now on is heard, and who waits is told to look.
        await part.turn(Ask(notices=[EndNodePolls("w")]))
        woken = False
        while not woken:
            heard = await part.hear()
            woken = heard.woken is None


async def test_a_redis_that_hangs_is_waited_for(own_redis: RedisServer, driven: RedisTaskQueues) -> None:
    part = driven.partition(0)
    own_redis.stop()
    try:
        with trio.move_on_after(3) as waiting:
            await part.turn(Ask(offered=[task(1)]))
        assert waiting.cancelled_caught
    finally:
        own_redis.go_on()
    with trio.fail_after(60):
        await part.turn(Ask(offered=[task(2)]))
        assert task(2) in await claimed(part)


async def test_all_who_wait_for_redis_go_on(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """Each partition asks by itself."""
    queues = shared(own_redis.url, partitions=3)
    await nursery.start(queues.run)
    own_redis.stop()
    async with trio.open_nursery() as waiting:
        for number in range(3):
            waiting.start_soon(queues.partition(number).turn, Ask(offered=[task(1)]))
        await trio.testing.wait_all_tasks_blocked()
        own_redis.kill()
        await trio.to_thread.run_sync(own_redis.start)
        with trio.fail_after(60):
            while waiting.child_tasks:  # noqa: ASYNC110
                await trio.sleep(0.01)
    nursery.cancel_scope.cancel()


async def test_when_memory_is_full_what_is_over_is_taken_out(own_redis: RedisServer, driven: RedisTaskQueues) -> None:
    part = driven.partition(0)
    await part.turn(Ask(offered=[task(1), task(2)]))
    with closing(own_redis.client()) as client:
        client.config_set("maxmemory", 1)
        done = trio.Event()

        async def turn() -> None:
            await part.turn(Ask(offered=[task(3)], dropped=[task(1).task]))
            done.set()

        async with trio.open_nursery() as waiting:
            waiting.start_soon(turn)
            with trio.fail_after(60):
                while client.hlen("engine:{engine}:queue:0:tasks") != 1:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert not done.is_set()
            client.config_set("maxmemory", 0)
            with trio.fail_after(60):
                await done.wait()
    assert await claimed(part) == [task(2), task(3)]


async def test_what_it_takes_in_redis(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    """Nothing is left of what is over."""
    name = a_name()
    queues = shared(redis_server.url, name=name)
    await nursery.start(queues.run)
    part = queues.partition(0)
    tasks = [task(each) for each in range(10)] + [task(each, HTTP, "d") for each in range(20, 30)]
    await part.turn(Ask(offered=tasks, fills=[ORDERS]))
    await part.turn(Ask(filled=[ORDERS], demands=[Demand(tasks=5, queue=ORDERS), Demand(tasks=9, resources=["http"])]))
    await part.turn(Ask(dropped=[each.task for each in tasks]))
    await part.turn(Ask(demands=[Demand(tasks=9, resources=["http"])]))
    with closing(redis_server.client()) as client:
        left = {key.decode().rpartition("queue:0:")[2] for key in client.scan_iter(f"engine:{{{name}}}:queue:*")}
    assert left == {"generation", "turn", "notices"}
    nursery.cancel_scope.cancel()
