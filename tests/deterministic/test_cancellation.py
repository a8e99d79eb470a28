"""Who cancels × what runs: it ends as TaskCanceled, whoever runs it is told, and no Retry or Catch takes it for a
failure."""

from __future__ import annotations

import itertools

import flaky_node
import pytest
import trio

from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import decode
from enginekit.messages.status import ExecutionStatus, Refused, ReportRefusal

POLL = calls.PollTask(queue="desk", worker_id="clerk", wait_seconds=60)

CATCH_ALL = {
    "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1}],
    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
}
RUNNING = {
    "a node": {"Resource": "test:flaky", "Parameters": {"seconds": 500}},
    "an activity": {"Resource": "activity:desk"},
    "an activity with heartbeats": {"Resource": "activity:desk", "HeartbeatSeconds": 20},
    "a queued activity": {"Resource": "activity:nobody"},
    "a token": {"Resource": "activity:desk.waitForTaskToken"},
    "a signal": {"Resource": "signal:go"},
    "a Lambda function": {"Resource": "arn:aws:lambda:eu-west-1:123456789012:function:desk"},
}
FAILS = {"Type": "Task", "Resource": "test:flaky", "Parameters": {"seconds": 5, "failures": 9}, "End": True}


def working(what):
    return {
        "StartAt": "Work",
        "States": {
            "Work": {"Type": "Task", "TimeoutSeconds": 900, **RUNNING[what], **CATCH_ALL, "End": True},
            "Caught": {"Type": "Pass", "Result": "caught", "End": True},
        },
    }


def beside(what):
    """In a Parallel, beside a branch that fails after five seconds."""
    branches = [working(what), {"StartAt": "Fails", "States": {"Fails": FAILS}}]
    outer = {"Type": "Parallel", "Branches": branches, "Next": "Done"}
    return _outer(outer)


def among(what):
    """In a Map, beside an item that fails after five seconds."""
    item = working(what)
    item["States"]["Which"] = {
        "Type": "Choice",
        "Choices": [{"Variable": "$", "NumericEquals": 0, "Next": "Work"}],
        "Default": "Fails",
    }
    item["States"]["Fails"] = FAILS
    item["StartAt"] = "Which"
    return _outer({"Type": "Map", "ItemProcessor": item, "Next": "Done"})


def _outer(state):
    state["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": "Failed"}]
    states = {"Outer": state, "Done": {"Type": "Pass", "End": True}, "Failed": {"Type": "Pass", "End": True}}
    return {"StartAt": "Outer", "States": states}


async def cancel(daemon, started):
    await trio.sleep(5)
    await daemon.call(calls.CancelWorkflow(workflow_id=started.workflow_id, reason="enough"), calls.Acknowledged)


async def terminate(daemon, started):
    await trio.sleep(5)
    await daemon.call(calls.TerminateWorkflow(workflow_id=started.workflow_id), calls.Acknowledged)


async def nothing(daemon, started):
    """It comes by itself."""


WHO = {
    "CancelWorkflow": (working, cancel, ExecutionStatus.CANCELED, "the execution was canceled"),
    "TerminateWorkflow": (working, terminate, ExecutionStatus.TERMINATED, "the execution was terminated"),
    "the execution's timeout": (
        lambda what: {**working(what), "TimeoutSeconds": 5},
        nothing,
        ExecutionStatus.TIMED_OUT,
        "the execution timed out",
    ),
    "a branch of the Parallel failed": (beside, nothing, ExecutionStatus.SUCCEEDED, "its node failed"),
    "an item of the Map failed": (among, nothing, ExecutionStatus.SUCCEEDED, "its node failed"),
}


