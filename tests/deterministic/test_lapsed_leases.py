"""Histories whose leases have lapsed, or that are about to give something up: what they say, and what they take up."""

from __future__ import annotations

import pytest
import trio
from cluster import SHARDS, simulate_cluster, until
from simulation import OWNER

from daemon.links.interface import Caller
from daemon.links.sharding import shard_of
from enginekit.messages import calls
from enginekit.messages.calls import Call, Result
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, Refused

LONG = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
BY_HAND = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:by-hand", "End": True}}}
ME = Caller(OWNER.tenant, OWNER.subject)


def test_a_lease_counts_from_when_it_was_asked_for():
    """An answer that was long on its way says what was so when it left."""

    async def scenario(cluster):
        (one,) = await cluster.everything(histories=1)
        lease = cluster.settings.history.lease_seconds
        one.wire.late["attend"] = lease * 0.6
        # The next question is asked when the last one's answer is there: in the store the lease lapses between them.
        await until(lambda: one.service.lacks() is not None)
        assert "lease has lapsed" in one.service.lacks()
        one.wire.late.clear()
        await until(lambda: one.service.lacks() is None)

    simulate_cluster(scenario)


def test_what_a_run_may_not_do_is_not_said_without_a_lease():
    """It runs, and so it cannot be redriven: that is read off memory, like what it is."""

    async def scenario(cluster):
        (one,) = await cluster.everything(histories=1)
        started = await cluster.start(LONG, "mine")
        inbox = cluster.exchange.history(shard_of(OWNER.tenant, "mine", SHARDS))
        redrive = calls.RedriveWorkflow(workflow_id="mine", run_id=started.run_id)

        async def status() -> ErrorStatus:
            with pytest.raises(Refused) as refused:
                await inbox.request(ME, redrive, calls.RedriveResult, 1.0)
            return refused.value.status

        assert await status() is ErrorStatus.FAILED_PRECONDITION
        one.wire.cut("latest_run")
        await trio.sleep(cluster.settings.history.lease_seconds + 0.5)
        assert await status() is ErrorStatus.UNAVAILABLE

    simulate_cluster(scenario)


def test_a_heartbeat_is_not_taken_without_a_lease():
    """The one who has the shard now would not hear of it; and whether the task is still wanted is not known here."""

    async def scenario(cluster):
        (one,) = await cluster.everything(histories=1)
        await cluster.start(BY_HAND, "mine")
        poll = calls.PollTask(queue="by-hand", worker_id="w", wait_seconds=5)
        worker = Caller(OWNER.tenant, "worker")
        (task,) = (await cluster.call(poll, calls.PollTaskResult)).tasks
        inbox = cluster.exchange.history(shard_of(OWNER.tenant, "mine", SHARDS))

        async def beat(call: Call, result: type[Result]) -> Result:
            return await inbox.request(worker, call, result, 1.0)

        heartbeat = calls.HeartbeatTask(token=task.token, details=encode(1))
        assert not (await beat(heartbeat, calls.HeartbeatTaskResult)).cancel_requested
        one.wire.cut()
        await trio.sleep(cluster.settings.history.lease_seconds + 0.5)
        with pytest.raises(Refused, match="may have gone to another History"):
            await beat(heartbeat, calls.HeartbeatTaskResult)

    simulate_cluster(scenario)


def test_shards_whose_claim_was_not_answered_are_claimed_anew():
    """They are its own in the store, and nobody serves them."""

    async def scenario(cluster):
        one, two = await cluster.everything()
        everything = one.shards | two.shards
        two.wire.lost.append("claim_shards")
        await one.kill()
        await until(lambda: two.shards == everything)
        assert two.wire.lost == []
        started = [await cluster.start({**LONG, "Comment": name}, name) for name in map(str, range(3 * SHARDS))]
        for each in started:
            assert await cluster.events(each.run_id)

    simulate_cluster(scenario)


def test_what_was_asked_before_a_shard_moves_is_answered():
    """It is given up when what was decided is on disk."""

    async def scenario(cluster):
        (one,) = await cluster.everything(histories=1)
        one.wire.late["commit"] = 0.9
        two = await cluster.history()
        await trio.sleep(0.5)
        assert one.shards == set(range(SHARDS)), "it hears of the other one in half a second"

        async def ask(shard: int) -> None:
            name = next(name for n in range(1000) if shard_of(OWNER.tenant, name := f"run-{n}", SHARDS) == shard)
            start = calls.StartWorkflow(definition=encode(LONG), workflow_id=name)
            await cluster.exchange.history(shard).request(ME, start, calls.StartWorkflowResult, 10)

        async with trio.open_nursery() as asking:
            for shard in range(SHARDS):
                asking.start_soon(ask, shard)
        assert not two.shards
        await until(lambda: len(one.shards) + len(two.shards) == SHARDS > len(one.shards))

    simulate_cluster(scenario)
