"""A commit that is on its way to PostgreSQL when its owner's lease lapses, and arrives when the shards are another's:
it fails on the epoch, its owner steps down, and says nothing meanwhile that may not be so any more.

It is held where it can be held for longer than a lease: in the driver's process, which is stopped while the History
lives on, or on the wire. (On a lock it cannot be: PostgreSQL gives up waiting for that before the lease ends.) That it
arrived and failed is seen in PostgreSQL's own log. `make test` does each once, `make chaos-split` thirty times.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import trio

from daemon.links.sharding import shard_of
from enginekit.client import Client, open_client
from enginekit.messages import calls
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from examples.split.cluster import Cluster, Host, open_cluster
from tests.split.checks import TENANT, histories
from tests.split.hosts import Relay, relay_to
from tests.split.load import Once

PLAN = {"history": 2, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 16
LEASE_SECONDS = 1.0
CALL_SECONDS = 2.0
LOOKS = 8
ARRIVES_SECONDS = 60.0
PAUSE_SECONDS = 0.1
WHOLE_SECONDS = 1200.0
WAITS = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
STOPPED, HELD, DROPPED = "its driver is stopped", "the wire holds it", "the wire drops it"
FEW = (STOPPED, HELD, DROPPED)
MANY = (STOPPED, STOPPED, STOPPED, STOPPED, HELD, DROPPED) * 5
FENCED = re.compile(r"ERROR:\s+fenced\n[^\n]*DETAIL:\s+([\d,]+)")
STEPPED_DOWN = (
    "another owner has taken the shard",
    "shards lost to another owner",
    "the store is gone; every execution is read back",
)


class Rounds:
    """One History of two is the victim, again and again."""

    def __init__(self, cluster: Cluster, client: Client, once: Once, relay: Relay, server) -> None:
        self._client = client
        self._once = once
        self._relay = relay
        self._server = server
        self._victim = next(member for member in cluster.members if member.name == "history-2")
        self._log = cluster.folder / "history-2.log"
        self._stopped = 0
        self.moved: set[str] = set()
        """Executions whose signal was taken, because their shard was not the victim's any more."""
        self.lapsed = 0
        """So often somebody was told that the shard may be another's."""

    async def run(self, number: int, how: str) -> bool:
        """False: no commit was in flight after all, because the other one was given the signal."""
        shard, name, quiet = await self._runs_of_the_victims(number)
        fenced = self._fenced(shard)
        said = self._log.stat().st_size
        self._hold(how)
        try:
            signalled = await self._signal(name, number)
            # By the other one, once it has the shard.
            await self._client.call(calls.TerminateWorkflow(workflow_id=name, request_id=f"end-{name}"))
            truth = {name: await self._events(name), quiet: await self._events(quiet)}
            await self._look(truth)
            if signalled or any(b"SignalReceived" in event for event in truth[name][1]):
                # The shard was the other one's already: the victim's lease had lapsed by itself.
                self.moved.add(name)
                await self._client.call(calls.TerminateWorkflow(workflow_id=quiet, request_id=f"end-{quiet}"))
                return False
            assert self._fenced(shard) == fenced, "it has not arrived yet"
        finally:
            self._let_go(how)
        with trio.move_on_after(ARRIVES_SECONDS):
            while how != DROPPED and self._fenced(shard) == fenced:  # noqa: ASYNC110
                await trio.sleep(PAUSE_SECONDS)
        while not self._stepped_down(shard, said):  # noqa: ASYNC110
            await trio.sleep(PAUSE_SECONDS)
        await self._look(truth)
        for each, (closed, events) in truth.items():
            assert closed is (each == name)
            assert await self._events(each) == (closed, events), f"{how}: nobody but its owner has written"
        await self._client.call(calls.TerminateWorkflow(workflow_id=quiet, request_id=f"end-{quiet}"))
        return how == DROPPED or self._fenced(shard) > fenced

    async def _signal(self, name: str, number: int) -> bool:
        """Whether it is acknowledged. The victim decides, and cannot say so: its commit is on its way to the store."""
        try:
            await self._once.ask(calls.SignalWorkflow(workflow_id=name, name="late", request_id=f"late-{number}"))
        except Refused as late:
            assert late.status is ErrorStatus.UNAVAILABLE  # noqa: PT017
            return False
        return True

    async def _runs_of_the_victims(self, number: int) -> tuple[int, str, str]:
        """Two executions that wait, in a shard that the victim has: one to be signalled, and one that is left alone, of
        which the victim might say from memory how it is."""
        names = (f"long-{number}-{each}" for each in itertools.count())
        while True:
            if not (owned := await self._owned()):
                await trio.sleep(PAUSE_SECONDS)
                continue
            shard = min(owned)
            chosen = list(itertools.islice((each for each in names if shard_of(TENANT, each, SHARDS) == shard), 2))
            for each in chosen:
                await self._client.start(WAITS, workflow_id=each)
            await trio.sleep(2 * LEASE_SECONDS)  # what was said of it is not older than that
            if shard in await self._owned():
                return shard, chosen[0], chosen[1]
            for each in chosen:
                await self._client.call(calls.TerminateWorkflow(workflow_id=each, request_id=f"moved-{each}"))

    async def _owned(self) -> set[int]:
        described = await self._client.call(calls.DescribeDaemon())
        victims = [each for each in described.processes if each.pid == self._victim.pid and each.silent_since is None]
        return {shard.shard for each in victims for shard in each.shards}

    def _hold(self, how: str) -> None:
        if how == STOPPED:
            self._stopped = store_driver(self._victim.pid)
            os.kill(self._stopped, signal.SIGSTOP)
        else:
            self._relay.hold()

    def _let_go(self, how: str) -> None:
        if how == STOPPED:
            os.kill(self._stopped, signal.SIGCONT)
        elif how == HELD:
            self._relay.go_on()
        else:
            self._relay.drop()

    def _fenced(self, shard: int) -> int:
        """How many commits PostgreSQL has refused because this shard is another's."""
        return sum(str(shard) in shards.split(",") for shards in FENCED.findall(self._server.log()))

    def _stepped_down(self, shard: int, since: int) -> bool:
        lines = self._log.read_bytes()[since:].decode().splitlines()
        return any(
            any(words in line for words in STEPPED_DOWN) and re.search(rf'"shards": ?\[[^]]*\b{shard}\b', line)
            for line in lines
        )

    async def _look(self, truth: dict[str, tuple[bool, list[bytes]]]) -> None:
        """Whoever is asked: what he says is so, or he says that he cannot know."""
        async with trio.open_nursery() as nursery:
            for _ in range(LOOKS):
                for name, (closed, events) in truth.items():
                    nursery.start_soon(self._ask, calls.DescribeWorkflow(workflow_id=name), closed, events)
                    nursery.start_soon(self._ask, calls.GetHistory(workflow_id=name, limit=1000), closed, events)

    async def _ask(self, call: calls.DescribeWorkflow | calls.GetHistory, closed: bool, events: list[bytes]) -> None:
        try:
            answer = await self._once.ask(call)
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise
            self.lapsed += "may have gone to another History" in refused.message
        else:
            if isinstance(answer, calls.DescribeWorkflowResult):
                assert answer.status is (ExecutionStatus.TERMINATED if closed else ExecutionStatus.RUNNING)
                assert answer.history_length == len(events)
            else:
                assert (answer.closed, [bytes(each) for each in answer.events]) == (closed, events)

    async def _events(self, name: str) -> tuple[bool, list[bytes]]:
        """Whether it has closed, and its events."""
        answer = await self._client.call(calls.GetHistory(workflow_id=name, limit=1000))
        return answer.closed, [bytes(each) for each in answer.events]