@pytest.mark.parametrize(("who", "what"), list(itertools.product(WHO, RUNNING)))
def test_what_runs_is_cancelled_and_nobody_catches_that(simulate, who, what):
    definition, act, status, reason = WHO[who]
    flaky_node.CANCELED.clear()

    async def scenario(daemon):
        tokens = []

        async def worker():
            while True:
                for task in (await daemon.call(POLL, calls.PollTaskResult)).tasks:
                    tokens.append(task.token)
                    if what == "a token":
                        await daemon.call(calls.CompleteTask(token=task.token), calls.Acknowledged)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker)
            started = await daemon.start(definition(what), [0, 1])
            await act(daemon, started)
            closed = await daemon.closed(started)
            await trio.sleep(1)
            ran_on = list(flaky_node.CANCELED) != [started.run_id]
            told = refused = None
            for token in tokens:
                beat = calls.HeartbeatTask(token=token)
                told = (await daemon.call(beat, calls.HeartbeatTaskResult)).cancel_requested
                with pytest.raises(Refused) as late:
                    await daemon.call(calls.CompleteTask(token=token), calls.Acknowledged)
                refused = late.value.data["reason"]
            events = await daemon.events(started)
            nursery.cancel_scope.cancel()
        return closed, events, ran_on, told, refused

    closed, events, ran_on, told, refused = simulate(scenario)
    assert closed.status is status
    if status is ExecutionStatus.SUCCEEDED:
        assert decode(closed.output)["Error"] == "Flaky", "the sibling's failure is caught, not the cancellation"
    scheduled = [event for event in events if isinstance(event, ev.TaskScheduled) and event.node == "Work"]
    ended = [event for event in events if getattr(event, "task", 0) == scheduled[0].id]
    assert len(scheduled) == 1
    assert isinstance(ended[-1], ev.TaskCanceled)
    assert ended[-1].reason == reason
    assert "Caught" not in [getattr(event, "node", "") for event in events], "its own Catch has taken it"
    assert not any(isinstance(event, ev.TaskRetryScheduled) for event in events), "its own Retry has taken it"
    if what == "a node":
        assert not ran_on
    elif what not in ("a queued activity", "a signal"):
        assert (told, refused) == (True, ReportRefusal.CLOSED.value)


def test_a_retry_that_is_waited_for_does_not_come(simulate):
    definition = {
        "StartAt": "Work",
        "States": {
            "Work": {**FAILS, "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 60}]},
        },
    }

    async def scenario(daemon):
        started = await daemon.start(definition)
        await trio.sleep(10)
        await daemon.call(calls.CancelWorkflow(workflow_id=started.workflow_id), calls.Acknowledged)
        await trio.sleep(1000)
        return await daemon.events(started)

    kinds = [type(event) for event in simulate(scenario)]
    assert kinds[-3:] == [ev.TaskRetryScheduled, ev.WorkflowCancelRequested, ev.WorkflowCanceled]


def test_an_outcome_that_comes_with_the_cancellation_counts_for_nothing(simulate):
    """Whichever is decided first stands; the other one is told."""

    async def scenario(daemon):
        started = await daemon.start(working("an activity"))
        (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        outcomes = []

        async def attempt(call):
            try:
                await daemon.call(call, calls.Acknowledged)
                outcomes.append("taken")
            except Refused as refused:
                outcomes.append(refused.data["reason"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, calls.CancelWorkflow(workflow_id=started.workflow_id))
            nursery.start_soon(attempt, calls.CompleteTask(token=task.token))
        return sorted(outcomes), await daemon.events(started)

    for seed in range(1, 6):
        outcomes, events = simulate(scenario, seed=seed)
        ends = [event for event in events if isinstance(event, ev.TaskCompleted | ev.TaskCanceled)]
        assert len(ends) == 1
        assert outcomes[-1] == "taken"
        assert outcomes[0] == "CLOSED"


@pytest.mark.parametrize("what", ["a node", "an activity", "a token"])
def test_items_of_a_distributed_map_are_canceled_when_one_fails(simulate, what):
    """Each is an execution of its own."""
    definition = among(what)
    definition["States"]["Outer"]["ItemProcessor"]["ProcessorConfig"] = {"Mode": "DISTRIBUTED"}
    flaky_node.CANCELED.clear()

    async def scenario(daemon):
        tokens = []

        async def worker():
            while True:
                for task in (await daemon.call(POLL, calls.PollTaskResult)).tasks:
                    tokens.append(task.token)
                    if what == "a token":
                        await daemon.call(calls.CompleteTask(token=task.token), calls.Acknowledged)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker)
            started = await daemon.start(definition, [0, 1])
            closed = await daemon.closed(started)
            await trio.sleep(1)
            listed = await daemon.call(calls.ListWorkflows(parent=started.run_id), calls.ListWorkflowsResult)
            histories = {}
            for child in listed.executions:
                ref = calls.StartWorkflowResult(workflow_id=child.workflow_id, run_id=child.run_id)
                histories[child.status] = await daemon.events(ref)
            told = [
                (await daemon.call(calls.HeartbeatTask(token=token), calls.HeartbeatTaskResult)).cancel_requested
                for token in tokens
            ]
            nursery.cancel_scope.cancel()
        return closed, histories, told

    closed, histories, told = simulate(scenario)
    assert decode(closed.output)["Error"] == "States.ExceedToleratedFailureThreshold"
    assert set(histories) == {ExecutionStatus.FAILED, ExecutionStatus.CANCELED}
    canceled = histories[ExecutionStatus.CANCELED]
    assert [type(event) for event in canceled[-3:]] == [
        ev.WorkflowCancelRequested,
        ev.TaskCanceled,
        ev.WorkflowCanceled,
    ]
    if what == "a node":
        assert len(flaky_node.CANCELED) == 1
    else:
        assert told == [True]
