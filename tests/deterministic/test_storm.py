"""Storms: services raise and commits fail at moments that a seed chooses, under workflows of every kind, with a worker
from outside among those who suffer. Whatever happens, every execution ends, every history is whole, every task has one
outcome. A failing seed is in the test's name: run it again and it fails again."""

from __future__ import annotations

import random

import pytest
import trio
from simulation import SERVICES

from daemon.execution import snapshot
from daemon.execution.evolve import replay
from daemon.settings import HistorySettings, Settings, SupervisorSettings, TaskSettings
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.events import decode_event
from enginekit.messages.json import encode
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

ITEM = {
    "StartAt": "Do",
    "States": {
        "Do": {
            "Type": "Task",
            "Resource": "activity:work",
            "TimeoutSeconds": 600,
            "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 9, "IntervalSeconds": 1, "BackoffRate": 1}],
            "End": True,
        }
    },
}
EVERYTHING = {
    "StartAt": "Flaky",
    "States": {
        "Flaky": {
            "Type": "Task",
            "Resource": "test:flaky",
            "Parameters": {"failures": 1, "seconds": 0.3},
            "ResultPath": "$.flaky",
            "Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 1}],
            "Next": "Each",
        },
        "Each": {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": ITEM, "ResultPath": "$.done", "Next": "Rest"},
        "Rest": {"Type": "Wait", "Seconds": 2, "Next": "Both"},
        "Both": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "L", "States": {"L": {"Type": "Task", "Resource": "echo", "End": True}}},
                {"StartAt": "R", "States": {"R": {"Type": "Pass", "Result": 1, "End": True}}},
            ],
            "ResultPath": "$.both",
            "Next": "Count",
        },
        "Count": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "Next": "Enough"},
        "Enough": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.n", "NumericLessThan": 150, "Next": "Count"}],
            "Default": "End",
        },
        "End": {"Type": "Succeed"},
    },
}
EXECUTIONS = 12
BLOWS = 25
CALM = Settings(
    supervisor=SupervisorSettings(restarts=1000, backoff_seconds=0.01, backoff_limit_seconds=0.2),
    tasks=TaskSettings(lease_seconds=5.0, returns=1000),
)
FORGETFUL = Settings(supervisor=CALM.supervisor, tasks=CALM.tasks, history=HistorySettings(cache_bytes=0))


async def insist(daemon, call, result):
    """As the client does: again while a service is being restarted."""
    while True:
        try:
            return await daemon.call(call, result)
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise
            await trio.sleep(0.05)


async def labour(daemon, name, chance):
    """A worker in another process: it fails, gives back, and sometimes vanishes with its task."""
    while True:
        poll = calls.PollTask(queue="work", worker_id=name, wait_seconds=5, max_tasks=3)
        polled = await insist(daemon, poll, calls.PollTaskResult)
        for task in polled.tasks:
            await trio.sleep(chance.random())
            fate = chance.random()
            report: calls.Call = calls.CompleteTask(token=task.token, output=encode({"by": name}))
            if fate < 0.1:
                report = calls.FailTask(token=task.token, error="Dropped", cause="chance")
            elif fate < 0.2:
                report = calls.ReturnTask(token=task.token, reason="chance")
            elif fate < 0.3:
                continue
            try:
                await insist(daemon, report, calls.Acknowledged)
            except Refused as refused:
                if refused.data.get("reason") not in ("ALREADY_RECORDED", "TIMED_OUT", "CLOSED"):
                    raise


async def strike(daemon, chance):
    services = SERVICES
    for _ in range(BLOWS):
        await trio.sleep(chance.uniform(0.02, 0.8))
        if chance.random() < 0.4:
            daemon.memory.fail_next_commit(after_write=chance.random() < 0.5)
        else:
            daemon.sabotage[chance.choice(services)].set()


def _ref(started: calls.StartWorkflowResult) -> RunRef:
    return RunRef("acme", started.workflow_id, started.run_id)


@pytest.mark.parametrize("seed", range(16))
def test_a_storm_loses_and_doubles_nothing(simulate, seed):
    chance = random.Random(seed)

    async def scenario(daemon):
        async with trio.open_nursery() as nursery:
            for name in ("one", "two"):
                nursery.start_soon(labour, daemon, name, chance)
            started = []
            async with trio.open_nursery() as storm:
                storm.start_soon(strike, daemon, chance)
                for number in range(EXECUTIONS):
                    await trio.sleep(chance.uniform(0, 0.5))
                    call = calls.StartWorkflow(
                        definition=encode(EVERYTHING),
                        input=encode({"items": list(range(number % 4)), "n": 0}),
                        request_id=f"start-{number}",
                    )
                    started.append(await insist(daemon, call, calls.StartWorkflowResult))
                    assert await insist(daemon, call, calls.StartWorkflowResult) == started[-1]
            views = [await daemon.closed(one) for one in started]
            listed = await insist(daemon, calls.ListWorkflows(), calls.ListWorkflowsResult)
            stored = [
                (
                    (await daemon.memory.load_runs([_ref(one)], snapshot.FINGERPRINT, 1))[0],
                    await daemon.memory.events("acme", one.run_id, 0, 100_000, 2**30),
                )
                for one in started
            ]
            await trio.sleep(60)
            left = (await daemon.memory.queue_backlogs(), await daemon.memory.effects(10))
            nursery.cancel_scope.cancel()
            restarts = sum(view.restarts for view in daemon.supervisor.views())
            assert restarts >= 3, "the storm has hit nothing"
        return views, listed, stored, left

    views, listed, stored, left = simulate(scenario, seed, CALM if seed % 2 else FORGETFUL)
    assert [view.status for view in views] == [ExecutionStatus.SUCCEEDED] * EXECUTIONS
    assert len(listed.executions) == EXECUTIONS
    assert left == ([], [])
    for loaded, data in stored:
        events = [(decode_event(one), len(one)) for one in data]
        assert [event.id for event, _ in events] == list(range(1, loaded.execution.last_event_id + 1))
        whole = replay(events)
        if loaded.snapshot is not None:
            assert snapshot.dump(replay(events[: loaded.snapshot.event_id])) == loaded.snapshot.data
        assert whole.status is ExecutionStatus.SUCCEEDED
        ends = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCanceled)
        scheduled = [event.id for event, _ in events if isinstance(event, ev.TaskScheduled)]
        assert sorted(event.task for event, _ in events if isinstance(event, ends)) == scheduled
