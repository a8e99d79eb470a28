"""Workers in other processes: leases, heartbeats, late reports; and the tokens they show."""

from __future__ import annotations

import pytest
from msgspec import Raw

from daemon.execution.commands import CompleteTask, ExpireTask, FailTask, ReturnTask, StartTask
from daemon.execution.tokens import mint, open_token
from enginekit.messages import events as ev
from enginekit.messages.links import RunRef, TaskRef
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

RESIZE = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:resize", "End": True}}}


def resize(drive, **more):
    return drive({"StartAt": "A", "States": {"A": {**RESIZE["States"]["A"], **more}}}, {"x": 1})


def refusal(run, command):
    before = list(run.stored)
    with pytest.raises(Refused) as refused:
        run.do(command)
    assert run.stored == before
    return refused.value.data.get("reason")


def test_a_task_is_started_once(drive):
    run = resize(drive)
    task = run.task("A")[1].id
    assert run.do(StartTask(task=task, worker="one")).started == [task]
    assert run.do(StartTask(task=task, worker="two")).started == []
    run.do(CompleteTask(task=task, returns=0, output=Raw(b"7")))
    assert run.output == 7


def test_a_repeat_is_told_that_it_was_recorded(drive):
    run = resize(drive)
    task = run.task("A")[1].id
    run.do(StartTask(task=task, worker="one"))
    run.do(CompleteTask(task=task, returns=0, output=Raw(b"7")))
    assert refusal(run, CompleteTask(task=task, returns=0, output=Raw(b"8"))) == "ALREADY_RECORDED"
    assert refusal(run, FailTask(task=task, returns=0, error="E", cause="")) == "ALREADY_RECORDED"


def test_a_lapsed_lease_gives_the_same_attempt_to_another(drive):
    run = resize(drive)
    task = run.task("A")[1].id
    run.do(StartTask(task=task, worker="one"))
    run.advance(29)
    assert run.types[-1] == "TaskStarted"
    run.advance(1)
    returned = run.events[-1]
    assert isinstance(returned, ev.TaskReturned)
    assert (returned.times, run.task("A")[1].attempt) == (1, 1)
    run.do(StartTask(task=task, worker="two"))
    assert refusal(run, CompleteTask(task=task, returns=0, output=Raw(b"1"))) == "TIMED_OUT"
    run.do(CompleteTask(task=task, returns=1, output=Raw(b"2")))
    assert run.output == 2


def test_a_heartbeat_renews_the_lease(drive):
    run = resize(drive)
    task = run.task("A")[1].id
    run.do(StartTask(task=task, worker="one"))
    for _ in range(5):
        run.advance(20)
        run.pulse.beats[task] = run.now
    assert "TaskReturned" not in run.types
    run.advance(30)
    assert run.types[-1] == "TaskReturned"


def test_workers_lost_again_and_again_fail_the_task(drive):
    run = resize(drive, Retry=[{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}])
    task = run.task("A")[1].id
    for _ in range(3):
        run.do(StartTask(task=task, worker="one"))
        run.advance(30)
    assert run.run.error == "Engine.WorkerLost"


def test_a_worker_may_give_a_task_back(drive):
    run = resize(drive)
    task = run.task("A")[1].id
    run.do(StartTask(task=task, worker="one"))
    assert run.do(ReturnTask(task=task, returns=0, reason="draining")).returned == [task]


@pytest.mark.parametrize(
    ("fields", "started", "after", "kind", "error"),
    [
        ({"TimeoutSeconds": 20}, True, 20, ev.TimeoutKind.START_TO_CLOSE, "States.Timeout"),
        ({"TimeoutSeconds": 90, "HeartbeatSeconds": 10}, True, 10, ev.TimeoutKind.HEARTBEAT, "States.HeartbeatTimeout"),
        ({"ScheduleToStartSeconds": 5}, False, 5, ev.TimeoutKind.SCHEDULE_TO_START, "States.Timeout"),
    ],
)
def test_each_clock_of_a_task_has_its_own_event(drive, fields, started, after, kind, error):
    run = resize(drive, **fields)
    task = run.task("A")[1].id
    if started:
        run.do(StartTask(task=task, worker="one"))
    run.advance(after)
    timed_out = next(event for event in run.events if isinstance(event, ev.TaskTimedOut))
    assert (timed_out.kind, timed_out.error, timed_out.waited_seconds) == (kind, error, after)
    assert run.run.status is ExecutionStatus.FAILED
    if started:
        assert refusal(run, CompleteTask(task=task, returns=0, output=Raw(b"1"))) == "TIMED_OUT"


def test_a_state_with_an_arn_waits_for_years_and_says_why(drive):
    function = "arn:aws:lambda:eu-west-1:123456789012:function:resize"
    run = resize(drive, Resource=function)
    run.advance(99_999_999)
    assert run.run.cause == (
        'no worker took the task from queue "resize" within 99999999 seconds (the longest there is: no '
        "ScheduleToStartSeconds is given; waited 99999999.000 s)"
    )


def test_what_the_daemon_runs_itself_is_asked_about_before_it_times_out(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {"A": {"Type": "Task", "Resource": "echo", "ScheduleToStartSeconds": 5, "End": True}},
        }
    )
    task = run.task("A")[1].id
    run.advance(5)
    assert run.pulse.probed == {task}
    assert run.types[-1] == "TaskScheduled"
    run.do(ExpireTask(task=task, waited_seconds=5.0))
    assert run.run.error == "States.Timeout"


def test_a_report_about_a_canceled_sibling_is_told_that_nobody_waits(drive):
    branch = {"StartAt": "B", "States": {"B": {"Type": "Task", "Resource": "activity:resize", "End": True}}}
    failing = {"StartAt": "F", "States": {"F": {"Type": "Task", "Resource": "echo", "End": True}}}
    run = drive({"StartAt": "P", "States": {"P": {"Type": "Parallel", "Branches": [branch, failing], "End": True}}})
    task = run.task("P[0].B")[1].id
    run.do(StartTask(task=task, worker="one"))
    run.fail("P[1].F", "Boom")
    assert refusal(run, CompleteTask(task=task, returns=0, output=Raw(b"1"))) == "CLOSED"


# --- tokens --------------------------------------------------------------------------------------------------------

KEY = b"k" * 32
RUN = RunRef("acme", "order/1:a@b", "0190-run")


def test_a_token_says_its_task():
    opened = open_token(KEY, "acme", mint(KEY, RUN, 17, 2))
    assert (opened.task, opened.returns) == (TaskRef(RUN, 17), 2)


def test_a_token_is_short_enough_for_the_longest_names():
    assert len(mint(KEY, RunRef("t" * 255, "w" * 255, "0" * 36), 250_000, 10)) <= 1024


@pytest.mark.parametrize("tenant", ["other", ""])
def test_a_token_is_worth_nothing_to_another_tenant(tenant):
    with pytest.raises(Refused) as refused:
        open_token(KEY, tenant, mint(KEY, RUN, 17, 0))
    assert refused.value.status is ErrorStatus.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "forge", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: "", lambda t: "a.b.c.d.e"]
)
def test_a_forged_token_is_refused(forge):
    with pytest.raises(Refused):
        open_token(KEY, "acme", forge(mint(KEY, RUN, 17, 0)))


def test_another_task_s_seal_does_not_fit():
    parts = mint(KEY, RUN, 17, 0).split(".")
    parts[2] = "18"
    with pytest.raises(Refused):
        open_token(KEY, "acme", ".".join(parts))
