"""Workers that are lost: the same attempt goes to another, so many times, and then the task fails by that name."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
import trio

from daemon.settings import Settings, TaskSettings
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ExecutionStatus, Refused, ReportRefusal

SETTINGS = Settings(tasks=TaskSettings(lease_seconds=10.0, returns=2))
LAMBDA = "arn:aws:lambda:eu-west-1:123456789012:function:desk"


def poll(worker):
    return calls.PollTask(queue="desk", worker_id=worker, wait_seconds=100)


def definition(resource="activity:desk", **more):
    states = {"Work": {"Type": "Task", "Resource": resource, **more, "End": True}}
    if "Catch" in more:
        states["Caught"] = {"Type": "Pass", "End": True}
    return {"StartAt": "Work", "States": states}


async def dying_workers(daemon, tokens):
    """Each takes a task and is not heard of again."""
    number = 0
    while True:
        number += 1
        tokens += [task.token for task in (await daemon.call(poll(f"w{number}"), calls.PollTaskResult)).tasks]


HANDLED = {
    "nobody": (LAMBDA, {}, False, 1),
    "the default policy": ("activity:desk", {}, False, 4),
    "no retry": ("activity:desk", {"Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]}, False, 1),
    "Retry by its name": (
        LAMBDA,
        {"Retry": [{"ErrorEquals": ["Engine.WorkerLost"], "IntervalSeconds": 5, "MaxAttempts": 1}]},
        False,
        2,
    ),
    "Catch by its name": (LAMBDA, {"Catch": [{"ErrorEquals": ["Engine.WorkerLost"], "Next": "Caught"}]}, True, 1),
    "Catch of States.TaskFailed": (
        LAMBDA,
        {"Catch": [{"ErrorEquals": ["States.TaskFailed"], "Next": "Caught"}]},
        True,
        1,
    ),
    "Catch of States.ALL": (LAMBDA, {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}, True, 1),
    "Catch of States.Timeout": (LAMBDA, {"Catch": [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]}, False, 1),
}


@pytest.mark.parametrize("handler", HANDLED)
def test_a_bounded_number_of_workers_is_lost_by_one_attempt(simulate, handler):
    resource, handling, caught, attempts = HANDLED[handler]

    async def scenario(daemon):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dying_workers, daemon, [])
            started = await daemon.start(definition(resource, **handling))
            closed = await daemon.closed(started)
            nursery.cancel_scope.cancel()
        return closed, await daemon.events(started)

    closed, events = simulate(scenario, settings=SETTINGS)
    returned = [event for event in events if isinstance(event, ev.TaskReturned)]
    assert [event.times for event in returned] == [1, 2] * attempts
    assert {(event.reason.split('"')[0], event.reason.split('"')[2]) for event in returned} == {
        ("the lease of worker ", " lapsed (10 s without a heartbeat)")
    }
    scheduled = [event.attempt for event in events if isinstance(event, ev.TaskScheduled)]
    assert scheduled == list(range(1, attempts + 1)), "the same attempt is returned, not a new one"
    failed = [event for event in events if isinstance(event, ev.TaskFailed)]
    assert [event.error for event in failed] == ["Engine.WorkerLost"] * attempts
    assert failed[0].cause.startswith(
        'queue "desk": 3 workers took the task and none ended it (at most 2 returns are allowed: tasks.returns in '
        'engine.toml); the last time: the lease of worker "w3" lapsed'
    )
    if caught:
        assert decode(closed.output)["Error"] == "Engine.WorkerLost"
    else:
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "Engine.WorkerLost")


def test_the_default_policy_s_pauses_grow_up_to_their_ceiling_and_are_seen(simulate):
    settings = Settings(
        tasks=TaskSettings(
            lease_seconds=10.0,
            returns=0,
            retry_attempts=6,
            retry_interval_seconds=2.0,
            retry_backoff_rate=3.0,
            retry_max_delay_seconds=20.0,
        )
    )

    async def scenario(daemon):
        seen = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dying_workers, daemon, [])
            started = await daemon.start(definition())
            while True:
                await trio.sleep(0.25)
                view = await daemon.call(
                    calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult
                )
                if view.status.closed:
                    break
                seen += [node.next_retry_at for node in view.nodes if node.next_retry_at is not None]
            nursery.cancel_scope.cancel()
        return await daemon.events(started), set(seen)

    pauses = []
    for seed in range(1, 4):
        events, seen = simulate(scenario, seed=seed, settings=settings)
        retries = [event for event in events if isinstance(event, ev.TaskRetryScheduled)]
        assert [event.retrier for event in retries] == [-1] * 6
        assert {event.at for event in retries} == seen
        pauses.append([(event.at - event.time) / timedelta(seconds=1) for event in retries])
    for made in pauses:
        for pause, ceiling in zip(made, [2, 6, 18, 20, 20, 20], strict=True):
            assert ceiling / 2 <= pause <= ceiling + 0.001
    assert len({tuple(made) for made in pauses}) == 3, "there is jitter"


def test_who_comes_back_late_is_told_why(simulate):
    async def scenario(daemon):
        started = await daemon.start(definition())
        (first,) = (await daemon.call(poll("slow"), calls.PollTaskResult)).tasks
        await trio.sleep(11)
        told = {}

        async def late(when):
            for call, result in (
                (calls.CompleteTask(token=first.token, output=encode(1)), calls.Acknowledged),
                (calls.FailTask(token=first.token, error="E"), calls.Acknowledged),
                (calls.ReturnTask(token=first.token), calls.Acknowledged),
                (calls.HeartbeatTask(token=first.token), calls.HeartbeatTaskResult),
            ):
                try:
                    answer = await daemon.call(call, result)
                    told[when, type(call).__name__] = answer.cancel_requested
                except Refused as refused:
                    told[when, type(call).__name__] = refused.data["reason"]
            batch = calls.CompleteTasks(tasks=[calls.TaskCompletion(token=first.token, output=encode(1))])
            (each,) = (await daemon.call(batch, calls.CompleteTasksResult)).results
            assert (each.status, each.reason) == ("FAILED_PRECONDITION", told[when, "CompleteTask"])

        await late("queued again")
        (second,) = (await daemon.call(poll("quick"), calls.PollTaskResult)).tasks
        assert (second.attempt, second.idempotency_key) == (first.attempt, first.idempotency_key)
        assert second.token != first.token
        await late("another's")
        await daemon.call(calls.CompleteTask(token=second.token, output=encode(2)), calls.Acknowledged)
        await late("ended")
        return await daemon.closed(started), told, await daemon.events(started)

    closed, told, events = simulate(scenario, settings=SETTINGS)
    assert decode(closed.output) == 2
    timed_out, recorded = ReportRefusal.TIMED_OUT.value, ReportRefusal.ALREADY_RECORDED.value
    for name in ("CompleteTask", "FailTask", "ReturnTask"):
        assert told["queued again", name] == told["another's", name] == timed_out
        assert told["ended", name] == recorded
    assert told["queued again", "HeartbeatTask"] == told["another's", "HeartbeatTask"] == timed_out
    assert told["ended", "HeartbeatTask"] is True
    assert sum(isinstance(event, ev.TaskCompleted) for event in events) == 1


def test_workers_that_give_tasks_back_are_bounded_as_well(simulate):
    """A worker that gives everything back would else run a task for ever."""

    async def scenario(daemon):
        started = await daemon.start(definition(LAMBDA))
        for _ in range(3):
            (task,) = (await daemon.call(poll("w"), calls.PollTaskResult)).tasks
            await daemon.call(calls.ReturnTask(token=task.token, reason="not today"), calls.Acknowledged)
        return await daemon.closed(started)

    closed = simulate(scenario, settings=SETTINGS)
    assert closed.error == "Engine.WorkerLost"
    assert closed.cause.endswith("the last time: not today")


def test_after_a_loss_of_history_a_lease_begins_anew_and_is_not_lost(simulate):
    async def scenario(daemon):
        started = await daemon.start(definition())
        (task,) = (await daemon.call(poll("w"), calls.PollTaskResult)).tasks
        await trio.sleep(8)
        daemon.memory.fail_next_commit(after_write=False)
        with pytest.raises(Refused):
            await daemon.start(definition())
        await trio.sleep(8)
        await daemon.call(calls.CompleteTask(token=task.token, output=encode("kept")), calls.Acknowledged)
        return await daemon.closed(started)

    assert decode(simulate(scenario, settings=SETTINGS).output) == "kept"


def test_nobody_is_lost_who_is_heard_of(simulate):
    async def scenario(daemon):
        started = await daemon.start(definition(TimeoutSeconds=500))
        (task,) = (await daemon.call(poll("w"), calls.PollTaskResult)).tasks
        for _ in range(40):
            await trio.sleep(9.5)
            answer = await daemon.call(calls.HeartbeatTask(token=task.token, progress=False), calls.HeartbeatTaskResult)
            assert not answer.cancel_requested
        await daemon.call(calls.CompleteTask(token=task.token, output=msgspec.Raw(b"1")), calls.Acknowledged)
        return await daemon.events(started)

    assert not any(isinstance(event, ev.TaskReturned) for event in simulate(scenario, settings=SETTINGS))


def test_who_is_not_heard_of_is_given_nothing_more(simulate):
    """Its poll still waits in the daemon when its lease lapses, ahead of the others'."""

    async def scenario(daemon):
        started = await daemon.start(definition())
        await daemon.call(poll("frozen"), calls.PollTaskResult)
        took = {}

        async def wait(worker):
            took[worker] = len((await daemon.call(poll(worker), calls.PollTaskResult)).tasks)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "frozen")
            await trio.sleep(1)
            nursery.start_soon(wait, "awake")
        return took, await daemon.events(started)

    took, events = simulate(scenario, settings=SETTINGS)
    assert took == {"frozen": 0, "awake": 1}
    assert [event.worker for event in events if isinstance(event, ev.TaskStarted)] == ["frozen", "awake"]
