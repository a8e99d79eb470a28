"""Schedules on the whole daemon under the mock clock: what fires, what overlaps, what a restart makes up for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio

from daemon.api.auth import Principal
from daemon.supervisor import ServiceName
from enginekit.messages import calls, schedules
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.schedules import Overlap, TriggerOutcome
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

OWNER, OTHER = (
    Principal(tenant=tenant, subject="tester", scopes=frozenset({"read", "write"}), expires_at=None)
    for tenant in ("acme", "umbrella")
)
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
"""When the simulated clock begins."""

HOUR = 3600


def resting(seconds: float) -> dict[str, JSON]:
    return {"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": seconds, "End": True}}}


class Clerk:
    """Calls about schedules of one daemon."""

    def __init__(self, daemon) -> None:
        self.daemon = daemon

    async def register(self, name: str, seconds: float) -> None:
        call = calls.RegisterWorkflow(name=name, definition=encode(resting(seconds)))
        await self.daemon.call(call, calls.RegisterWorkflowResult)

    async def create(self, schedule_id: str = "hourly", cron: str = "0 * * * *", **more):
        call = schedules.CreateSchedule(schedule_id=schedule_id, cron=cron, **{"workflow": "rest", **more})
        return await self.daemon.call(call, schedules.CreateScheduleResult)

    async def show(self, schedule_id: str = "hourly", **more) -> schedules.DescribeScheduleResult:
        call = schedules.DescribeSchedule(schedule_id=schedule_id, **more)
        return await self.daemon.call(call, schedules.DescribeScheduleResult)

    async def trigger(self, schedule_id: str = "hourly", **more) -> schedules.TriggerScheduleResult:
        call = schedules.TriggerSchedule(schedule_id=schedule_id, **more)
        return await self.daemon.call(call, schedules.TriggerScheduleResult)

    async def do(self, call: calls.Call) -> None:
        await self.daemon.call(call, calls.Acknowledged)

    async def runs(self) -> list[calls.ExecutionSummary]:
        """Oldest first."""
        found = await self.daemon.call(calls.ListWorkflows(page_size=1000), calls.ListWorkflowsResult)
        return found.executions[::-1]

    async def times(self) -> list[tuple[str, float]]:
        """What was started, and so many hours after the beginning."""
        return [(run.workflow_id, (run.started_at - BEGUN).total_seconds() / HOUR) for run in await self.runs()]


def hours(count: int, first: int = 1) -> list[tuple[str, float]]:
    return [(f"hourly-{BEGUN + timedelta(hours=n):%Y-%m-%dT%H:%M:%SZ}", n) for n in range(first, first + count)]


def scheduled(simulate, play, seconds: float = 60, **more):
    """Play it on a daemon where workflow `rest` takes so many seconds and is started every hour."""

    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", seconds)
        await clerk.create(**more)
        return await play(clerk)

    return simulate(scenario)


def test_it_fires_when_it_is_due_and_says_who_started_what(simulate):
    async def play(clerk):
        await trio.sleep(3 * HOUR + 1)
        (first, *_) = await clerk.runs()
        started = calls.StartWorkflowResult(workflow_id=first.workflow_id, run_id=first.run_id)
        return await clerk.times(), (await clerk.daemon.events(started))[0], await clerk.show()

    times, event, seen = scheduled(simulate, play, input=encode({"n": 1}), labels={"team": "a"})
    assert times == hours(3)
    assert isinstance(event, ev.WorkflowStarted)
    assert (event.by, event.workflow, event.version) == ("schedule:hourly", "rest", 1)
    assert event.labels == {"team": "a", "schedule": "hourly"}
    assert decode(event.input) == {"n": 1}
    assert event.time == BEGUN + timedelta(hours=1)
    assert (seen.started, seen.skipped, seen.missed, seen.failed) == (3, 0, 0, 0)
    assert seen.last_run is not None
    assert (seen.last_run.at, seen.last_run.workflow_id) == (BEGUN + timedelta(hours=3), times[-1][0])
    assert seen.created_by == "tester"
    assert seen.upcoming == [BEGUN + timedelta(hours=n) for n in range(4, 14)]


def test_the_newest_version_of_the_day_is_started_unless_one_is_named(simulate):
    async def play(clerk):
        await clerk.create("pinned", version=1)
        await trio.sleep(HOUR + 1)
        await clerk.register("rest", 61)
        await trio.sleep(HOUR)
        return [(run.labels["schedule"], run.version) for run in await clerk.runs()]

    assert sorted(scheduled(simulate, play)) == [("hourly", 1), ("hourly", 2), ("pinned", 1), ("pinned", 1)]


@pytest.mark.parametrize(
    ("overlap", "started", "skipped", "canceled"),
    [
        # Each takes two and a half hours.
        (Overlap.SKIP, [1, 4, 7], 4, 0),
        (Overlap.BUFFER_ONE, [1, 3.5, 6], 3, 0),
        (Overlap.ALLOW, [1, 2, 3, 4, 5, 6, 7], 0, 0),
        (Overlap.CANCEL_OTHER, [1, 2, 3, 4, 5, 6, 7], 0, 6),
    ],
)
def test_what_overlaps_goes_by_the_policy(simulate, overlap, started, skipped, canceled):
    async def play(clerk):
        await trio.sleep(7 * HOUR + 1)
        return await clerk.runs(), await clerk.show()

    runs, seen = scheduled(simulate, play, seconds=2.5 * HOUR, overlap=overlap)
    assert [(run.started_at - BEGUN).total_seconds() / HOUR for run in runs] == started
    assert (seen.started, seen.skipped) == (len(started), skipped)
    assert [run.status for run in runs].count(ExecutionStatus.CANCELED) == canceled


def test_what_was_buffered_is_named_by_the_time_it_was_due(simulate):
    async def play(clerk):
        await trio.sleep(2 * HOUR + 1)
        waiting = await clerk.show()
        await trio.sleep(2 * HOUR)
        return waiting, await clerk.runs(), await clerk.show()

    waiting, runs, seen = scheduled(simulate, play, seconds=2.5 * HOUR, overlap=Overlap.BUFFER_ONE)
    assert waiting.buffered_at == BEGUN + timedelta(hours=2)
    assert [run.workflow_id for run in runs] == ["hourly-2026-01-01T01:00:00Z", "hourly-2026-01-01T02:00:00Z"]
    assert seen.buffered_at == BEGUN + timedelta(hours=4)


@pytest.mark.parametrize("overlap", [Overlap.BUFFER_ONE, Overlap.CANCEL_OTHER])
def test_a_firing_that_waits_survives_a_history_that_dies_as_the_execution_closes(simulate, overlap):
    """The closing is on disk, and whoever was to be told of it is gone."""

    async def play(clerk):
        await trio.sleep(2 * HOUR + 1)
        daemon = clerk.daemon
        if overlap is Overlap.BUFFER_ONE:
            (first,) = await clerk.runs()
            daemon.memory.fail_next_commit(after_write=True)
            with pytest.raises(Refused):
                await clerk.do(calls.TerminateWorkflow(workflow_id=first.workflow_id))
        await trio.sleep(10)
        return await clerk.times()

    times = scheduled(simulate, play, seconds=2.5 * HOUR, overlap=overlap)
    assert [name for name, _ in times] == ["hourly-2026-01-01T01:00:00Z", "hourly-2026-01-01T02:00:00Z"]


@pytest.mark.parametrize("after_write", [False, True])
@pytest.mark.parametrize("overlap", list(Overlap))
def test_a_commit_of_unknown_outcome_neither_loses_nor_doubles_a_firing(simulate, overlap, after_write):
    async def play(clerk):
        for _ in range(5):
            await trio.sleep(HOUR - 1)
            clerk.daemon.memory.fail_next_commit(after_write=after_write)
            await trio.sleep(1)
        await trio.sleep(HOUR / 2)
        return [name for name, _ in await clerk.times()], await clerk.show()

    names, seen = scheduled(simulate, play, seconds=0, overlap=overlap)
    assert names == [name for name, _ in hours(5)]
    assert seen.started == 5


@pytest.mark.parametrize("name", [ServiceName.HISTORY, ServiceName.TIMER])
def test_a_service_that_raises_loses_no_firing(simulate, name):
    async def play(clerk):
        await trio.sleep(HOUR - 0.05)
        clerk.daemon.sabotage[name].set()
        await trio.sleep(HOUR)
        return await clerk.times()

    times = scheduled(simulate, play)
    assert [started for started, _ in times] == [started for started, _ in hours(1)]


def test_pausing_and_resuming(simulate):
    async def play(clerk):
        await trio.sleep(HOUR + 1)
        await clerk.do(schedules.PauseSchedule(schedule_id="hourly", note="the press is being repaired"))
        await clerk.do(schedules.PauseSchedule(schedule_id="hourly"))
        await trio.sleep(3 * HOUR)
        paused = await clerk.show()
        await clerk.do(schedules.ResumeSchedule(schedule_id="hourly"))
        await clerk.do(schedules.ResumeSchedule(schedule_id="hourly", note="it runs"))
        await trio.sleep(HOUR)
        return paused, await clerk.show(), await clerk.times()

    paused, seen, times = scheduled(simulate, play)
    assert (paused.paused, paused.note, paused.next_at) == (True, "the press is being repaired", None)
    assert paused.upcoming[0] == BEGUN + timedelta(hours=5)
    assert (seen.paused, seen.note, seen.missed, seen.skipped) == (False, "it runs", 0, 0)
    assert times == [*hours(1), *hours(1, 5)]


def test_one_that_is_made_paused_fires_when_it_is_resumed(simulate):
    async def play(clerk):
        await trio.sleep(2 * HOUR)
        await clerk.do(schedules.ResumeSchedule(schedule_id="hourly"))
        await trio.sleep(HOUR + 1)
        return await clerk.times()

    assert scheduled(simulate, play, paused=True) == hours(1, 3)


def test_a_pause_drops_what_the_clock_had_buffered(simulate):
    async def play(clerk):
        await trio.sleep(2 * HOUR + 1)
        await clerk.do(schedules.PauseSchedule(schedule_id="hourly"))
        await trio.sleep(10 * HOUR)
        return await clerk.show(), len(await clerk.runs())

    seen, runs = scheduled(simulate, play, seconds=2.5 * HOUR, overlap=Overlap.BUFFER_ONE)
    assert (seen.buffered_at, seen.skipped, runs) == (None, 1, 1)


def test_triggers(simulate):
    async def play(clerk):
        await clerk.do(schedules.PauseSchedule(schedule_id="hourly"))
        await trio.sleep(90.5)
        first = await clerk.trigger(request_id="one")
        again = await clerk.trigger(request_id="one")
        with pytest.raises(Refused) as refused:
            await clerk.trigger(request_id="two")
        await trio.sleep(100)
        more = [await clerk.trigger() for _ in range(1)]
        (run, *_) = await clerk.runs()
        started = calls.StartWorkflowResult(workflow_id=run.workflow_id, run_id=run.run_id)
        return first, again, refused.value, more, (await clerk.daemon.events(started))[0]

    first, again, refused, more, event = scheduled(simulate, play)
    assert first == again
    assert (first.outcome, first.workflow_id) == (TriggerOutcome.STARTED, "hourly-2026-01-01T00:01:30.500Z")
    assert refused.status is ErrorStatus.FAILED_PRECONDITION
    assert refused.message == (
        'the execution "hourly-2026-01-01T00:01:30.500Z" that it started last is running, and its overlap policy is '
        "`skip`"
    )
    assert more[0].run_id != first.run_id
    assert (event.by, event.labels) == ("tester", {"schedule": "hourly"})


def test_triggers_at_the_same_moment_start_executions_of_their_own(simulate):
    async def play(clerk):
        return [(await clerk.trigger()).workflow_id for _ in range(3)]

    assert scheduled(simulate, play, overlap=Overlap.ALLOW) == [f"hourly-2026-01-01T00:00:00.00{n}Z" for n in range(3)]


def test_a_trigger_that_has_to_wait_is_buffered_once(simulate):
    async def play(clerk):
        await clerk.trigger()
        second = await clerk.trigger(request_id="again")
        repeated = await clerk.trigger(request_id="again")
        with pytest.raises(Refused, match="one firing waits for it already"):
            await clerk.trigger(request_id="third")
        await clerk.do(schedules.PauseSchedule(schedule_id="hourly"))
        await trio.sleep(70)
        started = await clerk.trigger(request_id="again")
        return second, repeated, started, await clerk.times()

    second, repeated, started, times = scheduled(simulate, play, overlap=Overlap.BUFFER_ONE)
    assert second == repeated == schedules.TriggerScheduleResult(outcome=TriggerOutcome.BUFFERED)
    assert started.outcome is TriggerOutcome.STARTED
    assert [name for name, _ in times][1:] == [started.workflow_id]
    assert times[1][1] == pytest.approx(60 / HOUR, abs=1e-3)


def test_a_trigger_cancels_the_other_where_that_is_the_policy(simulate):
    async def play(clerk):
        first = await clerk.trigger()
        second = await clerk.trigger()
        await trio.sleep(1)
        return first, second, await clerk.runs()

    first, second, runs = scheduled(simulate, play, overlap=Overlap.CANCEL_OTHER)
    assert (first.outcome, second.outcome) == (TriggerOutcome.STARTED, TriggerOutcome.BUFFERED)
    assert [run.status for run in runs] == [ExecutionStatus.CANCELED, ExecutionStatus.RUNNING]


def test_deleting_ends_it_and_leaves_what_it_started(simulate):
    async def play(clerk):
        await trio.sleep(HOUR + 1)
        await clerk.do(schedules.DeleteSchedule(schedule_id="hourly"))
        with pytest.raises(Refused) as refused:
            await clerk.show()
        await trio.sleep(2 * HOUR)
        await clerk.create()
        await trio.sleep(HOUR)
        return refused.value, await clerk.runs()

    refused, runs = scheduled(simulate, play)
    assert (refused.status, refused.message) == (ErrorStatus.NOT_FOUND, 'no schedule "hourly"')
    assert [run.workflow_id for run in runs] == [name for name, _ in hours(1) + hours(1, 4)]
    assert runs[0].status is ExecutionStatus.SUCCEEDED


def test_a_firing_whose_id_is_in_use_is_recorded_and_not_tried_again(simulate):
    async def play(clerk):
        await clerk.daemon.start(resting(9 * HOUR), workflow_id="hourly-2026-01-01T01:00:00Z")
        await trio.sleep(2 * HOUR + 1)
        return await clerk.show(), await clerk.times()

    seen, times = scheduled(simulate, play)
    assert (seen.started, seen.failed, seen.last_error_at) == (1, 1, BEGUN + timedelta(hours=1))
    assert seen.last_error is not None
    assert seen.last_error.startswith(
        '2026-01-01T01:00:00Z: workflow_id: an execution "hourly-2026-01-01T01:00:00Z" is running'
    )
    assert times[1:] == hours(1, 2)


def test_a_request_made_again_makes_one_schedule(simulate):
    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", 1)
        first = await clerk.create(request_id="once")
        again = await clerk.create(request_id="once")
        with pytest.raises(Refused) as refused:
            await clerk.create(request_id="other")
        return first, again, refused.value

    first, again, refused = simulate(scenario)
    assert first == again
    assert refused.status is ErrorStatus.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ({"cron": "61 * * * *"}, "cron", "cron: '61 * * * *': '61' is no minute: that is *, or 0-59"),
        ({"cron": "* * *"}, "cron", "cron: '* * *' has 3 fields; a cron text has five"),
        ({"cron": "0 0 31 2 *"}, "cron", "cron: '0 0 31 2 *' never fires"),
        ({"cron": "0 0 * 2 mon#5,tue#6"}, "cron", "is no day of the week"),
        (
            {"time_zone": "Europe/Berln"},
            "time_zone",
            "there is no time zone 'Europe/Berln'; did you mean Europe/Berlin",
        ),
        ({"time_zone": "../../etc/passwd"}, "time_zone", "there is no time zone"),
        ({"time_zone": "Europe"}, "time_zone", "there is no time zone 'Europe'"),
        ({"workflow": "west"}, "workflow", 'workflow: no workflow "west" is registered; register it first'),
        ({"version": 7}, "version", 'version: workflow "rest" has no version 7'),
        ({"schedule_id": "a b"}, "schedule_id", "schedule_id: must be 1 to 200 characters"),
        ({"schedule_id": "~a"}, "schedule_id", "schedule_id: must be 1 to 200 characters"),
        ({"schedule_id": "x" * 201}, "schedule_id", "schedule_id: must be 1 to 200 characters"),
        ({"catch_up_seconds": 1}, "catch_up_seconds", "catch_up_seconds: expected `float` >= 10"),
        ({"labels": {"schedule": "mine"}}, "labels", "labels: `schedule` is the engine's"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_written(simulate, wrong, field, message):
    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", 1)
        params = {"schedule_id": "hourly", "cron": "0 * * * *", "workflow": "rest", **wrong}
        with pytest.raises(Refused) as refused:
            await daemon.gateway.call(OWNER, "CreateSchedule", bytes(encode(params)))
        listed = await daemon.call(schedules.ListSchedules(), schedules.ListSchedulesResult)
        return refused.value, listed.schedules

    refused, listed = simulate(scenario)
    assert refused.status in (ErrorStatus.INVALID_ARGUMENT, ErrorStatus.NOT_FOUND)
    assert refused.data["field"] == field
    assert message in refused.message
    assert listed == []


def test_schedules_are_listed_in_pages(simulate):
    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", 1)
        for number in range(7):
            await clerk.create(f"s{number}", input=encode("x" * 200_000))
        found, token, pages = [], None, 0
        while True:
            call = schedules.ListSchedules(page_size=4, page_token=token)
            page = await daemon.call(call, schedules.ListSchedulesResult)
            found += [each.schedule_id for each in page.schedules]
            token, pages = page.next_page_token, pages + 1
            if token is None:
                return found, pages

    assert simulate(scenario) == ([f"s{number}" for number in range(7)], 2)


def test_another_tenants_schedules_are_not_there(simulate):
    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", 1)
        await clerk.create()
        refusals = []
        for method in ("DescribeSchedule", "PauseSchedule", "ResumeSchedule", "TriggerSchedule", "DeleteSchedule"):
            with pytest.raises(Refused) as refused:
                await daemon.gateway.call(OTHER, method, b'{"schedule_id": "hourly"}')
            refusals.append(refused.value.status)
        listed = await daemon.gateway.call(OTHER, "ListSchedules", b"{}")
        return refusals, decode(listed)["schedules"]

    assert simulate(scenario) == ([ErrorStatus.NOT_FOUND] * 5, [])


def test_hundreds_that_are_due_at_once_all_fire_once(simulate):
    async def scenario(daemon):
        clerk = Clerk(daemon)
        await clerk.register("rest", 1)
        for number in range(400):
            await clerk.create(f"s{number:03}")
        await trio.sleep(2 * HOUR + 60)
        return sorted(run.workflow_id for run in await clerk.runs())

    names = simulate(scenario)
    assert names == sorted(f"s{n:03}-2026-01-01T0{hour}:00:00Z" for n in range(400) for hour in (1, 2))
