"""The whole daemon under the mock clock: days pass in milliseconds, and the same seed gives the same run."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
import trio
from simulation import SERVICES

from daemon.supervisor import ServiceFailed
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import decode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

PATIENT = {
    "StartAt": "Work",
    "States": {
        "Work": {
            "Type": "Task",
            "Resource": "test:flaky",
            "Parameters": {"failures": 2, "seconds": 1.5},
            "ResultPath": "$.work",
            "Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 60, "BackoffRate": 2, "JitterStrategy": "FULL"}],
            "Next": "Sleep",
        },
        "Sleep": {"Type": "Wait", "Seconds": 259200, "Next": "Both"},
        "Both": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "L", "States": {"L": {"Type": "Task", "Resource": "echo", "End": True}}},
                {"StartAt": "R", "States": {"R": {"Type": "Task", "Resource": "echo", "End": True}}},
            ],
            "End": True,
        },
    },
}


async def three_days(daemon):
    """Ten executions at once: everything they leave behind."""
    started = [await daemon.start(PATIENT, {"n": n}) for n in range(10)]
    closed = [await daemon.closed(one) for one in started]
    histories = [await daemon.events(one) for one in started]
    return closed, [msgspec.json.encode(event) for history in histories for event in history], histories


def test_three_days_and_a_retried_task(simulate):
    closed, _, histories = simulate(three_days)
    for view, history in zip(closed, histories, strict=True):
        assert view.status is ExecutionStatus.SUCCEEDED
        assert view.closed_at - view.started_at > timedelta(days=3)
        assert view.closed_at - view.started_at < timedelta(days=3, minutes=4)
        assert sum(isinstance(event, ev.TaskRetryScheduled) for event in history) == 2
        assert [event.id for event in history] == list(range(1, len(history) + 1))
        fired = next(event for event in history if isinstance(event, ev.TimerFired))
        assert fired.late_seconds == 0


def test_the_same_seed_gives_the_same_events_in_the_same_order(simulate):
    first, second, other = (simulate(three_days, seed)[1] for seed in (5, 5, 6))
    assert first == second
    assert first != other


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_raises_in_the_middle_is_restarted_and_the_work_completes(simulate, name):
    async def scenario(daemon):
        started = [await daemon.start(PATIENT, {"n": n}) for n in range(5)]
        await trio.sleep(0.7)
        daemon.sabotage[name].set()
        await trio.sleep(0.7)
        daemon.sabotage[name].set()
        views = [await daemon.closed(one) for one in started]
        outcomes = [
            [event.task for event in await daemon.events(one) if isinstance(event, ev.TaskCompleted)] for one in started
        ]
        restarts = {view.name: view.restarts for view in daemon.supervisor.views()}
        return views, outcomes, restarts

    views, outcomes, restarts = simulate(scenario)
    assert [view.status for view in views] == [ExecutionStatus.SUCCEEDED] * 5
    assert all(len(tasks) == len(set(tasks)) == 3 for tasks in outcomes)
    assert restarts == {other.value: 2 if other is name else 0 for other in SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_always_raises_takes_the_daemon_down_by_name(simulate, name):
    async def scenario(daemon):
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as group:
        simulate(scenario, always_raises=name)
    failed = group.value
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    assert isinstance(failed, ServiceFailed)
    assert failed.name is name
    assert name.value in str(failed)
    assert "sabotage" in str(failed)


@pytest.mark.parametrize("after_write", [False, True])
def test_a_commit_of_unknown_outcome_is_answered_unavailable_and_read_again(simulate, after_write):
    async def scenario(daemon):
        kept = await daemon.start(PATIENT)
        daemon.memory.fail_next_commit(after_write=after_write)
        call = calls.StartWorkflow(
            definition=msgspec.Raw(msgspec.json.encode(PATIENT)), workflow_id="w", request_id="once"
        )
        with pytest.raises(Refused) as refused:
            await daemon.call(call, calls.StartWorkflowResult)
        assert refused.value.status is ErrorStatus.UNAVAILABLE
        again = await daemon.call(call, calls.StartWorkflowResult)
        third = await daemon.call(call, calls.StartWorkflowResult)
        assert again == third
        listed = await daemon.call(calls.ListWorkflows(), calls.ListWorkflowsResult)
        assert len(listed.executions) == 2
        return [(await daemon.closed(one)).status for one in (kept, again)]

    assert simulate(scenario) == [ExecutionStatus.SUCCEEDED] * 2


def test_a_run_that_loops_or_fans_out_widely_leaves_the_others_alone(simulate):
    loop = {
        "StartAt": "A",
        "States": {"A": {"Type": "Pass", "Next": "A"}},
    }
    wide = {
        "StartAt": "M",
        "States": {
            "M": {
                "Type": "Map",
                "ItemProcessor": {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}},
                "End": True,
            }
        },
    }
    echo = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}

    async def scenario(daemon):
        looping = await daemon.start(loop)
        fanned = await daemon.start(wide, list(range(10_000)))
        turns = []
        for number in range(20):
            before = (
                await daemon.call(calls.DescribeWorkflow(workflow_id=looping.workflow_id), calls.DescribeWorkflowResult)
            ).history_length
            assert decode((await daemon.closed(await daemon.start(echo, number))).output) == number
            after = (
                await daemon.call(calls.DescribeWorkflow(workflow_id=looping.workflow_id), calls.DescribeWorkflowResult)
            ).history_length
            turns.append(after - before)
        await daemon.call(calls.TerminateWorkflow(workflow_id=looping.workflow_id), calls.Acknowledged)
        return turns, decode((await daemon.closed(fanned)).output)

    turns, output = simulate(scenario)
    # An echo's whole life takes a few commits; the loop gets one bounded step (100 events) in each, no more.
    assert max(turns) <= 20 * 102
    assert min(turns) > 0
    assert output == list(range(10_000))
