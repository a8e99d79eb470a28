"""A child whose time has come while its parent, in a shard of another History, is opened again: whichever commit is
first, the parent goes on with what the child answered, and nothing is run twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from cluster import SHARDS, Cluster, simulate_cluster, until
from simulation import OWNER

from daemon.links.sharding import shard_of
from daemon.settings import HistorySettings, Settings
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

HOUR = 3600
BRIEFLY = Settings(history=HistorySettings(retention_days=1 / 24))
ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}


def waits_beside(child: str) -> dict[str, object]:
    """A child, and beside it a while in which the execution can be ended."""
    start = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": "child", "Name": child, "Input": {"n": 1}},
        "ResultSelector": {"answer.$": "$.Output.n"},
        "End": True,
    }
    return {
        "StartAt": "P",
        "States": {
            "P": {
                "Type": "Parallel",
                "Branches": [
                    {"StartAt": "C", "States": {"C": start}},
                    {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": True}}},
                ],
                "End": True,
            }
        },
    }


@dataclass
class Gate:
    """Holds up the first commit that is asked to write what `held` names."""

    held: str
    child: str
    parent: str
    reached: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)

    async def pass_by(self, batch) -> None:
        purges = any(each.run.workflow_id == self.child for each in batch.purges)
        redrives = any(each.reopened and each.run.workflow_id == self.parent for each in batch.runs)
        if {"purge": purges, "redrive": redrives}[self.held] and not self.reached.is_set():
            self.reached.set()
            await self.opened.wait()


def in_shard(shards: set[int], prefix: str) -> str:
    return next(
        name for number in range(1000) if shard_of(OWNER.tenant, name := f"{prefix}-{number}", SHARDS) in shards
    )


async def family(cluster: Cluster, above: str, below: str) -> tuple[calls.StartWorkflowResult, str]:
    """A parent that was terminated when its child had answered; and the child's run_id."""
    await cluster.call(calls.RegisterWorkflow(name="child", definition=encode(ECHO)), calls.RegisterWorkflowResult)
    parent = await cluster.start(waits_beside(below), above)
    seen: list[ev.ChildWorkflowClosed] = []
    while not seen:
        await trio.sleep(1)
        seen = [event for event in await cluster.events(parent.run_id) if isinstance(event, ev.ChildWorkflowClosed)]
    await cluster.call(calls.TerminateWorkflow(workflow_id=above), calls.Acknowledged)
    assert (await cluster.closed(parent)).status is ExecutionStatus.TERMINATED
    assert await cluster.memory.effects(10) == []
    return parent, seen[0].run_id


async def goes_on_with_the_answer(cluster: Cluster, parent: calls.StartWorkflowResult) -> None:
    closed = await cluster.closed(parent)
    assert closed.status is ExecutionStatus.SUCCEEDED, (closed.error, closed.cause)
    assert decode(closed.output)[0] == {"answer": 1}
    started = [event for event in await cluster.events(parent.run_id) if isinstance(event, ev.ChildWorkflowStarted)]
    assert len(started) == 1, "the child was run again"


@pytest.mark.parametrize("first", ["redrive", "purge"])
def test_a_parent_is_redriven_in_the_moment_in_which_its_child_is_purged(monkeypatch, first):
    """The other commit of the two is under way already, and judged after the first."""
    gates: list[Gate] = []
    commit = MemoryStore.commit

    async def gated(self, batch):
        for gate in gates:
            await gate.pass_by(batch)
        await commit(self, batch)

    monkeypatch.setattr(MemoryStore, "commit", gated)

    async def scenario(cluster):
        begun = trio.current_time()
        one, two = await cluster.everything()
        above, below = in_shard(one.shards, "parent"), in_shard(two.shards, "child")
        parent, child = await family(cluster, above, below)
        redrive = calls.RedriveWorkflow(workflow_id=above, run_id=parent.run_id, request_id="again")
        gate = Gate("purge" if first == "redrive" else "redrive", below, above)
        rows = cluster.memory._rows.runs
        async with trio.open_nursery() as nursery:
            if first == "redrive":
                gates.append(gate)
                # An hour is the retention, and looks are an hour apart.
                with trio.fail_after(3 * HOUR):
                    await gate.reached.wait()
                await cluster.call(redrive, calls.RedriveResult)
                assert rows[parent.run_id].execution.status is ExecutionStatus.RUNNING
                gate.opened.set()
            else:
                # Just before the look that finds them.
                await trio.sleep_until(begun + 2 * HOUR - 5)
                gates.append(gate)
                nursery.start_soon(cluster.call, redrive, calls.RedriveResult)
                await gate.reached.wait()
                assert {parent.run_id, child} <= rows.keys()
                await until(lambda: child not in rows)
                assert rows[parent.run_id].execution.status is ExecutionStatus.TERMINATED
                gate.opened.set()
        await goes_on_with_the_answer(cluster, parent)
        describe = cluster.call(calls.DescribeWorkflow(workflow_id=below, run_id=child), calls.DescribeWorkflowResult)
        if first == "redrive":
            assert (await describe).status is ExecutionStatus.SUCCEEDED
        else:
            with pytest.raises(Refused) as gone:
                await describe
            assert gone.value.status is ErrorStatus.NOT_FOUND
        # And when their time has come again, both go.
        await trio.sleep(3 * HOUR)
        assert not rows

    simulate_cluster(scenario, settings=BRIEFLY)
