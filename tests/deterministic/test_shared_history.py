"""Histories that share a store: who has which shard, what becomes of it when one dies, is cut off or leaves, and that
nobody answers from what may not be so any more."""

from __future__ import annotations

import pytest
import trio
from cluster import SHARDS, simulate_cluster, until
from simulation import OWNER

from daemon.execution.evolve import replay
from daemon.links.interface import Caller
from daemon.links.sharding import shard_of
from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls, schedules
from enginekit.messages.events import Event
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.messages.subscriptions import WatchExecutions, WatchExecutionsResult

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
STEPS = {
    "StartAt": "A",
    "States": {
        "A": {"Type": "Task", "Resource": "echo", "Next": "B"},
        "B": {"Type": "Wait", "Seconds": 2, "Next": "C"},
        "C": {"Type": "Task", "Resource": "echo", "End": True},
    },
}
LONG = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
EVERY = set(range(SHARDS))
ME = Caller(OWNER.tenant, OWNER.subject)


def names(count: int) -> list[str]:
    return [f"order-{number}" for number in range(count)]


def in_shard(shards: set[int], prefix: str = "order") -> str:
    """A name that belongs to one of them."""
    return next(
        name for number in range(1000) if shard_of(OWNER.tenant, name := f"{prefix}-{number}", SHARDS) in shards
    )


async def whole(cluster, run_id: str) -> list[Event]:
    """A history is gapless, and its replay ends where the run's row says."""
    events = await cluster.events(run_id)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    row = await cluster.memory.execution(OWNER.tenant, run_id)
    assert row is not None
    assert replay([(event, 0) for event in events]).status is row.status
    return events


