"""Child executions and signals on the whole daemon: one child a task whatever is lost, none forgotten."""

from __future__ import annotations

import pytest
import trio

from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
SLOW = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": True}}}
NEVER = {"Variable": "$.v", "IsPresent": True, "Next": "E"}
NOTHING_KEPT = Settings(history=HistorySettings(cache_bytes=0))


def parent(resource="workflow:child", **more):
    return {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": resource, "End": True, **more}}}


async def register(daemon, definition, name="child"):
    call = calls.RegisterWorkflow(name=name, definition=encode(definition))
    await daemon.call(call, calls.RegisterWorkflowResult)


async def children(daemon, started, **more):
    call = calls.ListWorkflows(parent=started.run_id, page_size=1000, **more)
    return (await daemon.call(call, calls.ListWorkflowsResult)).executions


async def describe(daemon, started):
    return await daemon.call(
        calls.DescribeWorkflow(workflow_id=started.workflow_id, run_id=started.run_id), calls.DescribeWorkflowResult
    )


async def send(daemon, started, value, **more):
    call = calls.SignalWorkflow(workflow_id=started.workflow_id, name="go", input=encode(value), **more)
    await daemon.call(call, calls.Acknowledged)


def test_a_child_runs_and_its_output_comes_back(simulate):
    async def scenario(daemon):
        await register(daemon, ECHO)
        started = await daemon.start(parent(), {"n": 1})
        closed = await daemon.closed(started)
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, {"n": 1})
        (child,) = await children(daemon, started)
        assert (child.workflow, child.version, child.status) == ("child", 1, ExecutionStatus.SUCCEEDED)
        on_top = await daemon.call(calls.ListWorkflows(), calls.ListWorkflowsResult)
        assert [each.run_id for each in on_top.executions] == [started.run_id]
        await trio.sleep(1)
        assert await daemon.memory.effects(10) == []

    simulate(scenario)


@pytest.mark.parametrize("settings", [Settings(), NOTHING_KEPT])
def test_a_childs_failure_is_caught_by_its_name_in_the_specification(simulate, settings):
    undecided = {"StartAt": "C", "States": {"C": {"Type": "Choice", "Choices": [NEVER]}, "E": {"Type": "Succeed"}}}
    caught = parent(Catch=[{"ErrorEquals": ["States.NoChoiceMatched"], "Next": "Z"}])
    caught["States"]["Z"] = {"Type": "Succeed", "OutputPath": "$.Error"}

    async def scenario(daemon):
        await register(daemon, undecided)
        closed = await daemon.closed(await daemon.start(caught, {}))
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, "States.Runtime")

    simulate(scenario)


@pytest.mark.parametrize("settings", [Settings(), NOTHING_KEPT])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_lost_there_is_one_child_a_task(simulate, settings, seed):
    fan = {
        "Type": "Map",
        "ItemProcessor": parent(),
        "MaxConcurrency": 10,
        "End": True,
    }

    async def scenario(daemon):
        await register(daemon, ECHO)
        started = await daemon.start({"StartAt": "M", "States": {"M": fan}}, list(range(30)))
        for after_write in (True, False) * 5:
            await trio.sleep(0.1 + seed / 50)
            daemon.memory.fail_next_commit(after_write=after_write)
        closed = await daemon.closed(started)
        assert (closed.status, decode(closed.output)) == (ExecutionStatus.SUCCEEDED, list(range(30)))
        assert len(await children(daemon, started)) == 30
        await trio.sleep(5)
        assert await daemon.memory.effects(10) == []

    simulate(scenario, seed=seed, settings=settings)


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ("CANCEL", ExecutionStatus.CANCELED),
        ("TERMINATE", ExecutionStatus.TERMINATED),
        ("ABANDON", ExecutionStatus.SUCCEEDED),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_canceling_a_parent_ends_its_children_by_policy_even_across_a_loss(simulate, policy, status, lost):
    async def scenario(daemon):
        await register(daemon, SLOW)
        started = await daemon.start(parent(ParentClosePolicy=policy))
        await trio.sleep(5)
        (child,) = await children(daemon, started)
        assert child.status is ExecutionStatus.RUNNING
        (node,) = (await describe(daemon, started)).nodes
        assert (node.child_workflow_id, node.child_run_id) == (child.workflow_id, child.run_id)
        call = calls.CancelWorkflow(workflow_id=started.workflow_id, run_id=started.run_id)
        await daemon.call(call, calls.Acknowledged)
        if lost:
            daemon.memory.fail_next_commit(after_write=False)
        await trio.sleep(1000)
        (child,) = await children(daemon, started)
        assert child.status is status
        assert await daemon.memory.effects(10) == []

    simulate(scenario, settings=NOTHING_KEPT)


