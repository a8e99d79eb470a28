"""The network between two hosts is cut under load: the side without the servers writes nothing and answers nothing that
may not be so any more; when it heals, that side steps down, and then takes part again.

Only under `make chaos-split`: in network namespaces where the machine allows it, and through a proxy that holds all
that is sent.
"""

from __future__ import annotations

import pytest
import trio

from enginekit.client import Client, open_client
from enginekit.messages import calls
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from examples.split.cluster import Cluster, open_cluster
from tests.split.checks import histories, outcomes
from tests.split.hosts import NamespaceHost, ProxyHost, namespaces_work, other_host
from tests.split.load import Load, Once, settled, under

PLAN = {"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 2}
SHARDS = 8
LEASE_SECONDS = 2.0
CALL_SECONDS = 2.0
LOOKS = 10
CUTS = 5
RECOVERY_SECONDS = 120.0
WHOLE_SECONDS = 900.0
STEPPED_DOWN = "lost to another owner"
WAITS = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}


@pytest.mark.parametrize("kind", [NamespaceHost, ProxyHost])
@pytest.mark.usefixtures("thorough")
async def test_the_side_without_the_servers_says_nothing_stale(tmp_path, database, own_redis, kind):
    if kind is NamespaceHost and not namespaces_work():
        pytest.skip("this machine makes no network namespaces for us")
    with (
        trio.fail_after(WHOLE_SECONDS),
        other_host(kind, tmp_path, database, own_redis.url) as there,
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(there.run)
            await _cut_and_heal(tmp_path, database, own_redis.url, there, CUTS)
            nursery.cancel_scope.cancel()


class Cuts:
    """What is done while the network is cut, and after it has healed."""

    def __init__(self, cluster: Cluster, client: Client, there: ProxyHost) -> None:
        self._client = client
        self._there = there
        self._folder = cluster.folder
        self.load = Load(client)
        self.near = Once(cluster.local.url, cluster.local.token)
        self.far = Once(there.frontend, there.local.token)

    async def run(self, number: int) -> None:
        names = [f"long-{number}-{each}" for each in range(2 * SHARDS)]
        for name in names:
            await self._client.start(WAITS, workflow_id=name)
        await self.load.goes_on()
        claims = self.claims()
        self._there.cut()
        try:
            await trio.sleep(3 * LEASE_SECONDS)
            with trio.fail_after(RECOVERY_SECONDS):
                for name in names:
                    # By the one that has the servers, where it was not that one's already.
                    await self._client.call(calls.TerminateWorkflow(workflow_id=name, request_id=f"end-{name}"))
                await self.load.goes_on()
            known = set(self.far.acknowledged)
            assert await statuses(self.far, names) == set()
            await self.far.start(f"far-{number}")
            assert self.far.acknowledged == known, "nobody there can have written it"
        finally:
            self._there.heal()
        for _ in range(LOOKS):
            for once in (self.near, self.far):
                assert await statuses(once, names) <= {ExecutionStatus.TERMINATED}
        with trio.fail_after(RECOVERY_SECONDS):
            await self.load.goes_on()
            while self.claims() == claims:  # noqa: ASYNC110
                await trio.sleep(0.5)
            attempt = 0
            while self.far.acknowledged == known:
                await self.far.start(f"far-{number}-healed-{attempt}")
                attempt += 1
        self.far.refused.clear()

    def claims(self) -> int:
        """How often the History there has taken shards."""
        return (self._folder / "history-2.log").read_text().count("shards claimed")


async def _cut_and_heal(folder, database, redis, there: ProxyHost, cuts: int) -> None:
    async with (
        open_cluster(
            folder,
            database,
            redis,
            PLAN,
            shards=SHARDS,
            lease_seconds=LEASE_SECONDS,
            call_timeout_seconds=CALL_SECONDS,
            elsewhere={"history-2": there.host, "frontend-2": there.host},
        ) as cluster,
        open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
    ):
        done = Cuts(cluster, client, there)

        async def all_of_them() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(done.near.run)
                await nursery.start(done.far.run)
                for number in range(cuts):
                    await done.run(number)
                nursery.cancel_scope.cancel()

        await under(done.load, all_of_them)
        await settled(client)
        assert [member.name for member in cluster.members if member.deaths] == []
        await cluster.stop()
    assert set(done.load.closed) == done.load.acknowledged
    assert set(done.load.closed.values()) == {ExecutionStatus.SUCCEEDED}
    found = await histories(database, folder, SHARDS)
    assert done.load.acknowledged | done.far.acknowledged <= set(found)
    for events in found.values():
        assert set(outcomes(events).values()) <= {1}
    assert STEPPED_DOWN in (folder / "history-2.log").read_text()


async def statuses(once: Once, names: list[str]) -> set[ExecutionStatus]:
    """What somebody says of these, where he says anything. Whatever he says else must be that he cannot know."""
    said: set[ExecutionStatus] = set()

    async def one(name: str) -> None:
        try:
            answer = await once.ask(calls.DescribeWorkflow(workflow_id=name))
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise
        else:
            said.add(answer.status)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)
    return said
