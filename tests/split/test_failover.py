"""PostgreSQL's primary dies under load, and its synchronous standby takes its place: nothing that was acknowledged is
lost.

Only under `make chaos-split`.
"""

from __future__ import annotations

from contextlib import ExitStack, closing

import pytest
import trio

from enginekit.client import open_client
from enginekit.messages.status import ErrorStatus, ExecutionStatus
from examples.split.cluster import open_cluster
from tests.servers.postgres import PostgresServer
from tests.servers.standby import Standby
from tests.split.checks import histories, outcomes
from tests.split.load import Load, Once, recovers, settled, under

PLAN = {"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 8
LEASE_SECONDS = 2.0
CALL_SECONDS = 5.0
WHOLE_SECONDS = 540.0


def follow(primary: PostgresServer, standby: Standby) -> None:
    """As docs/operations.md has it: what is committed is on both."""
    standby.start()
    with closing(primary.connect()) as somebody:
        somebody.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        somebody.execute("SELECT pg_reload_conf()")


@pytest.mark.usefixtures("thorough")
async def test_a_synchronous_standby_takes_the_primary_s_place(tmp_path, own_redis):
    with ExitStack() as servers:
        primary = PostgresServer(durable=True)
        servers.callback(primary.stop)
        await trio.to_thread.run_sync(primary.start)
        name = await trio.to_thread.run_sync(primary.new_database)
        standby = Standby(primary)
        servers.callback(standby.stop)
        await trio.to_thread.run_sync(follow, primary, standby)
        both = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}"

        async def fail_over() -> None:
            await load.goes_on()
            await trio.to_thread.run_sync(primary.kill)
            await trio.to_thread.run_sync(standby.promote)
            with recovers("the standby was promoted"):
                await load.goes_on()

        with trio.fail_after(WHOLE_SECONDS):
            async with (
                open_cluster(
                    tmp_path,
                    both,
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
                await under(load, fail_over)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await settled(client)
                    assert [member.name for member in cluster.members if member.deaths] == []
                    await cluster.stop()
        assert set(once.refused) <= {ErrorStatus.UNAVAILABLE}
        assert once.lost == 0, "the Frontend was there all the time"
        assert set(load.closed) == load.acknowledged
        assert set(load.closed.values()) == {ExecutionStatus.SUCCEEDED}
        found = await histories(standby.url(name), tmp_path, SHARDS)
        assert load.acknowledged | once.acknowledged <= set(found), "an acknowledged start is lost"
        for events in found.values():
            assert set(outcomes(events).values()) <= {1}