def test_canceling_goes_down_through_generations(simulate):
    async def scenario(daemon):
        await register(daemon, SLOW, "grandchild")
        await register(daemon, parent("workflow:grandchild"))
        started = await daemon.start(parent())
        await trio.sleep(5)
        (child,) = await children(daemon, started)
        (grandchild,) = await children(daemon, child)
        await daemon.call(calls.TerminateWorkflow(workflow_id=started.workflow_id), calls.Acknowledged)
        await trio.sleep(5)
        assert (await describe(daemon, child)).status is ExecutionStatus.CANCELED
        assert (await describe(daemon, grandchild)).status is ExecutionStatus.CANCELED

    simulate(scenario)


def test_a_workflow_that_starts_itself_ends_somewhere(simulate):
    async def scenario(daemon):
        await register(daemon, parent())
        started = await daemon.call(calls.StartWorkflow(workflow="child"), calls.StartWorkflowResult)
        closed = await daemon.closed(started)
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "Engine.ChildDepth")

    simulate(scenario)


def test_children_that_cannot_be_started(simulate):
    arn = "arn:aws:states:::states:startExecution.sync:2"

    async def scenario(daemon):
        closed = await daemon.closed(await daemon.start(parent()))
        assert (closed.error, closed.cause) == ("Engine.NoSuchWorkflow", 'no workflow "child" is registered')
        given = {"StateMachineArn": "child", "Name": "taken"}
        closed = await daemon.closed(await daemon.start(parent(arn, Parameters=given)))
        assert closed.error == "StepFunctions.StateMachineDoesNotExistException"
        await register(daemon, SLOW)
        await daemon.start(SLOW, workflow_id="taken")
        closed = await daemon.closed(await daemon.start(parent(arn, Parameters=given)))
        assert closed.error == "StepFunctions.ExecutionAlreadyExistsException"

    simulate(scenario)


def test_an_execution_that_is_only_started_is_nobodys_child(simulate):
    async def scenario(daemon):
        await register(daemon, SLOW)
        given = {"StateMachineArn": "child", "Name": "mine", "Input": {"a": 1}}
        started = await daemon.start(parent("arn:aws:states:::states:startExecution", Parameters=given))
        closed = await daemon.closed(started)
        assert closed.status is ExecutionStatus.SUCCEEDED
        seen = await daemon.call(calls.DescribeWorkflow(workflow_id="mine"), calls.DescribeWorkflowResult)
        assert (decode(closed.output)["ExecutionArn"], decode(seen.input)) == (seen.run_id, {"a": 1})
        assert seen.status is ExecutionStatus.RUNNING
        assert await children(daemon, started) == []

    simulate(scenario)


def test_signals_reach_children_and_survive_a_loss(simulate):
    waits = {
        "StartAt": "A",
        "States": {
            "A": {"Type": "Task", "Resource": "signal:go", "Next": "W"},
            "W": {"Type": "Wait", "Seconds": 60, "Next": "B"},
            "B": {"Type": "Task", "Resource": "signal:go", "End": True},
        },
    }

    async def scenario(daemon):
        await register(daemon, waits)
        started = await daemon.start(parent())
        await trio.sleep(5)
        (child,) = await children(daemon, started)
        await send(daemon, child, 1)
        await send(daemon, child, 2, request_id="two")
        daemon.memory.fail_next_commit(after_write=False)
        with pytest.raises(Refused) as refused:
            await send(daemon, child, 3)
        assert refused.value.status is ErrorStatus.UNAVAILABLE
        while True:
            try:
                await send(daemon, child, 2, request_id="two")
                break
            except Refused:
                await trio.sleep(0.1)
        closed = await daemon.closed(started)
        assert decode(closed.output) == 2
        with pytest.raises(Refused) as refused:
            await send(daemon, child, 4)
        assert refused.value.status is ErrorStatus.FAILED_PRECONDITION

    simulate(scenario, settings=NOTHING_KEPT)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 256])
def test_a_signals_name_is_checked(simulate, name):
    async def scenario(daemon):
        started = await daemon.start(SLOW)
        with pytest.raises(Refused) as refused:
            await daemon.call(calls.SignalWorkflow(workflow_id=started.workflow_id, name=name), calls.Acknowledged)
        assert refused.value.status is ErrorStatus.INVALID_ARGUMENT

    simulate(scenario)