def store_driver(pid: int) -> int:
    """The process that does what this one asks of the store."""
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"daemon.stores" in (each / "cmdline").read_bytes():
                return int(each.name)
    raise AssertionError(f"process {pid} has no driver for the store")


async def test_it_fails_on_the_epoch_and_nothing_stale_is_said(request, tmp_path, durable_postgres, own_redis):
    ways = MANY if request.config.getoption("--chaos-minutes") else FEW
    database = durable_postgres.url(durable_postgres.new_database())
    relay = relay_to("127.0.0.1", database)
    with trio.fail_after(WHOLE_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            server = urlsplit(database)
            far = server._replace(netloc=server.netloc.replace(str(server.port), str(relay.port))).geturl()
            async with (
                open_cluster(
                    tmp_path,
                    database,
                    own_redis.url,
                    PLAN,
                    shards=SHARDS,
                    lease_seconds=LEASE_SECONDS,
                    call_timeout_seconds=CALL_SECONDS,
                    elsewhere={"history-2": Host(postgres=far, redis=own_redis.url, data=tmp_path / "elsewhere")},
                ) as cluster,
                open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client,
            ):
                once = Once(cluster.local.url, cluster.local.token)
                await nursery.start(once.run)
                rounds = Rounds(cluster, client, once, relay, durable_postgres)
                numbers = itertools.count()
                for how in ways:
                    while not await rounds.run(next(numbers), how):
                        assert next(numbers) < 3 * len(ways), "most have no commit in flight"
                assert [member.name for member in cluster.members if member.deaths] == []
                await cluster.stop()
            nursery.cancel_scope.cancel()
    assert rounds.lapsed, "the one that could not renew its lease was asked, too"
    for name, events in (await histories(database, tmp_path, SHARDS)).items():
        assert [type(event).__name__ for event in events].count("SignalReceived") == (name in rounds.moved)
