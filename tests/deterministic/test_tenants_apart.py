"""One tenant learns nothing of another's executions, and cannot be in their way, also while they are read back."""

from __future__ import annotations

import pytest
import trio
from slow_store import as_other, slow_loads

from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}}
FORGET = Settings(history=HistorySettings(cache_bytes=0))


async def not_theirs(daemon, call, result):
    with pytest.raises(Refused) as refused:
        await as_other(daemon, call, result)
    assert refused.value.status is ErrorStatus.NOT_FOUND


def test_a_run_that_is_being_read_back_stays_its_tenants(simulate):
    async def scenario(daemon):
        started = await daemon.start(WAIT, {"secret": 42})
        await trio.sleep(5)
        slow_loads(daemon.memory)
        about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.call, calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
            await trio.sleep(0.1)
            for name in (started.workflow_id, "another"):
                named = {"workflow_id": name, "run_id": started.run_id}
                nursery.start_soon(not_theirs, daemon, calls.DescribeWorkflow(**named), calls.DescribeWorkflowResult)
                nursery.start_soon(not_theirs, daemon, calls.TerminateWorkflow(**named), calls.Acknowledged)
        view = await daemon.call(calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
        assert view.status is ExecutionStatus.RUNNING

    simulate(scenario, settings=FORGET)


def test_a_run_that_another_tenant_asks_for_is_still_found_by_its_own(simulate):
    async def scenario(daemon):
        started = await daemon.start(WAIT)
        await trio.sleep(5)
        slow_loads(daemon.memory)
        about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(not_theirs, daemon, calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
            await trio.sleep(0.1)
            view = await daemon.call(calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
        assert view.status is ExecutionStatus.RUNNING

    simulate(scenario, settings=FORGET)


def test_what_was_set_aside_is_told_to_its_own_tenant_only(simulate, monkeypatch):
    from daemon.execution import nodes

    real = nodes.leave

    def leave(step, node, *more):
        if node.name == "Bad":
            raise RuntimeError("injected")
        real(step, node, *more)

    monkeypatch.setattr(nodes, "leave", leave)
    states = {"W": {"Type": "Wait", "Seconds": 1, "Next": "Bad"}, "Bad": {"Type": "Pass", "End": True}}

    async def scenario(daemon):
        started = await daemon.start({"StartAt": "W", "States": states})
        about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
        # Whoever waits for it is told at once, not at the end of the wait.
        with pytest.raises(Refused, match="set aside"), trio.fail_after(60):
            await daemon.call(calls.WaitWorkflow(**about, wait_seconds=900), calls.DescribeWorkflowResult)
        with pytest.raises(Refused, match="set aside"):
            await daemon.call(calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)
        await not_theirs(daemon, calls.DescribeWorkflow(**about), calls.DescribeWorkflowResult)

    simulate(scenario)


def test_a_request_id_is_each_tenants_own(simulate):
    async def scenario(daemon):
        call = calls.StartWorkflow(definition=encode(WAIT), request_id="r", workflow_id="w")
        mine = await daemon.call(call, calls.StartWorkflowResult)
        theirs = await as_other(daemon, call, calls.StartWorkflowResult)
        assert mine.run_id != theirs.run_id

    simulate(scenario)
