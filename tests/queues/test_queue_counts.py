"""What shared queues count, and how many tasks are where, as /metrics shows it, over a real server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import inline_driver
import pytest
import trio
from prometheus_client import CollectorRegistry
from redis_server import RedisServer, a_name, documented_user
from test_redis_queues import DOCS, ORDERS, TERMS, shared, task

from daemon.queues.counting import QueueCollector, QueueCounts, TaskCollector
from daemon.queues.interface import Ask, Demand, Places
from daemon.queues.memory import MemoryTaskQueues
from daemon.redis import driver
from enginekit.messages.links import EndNodePolls

PATIENCE_SECONDS = 60.0


async def until(happened: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not happened():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "spawn", inline_driver.spawn)


async def test_calls_and_those_that_failed(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    queues = shared(own_redis.url)
    assert queues.counts() == QueueCounts(connected=False)
    await nursery.start(queues.run)
    part = queues.partition(0)
    registry = CollectorRegistry()
    QueueCollector(queues.counts, registry)

    def shown(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"engine_queues_{name}", labels)

    await part.turn(Ask(offered=[task(1)]))
    assert shown("connected") == 1
    assert shown("turns_total") == 1
    assert shown("turns_failed_total", reason="away") == shown("turns_failed_total", reason="full") == 0
    assert shown("reconnects_total") == 0

    with closing(own_redis.client()) as client:
        for setting, wrong, right, reason in (
            ("min-replicas-to-write", 1, 0, "away"),
            ("maxmemory", 1, 0, "full"),
        ):
            client.config_set(setting, wrong)
            async with trio.open_nursery() as waiting:
                waiting.start_soon(part.turn, Ask(notices=[EndNodePolls("w")]))
                await until(lambda reason=reason: shown("turns_failed_total", reason=reason))  # type: ignore[misc]
                client.config_set(setting, right)
    reconnects = shown("reconnects_total")
    assert reconnects is not None
    assert reconnects >= 1

    own_redis.kill()
    await until(lambda: shown("connected") == 0)
    nursery.cancel_scope.cancel()


async def test_how_many_tasks_are_where(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    queues = shared(redis_server.url, name=a_name())
    await nursery.start(queues.run)
    part = queues.partition(0)
    told = await part.turn(Ask(offered=[task(number) for number in range(10)]))
    assert told.places == Places(ready=10, leased=0, delayed=0)
    told = await part.turn(Ask(demands=[Demand(tasks=4, queue=ORDERS)]))
    assert told.places == Places(ready=6, leased=4, delayed=0)
    claimed = [each.task for each in told.claims[0].tasks]
    told = await part.turn(Ask(dropped=claimed[:1], delayed=claimed[1:3]))
    assert told.places == Places(ready=6, leased=1, delayed=2)
    nursery.cancel_scope.cancel()


async def test_a_user_who_may_not_know_how_many_there_are(own_redis: RedisServer, nursery: trio.Nursery) -> None:
    """One of an older line of docs/queues.md: everything else goes on."""
    rules = [rule for rule in documented_user(DOCS) if rule != "+hlen"]
    assert len(rules) == len(documented_user(DOCS)) - 1
    with closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "engine", "reset", *rules)
    queues = shared(f"redis://engine:secret@127.0.0.1:{own_redis.port}")
    await nursery.start(queues.run)
    told = await queues.partition(0).turn(Ask(offered=[task(1)], demands=[Demand(tasks=4, queue=ORDERS)]))
    assert told.claims[0].tasks == [task(1)]
    assert told.places is None
    nursery.cancel_scope.cancel()


def test_partitions_are_shown_by_their_number() -> None:
    registry = CollectorRegistry()
    there = {0: Places(ready=3, leased=2, delayed=1), 2: Places(ready=5, leased=0, delayed=0)}
    TaskCollector(lambda: there, registry)

    def shown(partition: int, state: str) -> float | None:
        return registry.get_sample_value("engine_queue_tasks", {"partition": str(partition), "state": state})

    states = ("ready", "leased", "delayed")
    assert [shown(0, state) for state in states] == [3, 2, 1]
    assert [shown(2, state) for state in states] == [5, 0, 0]
    assert [shown(1, state) for state in states] == [None, None, None]
    there.clear()
    assert shown(0, "ready") is None


def test_inside_a_process_nothing_is_asked() -> None:
    assert MemoryTaskQueues(TERMS).counts() == QueueCounts(connected=True)
