"""A driver's process, its connections, and Redis itself, each of which may go: what is made anew, and what is said."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from contextlib import closing
from typing import Any

import pytest
import trio
import trio.testing
from kinds import Driven, Kind
from redis_server import RedisServer, a_name
from structlog.testing import capture_logs

from daemon.drivers.faults import ServerUnusable
from daemon.links.redis.exchange import RedisExchange
from daemon.queues.interface import Ask
from daemon.queues.redis.queues import RedisTaskQueues
from daemon.redis import driver
from enginekit.messages.links import EndNodePolls, LookAtClock

PATIENCE_SECONDS = 60.0
PEACE_SECONDS = 3.0
MOST_CONNECTIONS = 40
"""In these seconds: some fourteen, and thousands without a pause between them."""


async def until(happened: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def use(driven: Driven) -> None:
    """Have something written, and wait until it is."""
    if isinstance(driven, RedisExchange):
        assert driven.history(1).offer(LookAtClock())
        await until(lambda: driven.counts().waiting == 0)
    else:
        assert isinstance(driven, RedisTaskQueues)
        with trio.fail_after(PATIENCE_SECONDS):
            await driven.partition(0).turn(Ask(notices=[EndNodePolls("w")]))


def said(logs: list[MutableMapping[str, Any]], event: str) -> int:
    return [each["event"] for each in logs].count(event)


async def test_a_redis_that_is_not_there_yet_is_waited_for(
    own_redis: RedisServer, nursery: trio.Nursery, kind: Kind
) -> None:
    own_redis.kill()
    driven = kind.made(own_redis.url)
    started = trio.Event()

    async def start() -> None:
        await nursery.start(driven.run)
        started.set()

    with capture_logs() as logs:
        nursery.start_soon(start)
        await until(lambda: said(logs, f"{kind.section} wait for Redis"))
        assert not started.is_set()
        assert not driven.ready
        await trio.to_thread.run_sync(own_redis.start)
        with trio.fail_after(PATIENCE_SECONDS):
            await started.wait()
            await use(driven)
        assert said(logs, kind.back) == 1
    nursery.cancel_scope.cancel()


async def test_what_cannot_be_used_ends_it(kind: Kind) -> None:
    with closing(RedisServer("--requirepass", "right-password")) as guarded:
        driven = kind.made(guarded.url, password="wrong-password")
        with pytest.raises(ServerUnusable, match="check the user and the password"), trio.fail_after(PATIENCE_SECONDS):
            await driven.run(task_status=trio.TASK_STATUS_IGNORED)
    assert not driven.ready
    assert driven.driver_pid is None


async def test_it_can_be_run_again(redis_server: RedisServer, kind: Kind) -> None:
    """As a service that failed is."""
    driven = kind.made(redis_server.url, name=a_name())
    for _ in range(2):
        async with trio.open_nursery() as running:
            with trio.fail_after(PATIENCE_SECONDS):
                await running.start(driven.run)
                await use(driven)
            running.cancel_scope.cancel()
        assert not driven.ready
        assert driven.driver_pid is None


async def test_a_driver_that_is_killed(redis_server: RedisServer, nursery: trio.Nursery, kind: Kind) -> None:
    """... in the middle of a call, which another driver does. Redis was there all the time."""
    driven = kind.made(redis_server.url, name=a_name())
    await nursery.start(driven.run)
    with capture_logs() as logs:
        pid = driven.driver_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as using:
            using.start_soon(use, driven)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)
        assert driven.driver_pid not in (None, pid)
    assert [each["event"] for each in logs] == [f"{kind.section}' driver lost", kind.back]
    nursery.cancel_scope.cancel()


async def test_a_driver_that_hangs(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    driven = kind.made(redis_server.url, name=a_name(), timeout_seconds=1.0)
    await nursery.start(driven.run)
    pid = driven.driver_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # Until it is found out; the next one may take its time to start.
    with monkeypatch.context() as impatient:
        impatient.setattr(driver, "_DRIVER_SECONDS", 0.1)
        async with trio.open_nursery() as using:
            using.start_soon(use, driven)
            await until(lambda: driven.driver_pid != pid)
            impatient.undo()
    assert driven.ready
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    nursery.cancel_scope.cancel()


async def test_a_driver_that_cannot_be_started(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """At first that ends it; later it is tried again."""
    driven = kind.made(redis_server.url, name=a_name())
    with monkeypatch.context() as without_python:
        without_python.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ServerUnusable, match=f"the {kind.section}' driver process could not be started"):
            await driven.run(task_status=trio.TASK_STATUS_IGNORED)
    await nursery.start(driven.run)
    assert driven.driver_pid is not None
    with capture_logs() as logs:
        with monkeypatch.context() as without_python:
            without_python.setattr(sys, "executable", "/nowhere/python")
            os.kill(driven.driver_pid, signal.SIGKILL)
            await until(lambda: said(logs, f"{kind.section}' driver could not be started") >= 2)
        await until(lambda: driven.ready)
    assert said(logs, f"{kind.section}' driver lost") == 1
    nursery.cancel_scope.cancel()


async def test_a_connection_that_is_lost_again_is_said_again(
    redis_server: RedisServer, nursery: trio.Nursery, kind: Kind
) -> None:
    """Whoever reads that Redis is back must not be left to think so."""
    name = a_name()
    driven = kind.made(redis_server.url, name=name)
    await nursery.start(driven.run)
    with capture_logs() as logs, closing(redis_server.client()) as client:
        for _ in range(2):
            before = said(logs, kind.back)
            client.client_kill_filter(_type="normal", skipme=True)
            await until(lambda before=before: said(logs, kind.back) > before)  # type: ignore[misc]
    told = [event for event in (each["event"] for each in logs) if event in (kind.lost, kind.back)]
    changes = [event for event, _ in itertools.groupby(told)]
    assert len(changes) >= 4
    assert changes == [kind.lost, kind.back] * (len(changes) // 2)
    nursery.cancel_scope.cancel()


async def test_a_redis_that_refuses_what_is_asked_is_left_in_peace(
    own_redis: RedisServer, nursery: trio.Nursery, kind: Kind
) -> None:
    """It lets everybody in, and does nothing: the pause between connections grows."""
    driven = kind.made(own_redis.url)
    await nursery.start(driven.run)
    with closing(own_redis.client()) as client:
        client.config_set("min-replicas-to-write", 1)
        before = client.info("stats")["total_connections_received"]
        async with trio.open_nursery() as using:
            using.start_soon(use, driven)
            await trio.sleep(PEACE_SECONDS)
            assert client.info("stats")["total_connections_received"] - before < MOST_CONNECTIONS
            client.config_set("min-replicas-to-write", 0)
    nursery.cancel_scope.cancel()
