"""Every clock of a task, on the whole daemon under the mock clock: what runs it × which clock × what the state says.

What is recorded does not depend on who catches it, and who catches it not on what runs it.
"""

from __future__ import annotations

import itertools
from datetime import timedelta

import msgspec
import pytest
import trio

from daemon.settings import Settings, WorkerSettings
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.events import TimeoutKind
from enginekit.messages.json import NULL, decode
from enginekit.messages.status import ExecutionStatus, Refused, ReportRefusal

S2S, S2C, BEAT = TimeoutKind.SCHEDULE_TO_START, TimeoutKind.START_TO_CLOSE, TimeoutKind.HEARTBEAT
ACTIVITY, NODE, TOKEN, FUNCTION = "activity:desk", "test:flaky", "activity:desk.waitForTaskToken", "a Lambda function"
FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:desk"

FIELDS = {
    S2S: {"ScheduleToStartSeconds": 7},
    S2C: {"TimeoutSeconds": 20},
    BEAT: {"TimeoutSeconds": 90, "HeartbeatSeconds": 5},
}
SECONDS = {S2S: 7.0, S2C: 20.0, BEAT: 5.0}
ERRORS = {S2S: "States.Timeout", S2C: "States.Timeout", BEAT: "States.HeartbeatTimeout"}
SETTINGS_NAMED = {S2S: "ScheduleToStartSeconds", S2C: "TimeoutSeconds", BEAT: "HeartbeatSeconds"}

