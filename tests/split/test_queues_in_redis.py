"""Task queues in Redis, shared by two Matchings: one of them is killed, Redis forgets and hangs. Everything completes,
each outcome counts once, and one worker gets a queue in its order."""

from __future__ import annotations

import trio
from prometheus_client.parser import text_string_to_metric_families

from enginekit.client import Client, open_client
from enginekit.messages import calls
from enginekit.messages.status import ExecutionStatus
from examples.split.cluster import open_cluster
from tests.split.checks import histories, outcomes
from tests.split.load import Load, recovers, under
from tests.split.test_watched_processes import get, where

PLAN = {"history": 1, "matching": 2, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 4
TASKS = 40
PRIORITIES = 4
LISTEN = '[health]\nlisten = "127.0.0.1:0"\n'
WHOLE_SECONDS = 540.0
STOP_SECONDS = 5.0


def queues_in(redis: str) -> str:
    return f'\n[queues]\nurl = "{redis}"\n'


def at_desk(priority: int) -> dict[str, object]:
    work = {"Type": "Task", "Resource": "activity:desk", "Priority": priority, "End": True}
    return {"StartAt": "Work", "States": {"Work": work}}


async def start_all(client: Client) -> list[str]:
    """Of each priority some, mixed; the names in the order in which they are to be given out."""
    names: list[tuple[int, int, str]] = []
    for number in range(TASKS):
        priority = number % PRIORITIES
        started = await client.start(at_desk(priority), workflow_id=f"desk-{number:02d}")
        names.append((-priority, number, started.workflow_id))
    return [name for _, _, name in sorted(names)]


async def work(client: Client, tasks: int) -> list[str]:
    """Poll for one after the other, and complete it."""
    done: list[str] = []
    while len(done) < tasks:
        poll = calls.PollTask(queue="desk", worker_id="clerk", wait_seconds=20)
        for task in (await client.call(poll)).tasks:
            await client.complete_task(task.token, {})
            done.append(task.workflow_id)
    return done


async def depth(client: Client) -> int:
    queues = (await client.call(calls.ListQueues())).queues
    return sum(queue.depth for queue in queues if queue.queue == "desk")


async def all_wait(client: Client) -> None:
    """Returns when all of them are in the queue."""
    while await depth(client) < TASKS:  # noqa: ASYNC110 - nobody tells when it comes to be so
        await trio.sleep(0.05)


async def shown(folder, tasks: int) -> None:
    """Returns when /metrics of a Matching shows so many that wait."""
    url = where(folder, "matching")
    while True:
        families = {each.name: each for each in text_string_to_metric_families((await get(f"{url}/metrics")).text)}
        assert "engine_queues_turns" in families
        samples = families["engine_queue_tasks"].samples
        if sum(each.value for each in samples if each.labels["state"] == "ready") == tasks:
            return
        await trio.sleep(0.1)


async def check(database: str, folder, acknowledged: set[str]) -> None:
    found = await histories(database, folder, SHARDS)
    assert acknowledged <= set(found), "an acknowledged start is lost"
    for events in found.values():
        assert set(outcomes(events).values()) <= {1}


async def test_a_matching_that_is_killed_takes_nothing_along(tmp_path, database, own_redis):
    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path, database, own_redis.url, PLAN, shards=SHARDS, more=LISTEN + queues_in(own_redis.url)
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            in_order = await start_all(client)
            await all_wait(client)
            await shown(tmp_path / "data", TASKS)
            done = await work(client, 10)
            victim = cluster.of("matching")[0]
            victim.wanted = False
            victim.kill()
            began = trio.current_time()
            done += await work(client, TASKS - 10)
            took = trio.current_time() - began
            assert done == in_order
            for name in in_order:
                assert (await client.wait(name)).status is ExecutionStatus.SUCCEEDED
            # One that waits is woken by what comes, whoever of them has it.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, client, 1)
                await trio.sleep(0.3)
                late = await client.start(at_desk(0), workflow_id="late")
            assert (await client.wait(late.workflow_id)).status is ExecutionStatus.SUCCEEDED
            await cluster.stop()
    print(f"the others took {took:.2f} s for the rest")
    said = [line for line in (tmp_path / "matching-2.log").read_text().splitlines() if '"desk"' in line]
    assert not [line for line in said if "filled from the store" in line], "it was there"
    await check(database, tmp_path, {*in_order, "late"})


async def test_redis_forgets_and_hangs(tmp_path, database, own_redis):
    async def break_redis() -> None:
        for what, fault in (("FLUSHALL", flush), ("a restart with empty memory", own_redis.restart)):
            await trio.to_thread.run_sync(fault)
            with recovers(what):
                await load.goes_on()
        own_redis.stop()
        try:
            await trio.sleep(STOP_SECONDS)
        finally:
            own_redis.go_on()
        with recovers("a stop of Redis"):
            await load.goes_on()

    def flush() -> None:
        redis = own_redis.client()
        try:
            redis.flushall()
        finally:
            redis.close()

    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path, database, own_redis.url, PLAN, shards=SHARDS, more=queues_in(own_redis.url)
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            in_order = await start_all(client)
            await all_wait(client)
            load = Load(client)
            await under(load, break_redis)
            assert sorted(await work(client, TASKS)) == sorted(in_order), "they were brought from the store"
            for name in in_order:
                assert (await client.wait(name)).status is ExecutionStatus.SUCCEEDED
            assert [member.name for member in cluster.members if member.deaths] == []
            await cluster.stop()
    assert set(load.closed) == load.acknowledged
    assert set(load.closed.values()) == {ExecutionStatus.SUCCEEDED}
    await check(database, tmp_path, load.acknowledged | set(in_order))
