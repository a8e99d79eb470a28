"""Somebody sets the machine's clock by an hour: what lasts goes on as it was, what has a time goes by the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio

from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls, schedules
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, encode
from enginekit.messages.schedules import Overlap
from enginekit.messages.status import ExecutionStatus

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600
FORGETFUL = Settings(history=HistorySettings(cache_bytes=0))
"""Runs are not kept in memory while nothing happens to them."""

STEPS = pytest.mark.parametrize("hours", [1, -1, 24 * 400])
MEMORIES = pytest.mark.parametrize("settings", [Settings(), FORGETFUL], ids=["in memory", "read back"])


def alone(state: dict[str, JSON], **more: JSON) -> dict[str, JSON]:
    return {"StartAt": "A", "States": {"A": {"End": True, **state}}, **more}


WAIT = alone({"Type": "Wait", "Seconds": 10})
TASK = {"Type": "Task", "Resource": "activity:desk", "TimeoutSeconds": 100, "HeartbeatSeconds": 25}


async def begin(daemon, definition, data=None):
    """An execution, and the moment of its beginning by a clock that nobody sets."""
    begun = trio.current_time()
    return await daemon.start(definition, data), begun


async def lasted(daemon, one) -> tuple[calls.DescribeWorkflowResult, float]:
    started, begun = one
    closed = await daemon.closed(started)
    return closed, trio.current_time() - begun


@STEPS
@MEMORIES
def test_a_wait_of_some_seconds_lasts_as_long(simulate, settings, hours):
    async def scenario(daemon):
        first = await begin(daemon, WAIT)
        await trio.sleep(3)
        daemon.clock.set_by += hours * HOUR * 1000
        closed, seconds = await lasted(daemon, first)
        second = await begin(daemon, WAIT)
        return closed, seconds, (await lasted(daemon, second))[1], await daemon.events(first[0])

    closed, seconds, after, events = simulate(scenario, settings=settings)
    assert closed.status is ExecutionStatus.SUCCEEDED
    assert (seconds, after) == (pytest.approx(10, abs=0.1), pytest.approx(10, abs=0.1))
    (step,) = [event for event in events if isinstance(event, ev.ClockStepped)]
    assert step.seconds == hours * HOUR
    (fired,) = [event for event in events if isinstance(event, ev.TimerFired)]
    assert fired.late_seconds < 0.1


@STEPS
def test_a_wait_that_is_further_away_lasts_as_long(simulate, hours):
    """Beyond what the Timer holds."""

    async def scenario(daemon):
        one = await begin(daemon, alone({"Type": "Wait", "Seconds": 5 * HOUR}))
        await trio.sleep(600)
        daemon.clock.set_by += hours * HOUR * 1000
        return (await lasted(daemon, one))[1]

    assert simulate(scenario, settings=FORGETFUL) == pytest.approx(5 * HOUR, abs=0.1)


@MEMORIES
@pytest.mark.parametrize(("hours", "seconds"), [(1, 4), (-1, HOUR + 50)])
def test_a_time_that_was_given_goes_by_the_clock(simulate, settings, hours, seconds):
    until = (BEGUN + timedelta(seconds=50)).isoformat().replace("+00:00", "Z")

    async def scenario(daemon):
        one = await begin(daemon, alone({"Type": "Wait", "TimestampPath": "$.until"}), {"until": until})
        await trio.sleep(3)
        daemon.clock.set_by += hours * HOUR * 1000
        _, took = await lasted(daemon, one)
        return took, await daemon.events(one[0])

    took, events = simulate(scenario, settings=settings)
    assert took == pytest.approx(seconds, abs=1.1)
    assert not any(isinstance(event, ev.ClockStepped) for event in events)


@STEPS
@MEMORIES
@pytest.mark.parametrize(
    ("beats", "seconds"), [(20, 100), (None, 25)], ids=["its time runs out", "its worker falls silent"]
)
def test_the_timeouts_of_a_task_are_as_long(simulate, settings, hours, beats, seconds):
    async def scenario(daemon):
        async def work():
            poll = calls.PollTask(queue="desk", worker_id="w", wait_seconds=60)
            (task,) = (await daemon.call(poll, calls.PollTaskResult)).tasks
            while beats is not None:
                await trio.sleep(beats - 1)
                await daemon.call(calls.HeartbeatTask(token=task.token), calls.HeartbeatTaskResult)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            one = await begin(daemon, alone(TASK))
            await trio.sleep(12)
            daemon.clock.set_by += hours * HOUR * 1000
            found = await lasted(daemon, one)
            nursery.cancel_scope.cancel()
        return *found, await daemon.events(one[0])

    closed, took, events = simulate(scenario, settings=settings)
    assert closed.status is ExecutionStatus.FAILED
    (timeout,) = [event for event in events if isinstance(event, ev.TaskTimedOut)]
    assert timeout.waited_seconds == pytest.approx(seconds, abs=0.1)
    assert took == pytest.approx(seconds, abs=0.2)


@STEPS
@MEMORIES
def test_a_lease_lapses_when_it_would_have(simulate, settings, hours):
    async def scenario(daemon):
        silent, other = (calls.PollTask(queue="desk", worker_id=name, wait_seconds=90) for name in ("w", "v"))
        await begin(daemon, alone({"Type": "Task", "Resource": "activity:desk"}))
        await daemon.call(silent, calls.PollTaskResult)
        begun = trio.current_time()
        await trio.sleep(12)
        daemon.clock.set_by += hours * HOUR * 1000
        again = await daemon.call(other, calls.PollTaskResult)
        return trio.current_time() - begun, len(again.tasks)

    assert simulate(scenario, settings=settings) == (pytest.approx(30, abs=0.1), 1)


@STEPS
def test_a_retry_comes_as_soon_as_it_would_have(simulate, hours):
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 30, "MaxAttempts": 1}]
    flaky = {"Type": "Task", "Resource": "test:flaky", "Parameters": {"failures": 1, "seconds": 0}, "Retry": retry}

    async def scenario(daemon):
        one = await begin(daemon, alone(flaky))
        await trio.sleep(5)
        daemon.clock.set_by += hours * HOUR * 1000
        return await lasted(daemon, one)

    closed, took = simulate(scenario)
    assert closed.status is ExecutionStatus.SUCCEEDED
    assert took == pytest.approx(30, abs=1.5)


@STEPS
def test_an_executions_own_time_is_as_long(simulate, hours):
    async def scenario(daemon):
        one = await begin(daemon, alone({"Type": "Wait", "Seconds": 9 * HOUR}, TimeoutSeconds=50))
        await trio.sleep(5)
        daemon.clock.set_by += hours * HOUR * 1000
        return await lasted(daemon, one)

    closed, took = simulate(scenario)
    assert closed.status is ExecutionStatus.TIMED_OUT
    assert took == pytest.approx(50, abs=0.1)


def test_many_waiting_executions_all_end_when_they_would_have_and_steps_add_up(simulate):
    async def scenario(daemon):
        ones = [await begin(daemon, alone({"Type": "Wait", "Seconds": 60 + number})) for number in range(0, 600, 2)]
        for step in (HOUR, -3 * HOUR, 2, HOUR):
            await trio.sleep(5)
            daemon.clock.set_by += step * 1000
        return [(await lasted(daemon, one))[1] for one in ones]

    took = simulate(scenario, settings=FORGETFUL)
    assert took == [pytest.approx(60 + number, abs=0.2) for number in range(0, 600, 2)]


@pytest.mark.parametrize(("hours", "started"), [(3, [1, 2, 3, 4]), (-3, [1])])
def test_schedules_go_by_the_clock_and_fire_no_time_twice(simulate, hours, started):
    async def scenario(daemon):
        await daemon.call(calls.RegisterWorkflow(name="w", definition=encode(WAIT)), calls.RegisterWorkflowResult)
        await daemon.call(
            schedules.CreateSchedule(schedule_id="s", cron="0 * * * *", workflow="w", overlap=Overlap.ALLOW),
            schedules.CreateScheduleResult,
        )
        await trio.sleep(HOUR + 60)
        daemon.clock.set_by += hours * HOUR * 1000
        await trio.sleep(HOUR / 2)
        found = await daemon.call(calls.ListWorkflows(), calls.ListWorkflowsResult)
        return sorted(run.workflow_id for run in found.executions)

    assert simulate(scenario) == [f"s-2026-01-01T0{hour}:00:00Z" for hour in started]


def test_a_clock_that_runs_a_little_fast_is_no_step(simulate):
    async def scenario(daemon):
        one = await begin(daemon, alone({"Type": "Wait", "Seconds": 600}))
        for _ in range(100):
            await trio.sleep(1)
            daemon.clock.set_by += 5
        _, took = await lasted(daemon, one)
        return took, await daemon.events(one[0])

    took, events = simulate(scenario)
    assert took == pytest.approx(599.5, abs=0.1)
    assert not any(isinstance(event, ev.ClockStepped) for event in events)