HANDLED = {
    "nobody": ({}, False),
    "Catch by its name": ({"Catch": [{"ErrorEquals": ["$"], "Next": "Caught"}]}, True),
    "Catch of States.Timeout": ({"Catch": [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]}, True),
    "Catch of States.ALL": ({"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}, True),
    "Catch of States.TaskFailed": ({"Catch": [{"ErrorEquals": ["States.TaskFailed"], "Next": "Caught"}]}, False),
    "Retry by its name": ({"Retry": [{"ErrorEquals": ["$"], "IntervalSeconds": 60, "MaxAttempts": 1}]}, False),
    "Retry of States.Timeout": (
        {"Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 60, "MaxAttempts": 1}]},
        False,
    ),
    "Retry of States.ALL, then Catch": (
        {
            "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 60, "MaxAttempts": 1}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
        },
        True,
    ),
}
TABLE = list(itertools.product([ACTIVITY, NODE, TOKEN, FUNCTION], [S2S, S2C, BEAT], HANDLED))

ONE_SLOT = Settings(worker=WorkerSettings(slots=1))
POLL = calls.PollTask(queue="desk", worker_id="clerk", wait_seconds=100)


def named(value, error):
    """The handling, with the error's own name where it says `$`."""
    return msgspec.json.decode(msgspec.json.encode(value).replace(b'"$"', msgspec.json.encode(error)))


def definition(resource, fields, handling):
    state = {
        "Type": "Task",
        "Resource": FUNCTION_ARN if resource is FUNCTION else resource,
        "Parameters": {"seconds": 1000, "failures": 0},
        **fields,
        **handling,
        "Next": "Done",
    }
    states = {"Work": state, "Done": {"Type": "Pass", "End": True}}
    if "Catch" in handling:
        states["Caught"] = {"Type": "Pass", "End": True}
    return {"StartAt": "Work", "States": states}


async def lazy_worker(daemon, resource):
    """Takes every task and does nothing with it; where a token is waited for, it does its own part at once."""
    while True:
        for task in (await daemon.call(POLL, calls.PollTaskResult)).tasks:
            if resource is TOKEN:
                await daemon.call(calls.CompleteTask(token=task.token), calls.Acknowledged)


async def take(daemon):
    """The next task. A poll of a worker that let a lease lapse ends without one: it asks again."""
    while True:
        tasks = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        if tasks:
            return tasks[0]


async def view_of(daemon, started):
    return await daemon.call(calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult)


@pytest.mark.parametrize(("resource", "clock", "handler"), TABLE)
def test_a_clock_that_runs_out(simulate, resource, clock, handler):
    handling, caught = HANDLED[handler]
    error = ERRORS[clock]

    async def scenario(daemon):
        async with trio.open_nursery() as nursery:
            if clock is S2S:
                await daemon.start(definition(NODE, {"TimeoutSeconds": 5000}, {}))  # has the only slot
                await trio.sleep(0.01)
            else:
                nursery.start_soon(lazy_worker, daemon, resource)
            started = await daemon.start(definition(resource, FIELDS[clock], named(handling, error)))
            if "Retry" in handling:
                await trio.sleep(SECONDS[clock] + 1)
                (waiting,) = (await view_of(daemon, started)).nodes
                assert (waiting.state, waiting.last_error, waiting.attempt) == ("backing_off", error, 2)
            else:
                waiting = None
            closed = await daemon.closed(started)
            events = await daemon.events(started)
            nursery.cancel_scope.cancel()
        return closed, events, waiting

    closed, events, waiting = simulate(scenario, settings=ONE_SLOT)
    attempts = 2 if "Retry" in handling else 1
    timeouts = [event for event in events if isinstance(event, ev.TaskTimedOut)]
    assert [(event.kind, event.error) for event in timeouts] == [(clock, error)] * attempts
    for event in timeouts:
        assert event.waited_seconds == pytest.approx(SECONDS[clock], abs=0.01)
        assert f'queue "{"test:flaky" if resource is NODE else "desk"}"' in event.cause
        assert f" {SECONDS[clock]:g} seconds" in event.cause
        assert f"({SETTINGS_NAMED[clock]}; waited {event.waited_seconds:.3f} s)" in event.cause
    retries = [event for event in events if isinstance(event, ev.TaskRetryScheduled)]
    assert [event.at - event.time for event in retries] == [timedelta(seconds=60)] * (attempts - 1)
    if waiting is not None:
        assert waiting.next_retry_at == retries[0].at
    if caught:
        assert closed.status is ExecutionStatus.SUCCEEDED
        assert decode(closed.output) == {"Error": error, "Cause": timeouts[-1].cause}
    else:
        assert (closed.status, closed.error, closed.cause) == (ExecutionStatus.FAILED, error, timeouts[-1].cause)


@pytest.mark.parametrize(
    ("resource", "clock", "cause"),
    [
        (ACTIVITY, S2S, "(tasks.schedule_to_start_seconds in engine.toml; waited 86400.000 s)"),
        (ACTIVITY, S2C, "(tasks.timeout_seconds in engine.toml; waited 300.000 s)"),
        (NODE, S2C, "(tasks.timeout_seconds in engine.toml; waited 300.000 s)"),
    ],
)
def test_a_default_that_runs_out_is_named(simulate, resource, clock, cause):
    async def keep(daemon):
        """Takes the task and keeps its lease, no more."""
        (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        while True:
            await trio.sleep(19)  # not at the very moment of the timeout
            await daemon.call(calls.HeartbeatTask(token=task.token), calls.HeartbeatTaskResult)

    async def scenario(daemon):
        async with trio.open_nursery() as nursery:
            if resource is ACTIVITY and clock is S2C:
                nursery.start_soon(keep, daemon)
            started = await daemon.start(definition(resource, {}, {}))
            closed = await daemon.closed(started)
            nursery.cancel_scope.cancel()
        return closed

    assert cause in simulate(scenario).cause


NAP = {"StartAt": "Nap", "States": {"Nap": {"Type": "Wait", "Seconds": 5000, "End": True}}}


@pytest.mark.parametrize("handler", HANDLED)
@pytest.mark.parametrize(
    ("resource", "cause"),
    [
        ("signal:go", 'signal "go" did not come within 20 seconds (TimeoutSeconds; waited 20.000 s)'),
        ("workflow:nap", "the child execution did not end within 20 seconds of its start (TimeoutSeconds; waited 20"),
    ],
)
def test_what_waits_for_no_worker_has_one_clock(simulate, resource, cause, handler):
    handling, caught = HANDLED[handler]

    async def scenario(daemon):
        register = calls.RegisterWorkflow(name="nap", definition=msgspec.Raw(msgspec.json.encode(NAP)))
        await daemon.call(register, calls.RegisterWorkflowResult)
        started = await daemon.start(definition(resource, FIELDS[S2C], named(handling, "States.Timeout")))
        return await daemon.closed(started), await daemon.events(started)

    closed, events = simulate(scenario)
    timeouts = [event for event in events if isinstance(event, ev.TaskTimedOut)]
    assert [event.kind for event in timeouts] == [S2C] * (2 if "Retry" in handling else 1)
    assert all(event.cause.startswith(cause) for event in timeouts)
    assert (closed.status is ExecutionStatus.SUCCEEDED) == caught


# --- the execution's own ------------------------------------------------------------------------------------------

CATCH_ALL = {
    "Retry": [{"ErrorEquals": ["States.ALL"]}],
    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
}
WHERE = {
    "queued": (definition(ACTIVITY, {}, CATCH_ALL), False, 'Work (queue "desk", attempt 1)'),
    "running": (definition(ACTIVITY, {}, CATCH_ALL), True, 'Work (queue "desk", attempt 1)'),
    "awaiting its token": (definition(TOKEN, {}, CATCH_ALL), True, 'Work (queue "desk", attempt 1)'),
    "in the daemon": (definition(NODE, {}, CATCH_ALL), False, 'Work (queue "test:flaky", attempt 1)'),
    "backing off": (
        definition(
            NODE,
            {"TimeoutSeconds": 2},
            {**CATCH_ALL, "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 900}]},
        ),
        False,
        "Work (attempt 2)",
    ),
    "awaiting a signal": (definition("signal:go", {}, CATCH_ALL), False, 'Work (signal "go", attempt 1)'),
    "waiting": ({"StartAt": "Nap", "States": {"Nap": {"Type": "Wait", "Seconds": 900, "End": True}}}, False, "Nap"),
}


@pytest.mark.parametrize("by_start", [False, True])
@pytest.mark.parametrize("where", WHERE)
def test_the_time_of_the_execution_runs_out(simulate, where, by_start):
    states, taken, cause = WHERE[where]

    async def scenario(daemon):
        async with trio.open_nursery() as nursery:
            if taken:
                nursery.start_soon(lazy_worker, daemon, TOKEN if where == "awaiting its token" else ACTIVITY)
            if by_start:
                started = await daemon.start(states, timeout_seconds=25)
            else:
                started = await daemon.start({**states, "TimeoutSeconds": 25})
            closed = await daemon.closed(started)
            events = await daemon.events(started)
            nursery.cancel_scope.cancel()
        return closed, events

    closed, events = simulate(scenario)
    setting = "timeout_seconds of its start" if by_start else "TimeoutSeconds of its definition"
    assert (closed.status, closed.error) == (ExecutionStatus.TIMED_OUT, "States.Timeout")
    assert closed.cause == f"the execution did not end within 25 seconds ({setting}); it was in {cause}"
    ended = events[-1]
    assert isinstance(ended, ev.WorkflowTimedOut)
    assert (ended.waited_seconds, ended.cause) == (25.0, closed.cause)
    ran = "attempt 1" in cause
    assert [type(event) for event in events[-2:-1]] == ([ev.TaskCanceled] if ran else [type(events[-2])])
    assert ran == any(isinstance(event, ev.TaskCanceled) for event in events)


# --- heartbeats ---------------------------------------------------------------------------------------------------


def test_who_only_keeps_its_lease_shows_no_progress(simulate):
    async def scenario(daemon):
        started = await daemon.start(definition(ACTIVITY, {"HeartbeatSeconds": 60, "TimeoutSeconds": 900}, {}))
        (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        for _ in range(5):
            await trio.sleep(20)
            try:
                beat = calls.HeartbeatTask(token=task.token, progress=False)
                await daemon.call(beat, calls.HeartbeatTaskResult)
            except Refused as refused:
                return await daemon.closed(started), refused.data["reason"]
        return await daemon.closed(started), None

    closed, told = simulate(scenario)
    assert (closed.error, told) == ("States.HeartbeatTimeout", ReportRefusal.TIMED_OUT.value)
    assert 'from worker "clerk"' in closed.cause


def test_progress_and_lease_are_two_clocks(simulate):
    """With the lease lapsing before the heartbeat is due the task is returned, not timed out."""

    async def scenario(daemon):
        started = await daemon.start(definition(ACTIVITY, {"HeartbeatSeconds": 60, "TimeoutSeconds": 900}, {}))
        await daemon.call(POLL, calls.PollTaskResult)
        await trio.sleep(31)
        return await daemon.events(started)

    (returned,) = [event for event in simulate(scenario) if isinstance(event, ev.TaskReturned)]
    assert returned.reason == 'the lease of worker "clerk" lapsed (30 s without a heartbeat)'


@pytest.mark.parametrize("ending", ["fails", "times out", "is lost", "is given back", "fails in a batch"])
def test_what_a_heartbeat_said_reaches_the_next_attempt(simulate, ending):
    retry = {"Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1}]}

    async def scenario(daemon):
        started = await daemon.start(definition(ACTIVITY, {"TimeoutSeconds": 25}, retry))
        (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        assert task.heartbeat_details == NULL
        for said in (b'{"done":1}', b'{"done":2}', b"null"):
            beat = calls.HeartbeatTask(token=task.token, details=msgspec.Raw(said))
            await daemon.call(beat, calls.HeartbeatTaskResult)
        (node,) = (await view_of(daemon, started)).nodes
        assert decode(node.heartbeat_details) == {"done": 2}
        assert node.heartbeat_at is not None
        match ending:
            case "fails":
                await daemon.call(calls.FailTask(token=task.token, error="Boom"), calls.Acknowledged)
            case "fails in a batch":
                batch = [calls.TaskCompletion(token=task.token, error="Boom")]
                await daemon.call(calls.CompleteTasks(tasks=batch), calls.CompleteTasksResult)
            case "is given back":
                await daemon.call(calls.ReturnTask(token=task.token), calls.Acknowledged)
        again = await take(daemon)
        assert decode(again.heartbeat_details) == {"done": 2}
        await daemon.call(calls.ReturnTask(token=again.token), calls.Acknowledged)
        third = await take(daemon)
        assert decode(third.heartbeat_details) == {"done": 2}
        return await daemon.events(started)

    settings = Settings()
    if ending == "is lost":
        settings = msgspec.structs.replace(settings, tasks=msgspec.structs.replace(settings.tasks, lease_seconds=10.0))
    events = simulate(scenario, settings=settings)
    kept = [event for event in events if isinstance(getattr(event, "details", None), msgspec.Raw)]
    assert len(kept) == 1, "what was recorded once is not recorded again"


def test_long_details_are_refused_and_change_nothing(simulate):
    async def scenario(daemon):
        await daemon.start(definition(ACTIVITY, {}, {}))
        (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
        details = msgspec.Raw(b'"' + b"x" * calls.HEARTBEAT_BYTES + b'"')
        with pytest.raises(Refused, match="details: 4,098 bytes; at most 4,096 are taken"):
            await daemon.call(calls.HeartbeatTask(token=task.token, details=details), calls.HeartbeatTaskResult)

    simulate(scenario)
