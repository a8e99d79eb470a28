"""A History that is stopped past its lease, while others have its shards, and goes on: it writes nothing any more.

`make test` stops one once, `make chaos-split` twenty times.
"""

from __future__ import annotations

import pytest
import trio

from enginekit.client import open_client
from enginekit.messages import calls
from enginekit.messages.status import ExecutionStatus, Refused
from examples.split.cluster import Cluster, Member, open_cluster
from tests.split.checks import histories, outcomes
from tests.split.load import Load

PLAN = {"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 8
LEASE_SECONDS = 1.0
STOPS = 20
WHOLE_SECONDS = 540.0
TAKEN_OVER = "another owner"


async def test_its_commits_fail_and_it_steps_down(request, tmp_path, database, own_redis):
    stops = STOPS if request.config.getoption("--chaos-minutes") else 1
    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path, database, own_redis.url, PLAN, shards=SHARDS, lease_seconds=LEASE_SECONDS
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            load = Load(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.run)
                for number in range(stops):
                    await _stop_and_go_on(cluster, cluster.of("history")[number % 2])
                load.ended = True
            await cluster.stop()
    assert load.acknowledged
    assert set(load.closed) == load.acknowledged
    assert set(load.closed.values()) == {ExecutionStatus.SUCCEEDED}
    found = await histories(database, tmp_path, SHARDS)
    assert load.acknowledged <= set(found)
    for events in found.values():
        assert set(outcomes(events).values()) <= {1}


async def _stop_and_go_on(cluster: Cluster, member: Member) -> None:
    """Stopped for longer than its lease, and for as long as it takes until all shards are another's."""
    await trio.sleep(2 * LEASE_SECONDS)
    member.pause()
    try:
        await trio.sleep(3 * LEASE_SECONDS)
        await cluster.executes()
    finally:
        member.resume()
    while TAKEN_OVER not in (cluster.folder / f"{member.name}.log").read_text():  # noqa: ASYNC110
        await trio.sleep(0.05)  # it has noticed


@pytest.mark.usefixtures("thorough")
async def test_it_answers_nothing_that_may_not_be_so_any_more(tmp_path, database, own_redis):
    waits = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
    with trio.fail_after(WHOLE_SECONDS):
        async with (
            open_cluster(
                tmp_path, database, own_redis.url, PLAN, shards=SHARDS, lease_seconds=LEASE_SECONDS
            ) as cluster,
            open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
        ):
            names = [f"long-{number}" for number in range(SHARDS * 2)]
            for name in names:
                await client.start(waits, workflow_id=name)
            stopped = cluster.of("history")[0]
            stopped.pause()
            try:
                await trio.sleep(3 * LEASE_SECONDS)
                for name in names:
                    # By the other one, where it was not that one's already.
                    await client.call(calls.TerminateWorkflow(workflow_id=name, request_id=f"end-{name}"))
            finally:
                stopped.resume()
            for _ in range(20):
                for name in names:
                    try:
                        seen = await client.call(calls.DescribeWorkflow(workflow_id=name))
                    except Refused:
                        continue
                    assert seen.status is ExecutionStatus.TERMINATED, "it was terminated, and that was acknowledged"
            await cluster.stop()
    await histories(database, tmp_path, SHARDS)
