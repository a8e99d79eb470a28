"""The servers below a split engine forget, hang, restart and cut their connections under load: services wait and go on,
everything that was acknowledged completes, and callers are told no lie meanwhile.

Only under `make chaos-split`.
"""

from __future__ import annotations

import pytest
import trio

from enginekit.client import open_client
from enginekit.messages.status import ErrorStatus, ExecutionStatus
from examples.split.cluster import open_cluster
from tests.split.checks import histories, outcomes
from tests.split.load import Load, Once, recovers, settled, under

PLAN = {"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 8
LEASE_SECONDS = 2.0
STOP_SECONDS = 30.0
DOWN_SECONDS = 5.0
CALL_SECONDS = 2.0
"""Shorter than PostgreSQL is away, so that callers hear of it."""
WHOLE_SECONDS = 540.0


async def check(database, folder, acknowledged) -> None:
    found = await histories(database, folder, SHARDS)
    assert acknowledged <= set(found), "an acknowledged start is lost"
    for events in found.values():
        assert set(outcomes(events).values()) <= {1}


@pytest.mark.usefixtures("thorough")
async def test_redis_forgets_and_hangs(tmp_path, database, own_redis):
    async def break_redis() -> None:
        redis = own_redis.client()
        try:
            await trio.to_thread.run_sync(redis.flushall)
        finally:
            redis.close()
        with recovers("FLUSHALL"):
            await load.goes_on()
        await trio.to_thread.run_sync(own_redis.restart)
        with recovers("a restart of Redis with empty memory"):
            await load.goes_on()
        own_redis.stop()
        try:
            await trio.sleep(STOP_SECONDS)
        finally:
            own_redis.go_on()
        with recovers(f"a stop of Redis for {STOP_SECONDS:g} s"):
            await load.goes_on()

    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path, database, own_redis.url, PLAN, shards=SHARDS, lease_seconds=LEASE_SECONDS
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            load = Load(client)
            await under(load, break_redis)
            assert [member.name for member in cluster.members if member.deaths] == []
            await cluster.stop()
    assert set(load.closed) == load.acknowledged
    assert set(load.closed.values()) == {ExecutionStatus.SUCCEEDED}
    await check(database, tmp_path, load.acknowledged)


@pytest.mark.usefixtures("thorough")
async def test_postgres_restarts_and_cuts_its_connections(tmp_path, durable_postgres, own_redis):
    name = durable_postgres.new_database()
    database = durable_postgres.url(name)

    def cut() -> None:
        with durable_postgres.connect() as somebody:
            somebody.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE 'engine %%'",
                (name,),
            )

    async def break_postgres() -> None:
        for _ in range(3):
            await trio.to_thread.run_sync(cut)
            with recovers("all connections were cut"):
                await load.goes_on()
        for how in ("fast", "immediate"):
            await trio.to_thread.run_sync(durable_postgres.down, how)
            before = once.refused[ErrorStatus.UNAVAILABLE]
            acknowledged = len(once.acknowledged)
            await trio.sleep(DOWN_SECONDS)
            assert once.refused[ErrorStatus.UNAVAILABLE] > before, "callers are told"
            # What was committed just before may be answered just after.
            assert len(once.acknowledged) <= acknowledged + 20
            await trio.to_thread.run_sync(durable_postgres.up)
            with recovers(f"a restart of PostgreSQL ({how})"):
                await load.goes_on()

    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path,
                database,
                own_redis.url,
                PLAN,
                shards=SHARDS,
                lease_seconds=LEASE_SECONDS,
                call_timeout_seconds=CALL_SECONDS,
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
            trio.open_nursery() as nursery,
        ):
            load, once = Load(client), Once(cluster.local.url, cluster.local.token)
            await nursery.start(once.run)
            nursery.start_soon(once.start_all_the_time, "once")
            await under(load, break_postgres)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await settled(client)
                assert [member.name for member in cluster.members if member.deaths] == []
                await cluster.stop()
    assert set(once.refused) == {ErrorStatus.UNAVAILABLE}
    assert once.lost == 0, "the Frontend was there all the time"
    assert set(load.closed) == load.acknowledged
    assert set(load.closed.values()) == {ExecutionStatus.SUCCEEDED}
    await check(database, tmp_path, load.acknowledged | once.acknowledged)