def test_two_share_the_shards_and_every_execution_ends():
    async def scenario(cluster):
        one, two = await cluster.everything()
        assert one.shards | two.shards == EVERY
        assert not one.shards & two.shards
        assert one.shards
        assert two.shards
        started = [await cluster.start(STEPS, name) for name in names(20)]
        for each in started:
            assert (await cluster.closed(each)).status is ExecutionStatus.SUCCEEDED
            await whole(cluster, each.run_id)
        unnamed = await cluster.call(calls.StartWorkflow(definition=encode(ECHO)), calls.StartWorkflowResult)
        assert unnamed.workflow_id == unnamed.run_id
        assert (await cluster.closed(unnamed)).status is ExecutionStatus.SUCCEEDED

    simulate_cluster(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_the_shards_of_one_that_died_go_on_elsewhere(seed):
    async def scenario(cluster):
        one, two = await cluster.everything()
        started = [await cluster.start(STEPS, name) for name in names(20)]
        await trio.sleep(1)
        await one.kill()
        died_at = trio.current_time()
        await until(lambda: two.shards == EVERY)
        lease = cluster.settings.history.lease_seconds
        assert trio.current_time() - died_at <= lease + 1.5
        for each in started:
            assert (await cluster.closed(each)).status is ExecutionStatus.SUCCEEDED
            await whole(cluster, each.run_id)

    simulate_cluster(scenario, seed)


def test_the_shards_of_one_that_leaves_go_on_at_once():
    async def scenario(cluster):
        one, two = await cluster.everything()
        started = [await cluster.start(STEPS, name) for name in names(20)]
        left_at = trio.current_time()
        await one.service.drain()
        await until(lambda: two.shards == EVERY)
        assert trio.current_time() - left_at < 2.5
        for each in started:
            assert (await cluster.closed(each)).status is ExecutionStatus.SUCCEEDED

    simulate_cluster(scenario)


def test_one_who_comes_gets_its_share_and_nothing_is_lost():
    async def scenario(cluster):
        (one,) = await cluster.everything(1)
        assert one.shards == EVERY
        started = [await cluster.start(STEPS, name) for name in names(20)]
        two = await cluster.history()
        await trio.sleep(5)
        assert two.shards
        assert one.shards | two.shards == EVERY
        assert not one.shards & two.shards
        for each in started:
            assert (await cluster.closed(each)).status is ExecutionStatus.SUCCEEDED
            await whole(cluster, each.run_id)

    simulate_cluster(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_one_that_was_cut_off_serves_no_stale_read_and_writes_nothing(seed):
    async def scenario(cluster):
        one, two = await cluster.everything()
        mine = in_shard(one.shards)
        started = await cluster.start(LONG, mine)
        describe = calls.DescribeWorkflow(workflow_id=mine)
        assert (await cluster.call(describe, calls.DescribeWorkflowResult)).status is ExecutionStatus.RUNNING
        (session,) = [each for each in one.service._sessions if shard_of(OWNER.tenant, mine, SHARDS) in each.epochs]
        live = session.runs.get(started.run_id)
        one.wire.cut()
        await trio.sleep(cluster.settings.history.lease_seconds + 0.5)
        # It does not know yet, and still reads its inbox; but it knows that it cannot know.
        assert session.runs.get(started.run_id) is live
        with pytest.raises(Refused) as refused:
            await cluster.links.history.request(ME, describe, calls.DescribeWorkflowResult, 1.0)
        assert refused.value.status is ErrorStatus.UNAVAILABLE
        assert "may have gone to another History" in refused.value.message
        await until(lambda: two.shards == EVERY)
        await cluster.call(calls.TerminateWorkflow(workflow_id=mine, reason="by the other"), calls.Acknowledged)
        assert (await cluster.closed(started)).status is ExecutionStatus.TERMINATED
        one.wire.mend()
        await trio.sleep(10)
        events = await whole(cluster, started.run_id)
        assert type(events[-1]).__name__ == "WorkflowTerminated"
        assert one.shards | two.shards == EVERY
        assert not one.shards & two.shards
        assert one.shards, "it has its share again"

    simulate_cluster(scenario, seed)


def test_one_that_cannot_renew_its_lease_says_nothing_of_events_that_it_can_read():
    """Whether there are more to come it would say from memory."""

    async def scenario(cluster):
        (one,) = await cluster.everything(histories=1)
        started = await cluster.start(LONG, "mine")
        history = calls.GetHistory(workflow_id="mine", run_id=started.run_id)
        inbox = cluster.exchange.history(shard_of(OWNER.tenant, "mine", SHARDS))
        begun = await inbox.request(ME, WatchExecutions(), WatchExecutionsResult, 0.5)
        news = WatchExecutions(watch=begun.watch, after=[seq - 1 for seq in begun.seq])
        questions = (
            (history, calls.GetHistoryResult),
            (WatchExecutions(), WatchExecutionsResult),
            (news, WatchExecutionsResult),
        )
        for call, result in questions:
            await inbox.request(ME, call, result, 0.5)
        one.wire.cut("events")
        await trio.sleep(cluster.settings.history.lease_seconds + 0.5)
        for call, result in questions:
            with pytest.raises(Refused, match="may have gone to another History"):
                await inbox.request(ME, call, result, 0.5)
        one.wire.mend()
        assert not (await cluster.call(history, calls.GetHistoryResult)).closed
        await cluster.call(calls.TerminateWorkflow(workflow_id="mine"), calls.Acknowledged)

    simulate_cluster(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_a_former_owners_commit_fails_and_it_steps_down(seed):
    async def scenario(cluster):
        one, two = await cluster.everything()
        started = [await cluster.start(STEPS, name) for name in names(10)]
        mine = await cluster.start(LONG, in_shard(one.shards, "long"))
        one.wire.cut()
        signal = calls.SignalWorkflow(workflow_id=mine.workflow_id, name="go", request_id="signal-1")
        with pytest.raises(Refused, match="History did not answer"):
            # Decided, and on its way to the store: not acknowledged.
            await cluster.links.history.request(ME, signal, calls.Acknowledged, 0.5)
        await until(lambda: two.shards == EVERY)
        one.wire.mend()
        await trio.sleep(1)
        assert one.wire.fenced
        await cluster.call(signal, calls.Acknowledged)
        for each in started:
            assert (await cluster.closed(each)).status is ExecutionStatus.SUCCEEDED
            await whole(cluster, each.run_id)
        events = await whole(cluster, mine.run_id)
        assert [type(event).__name__ for event in events].count("SignalReceived") == 1

    simulate_cluster(scenario, seed, Settings(history=HistorySettings(lease_seconds=1.0)))


def test_children_and_their_parents_may_be_in_different_shards():
    async def scenario(cluster):
        one, two = await cluster.everything()
        await cluster.call(calls.RegisterWorkflow(name="child", definition=encode(STEPS)), calls.RegisterWorkflowResult)
        above = in_shard(one.shards, "parent")
        below = in_shard(two.shards, "child")
        parent = {
            "StartAt": "P",
            "States": {
                "P": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::states:startExecution.sync:2",
                    "Parameters": {"StateMachineArn": "child", "Name": below, "Input": {"n": 1}},
                    "End": True,
                }
            },
        }
        started = await cluster.start(parent, above)
        closed = await cluster.closed(started)
        assert closed.status is ExecutionStatus.SUCCEEDED, (closed.error, closed.cause)
        assert decode(closed.output)["Output"] == {"n": 1}
        child = await cluster.call(calls.DescribeWorkflow(workflow_id=below), calls.DescribeWorkflowResult)
        assert child.status is ExecutionStatus.SUCCEEDED
        assert await cluster.memory.effects(10) == []

    simulate_cluster(scenario)


def test_cancelling_a_parent_cancels_its_child_in_another_shard():
    async def scenario(cluster):
        one, two = await cluster.everything()
        await cluster.call(calls.RegisterWorkflow(name="child", definition=encode(LONG)), calls.RegisterWorkflowResult)
        above, below = in_shard(one.shards, "parent"), in_shard(two.shards, "child")
        parent = {
            "StartAt": "P",
            "States": {
                "P": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::states:startExecution.sync:2",
                    "Parameters": {"StateMachineArn": "child", "Name": below},
                    "End": True,
                }
            },
        }
        started = await cluster.start(parent, above)
        await trio.sleep(2)
        await cluster.call(calls.CancelWorkflow(workflow_id=above), calls.Acknowledged)
        assert (await cluster.closed(started)).status is ExecutionStatus.CANCELED
        await trio.sleep(2)
        child = await cluster.call(calls.DescribeWorkflow(workflow_id=below), calls.DescribeWorkflowResult)
        assert child.status is ExecutionStatus.CANCELED

    simulate_cluster(scenario)


def test_a_schedule_starts_executions_in_all_shards_each_once():
    async def scenario(cluster):
        one, two = await cluster.everything()
        await cluster.call(calls.RegisterWorkflow(name="tick", definition=encode(ECHO)), calls.RegisterWorkflowResult)
        await cluster.call(
            schedules.CreateSchedule(schedule_id="minutely", cron="* * * * *", workflow="tick"),
            schedules.CreateScheduleResult,
        )
        await trio.sleep(20 * 60 + 30)
        runs = (await cluster.call(calls.ListWorkflows(page_size=100), calls.ListWorkflowsResult)).executions
        assert len({run.workflow_id for run in runs}) == len(runs) == 20
        assert all(run.status is ExecutionStatus.SUCCEEDED for run in runs)
        assert {shard_of(OWNER.tenant, run.workflow_id, SHARDS) for run in runs} >= one.shards & two.shards
        seen = await cluster.call(schedules.DescribeSchedule(schedule_id="minutely"), schedules.DescribeScheduleResult)
        assert (seen.started, seen.failed, seen.missed) == (20, 0, 0)

    simulate_cluster(scenario)


def test_the_same_seed_gives_the_same_events():
    async def scenario(cluster):
        one, _ = await cluster.everything()
        started = [await cluster.start(STEPS, name) for name in names(6)]
        await trio.sleep(1)
        await one.kill()
        for each in started:
            await cluster.closed(each)
        return [await cluster.memory.events(OWNER.tenant, each.run_id, 0, 1000, 1 << 30) for each in started]

    assert simulate_cluster(scenario, 7) == simulate_cluster(scenario, 7)


def test_changes_in_all_shards_are_told_as_one():
    async def scenario(cluster):
        one, _ = await cluster.everything()

        async def watch(name: str | None, after: list[int], wait: float) -> WatchExecutionsResult:
            call = WatchExecutions(watch=name, after=after, wait_seconds=wait)
            return await cluster.gateway.watch(OWNER, call)

        begun = await watch(None, [], 0.0)
        started = [await cluster.start(ECHO, name) for name in names(20)]
        for each in started:
            await cluster.closed(each)
        told, after = {}, begun.seq
        while len(told) < 20:
            seen = await watch(begun.watch, after, 10.0)
            assert seen.watch == begun.watch
            after = seen.seq
            told |= {each.workflow_id: each.status for each in seen.executions}
        assert set(told) == set(names(20))
        nothing = await watch(begun.watch, after, 5.0)
        assert (nothing.watch, nothing.executions, nothing.missed) == (begun.watch, [], 0)
        await one.service.drain()
        await trio.sleep(3)
        assert (await watch(begun.watch, after, 5.0)).watch != begun.watch, "everything is to be looked at again"

    simulate_cluster(scenario)
