"""Tasks of nodes that a Worker in another process runs: a start of their own, a lease, and an end that belongs to it.

`Drive` replays the stored events after every decision: what is decided here is what is read back."""

from __future__ import annotations

from datetime import timedelta

from daemon.execution.commands import Cancel, RecordOutcome, ReturnTask, StartTask
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind, TimeoutKind
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus

NONE = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]


def echo(drive, resource="echo", **more):
    state = {"Type": "Task", "Resource": resource, "End": True, **more}
    run = drive({"StartAt": "A", "States": {"A": state}}, {"x": 1})
    return run, run.task("A")[1].id


def outcome(task, worker, returns, **more):
    return RecordOutcome(task=task, worker=worker, returns=returns, **{"output": encode(7), **more})


def unchanged(run, command):
    before = list(run.stored)
    decision = run.do(command)
    return run.stored == before and not decision.called_off and not decision.removed


def test_its_end_is_recorded_without_another_start(drive):
    run, task = echo(drive)
    assert run.do(StartTask(task=task, worker="one")).started == [task]
    decision = run.do(outcome(task, "one", 0))
    assert (decision.removed, decision.retired) == ([task], []), "Matching has forgotten it at its start"
    assert run.types[-5:] == ["TaskScheduled", "TaskStarted", "TaskCompleted", "NodeExited", "WorkflowSucceeded"]
    (started,) = [event for event in run.events if isinstance(event, ev.TaskStarted)]
    assert (started.worker, started.lease_seconds, started.began_at) == ("one", 30, None)
    assert run.output == 7


def test_nobody_elses_outcome_counts(drive):
    run, task = echo(drive)
    assert unchanged(run, outcome(task, "one", 0)), "before any start"
    run.do(StartTask(task=task, worker="one"))
    assert unchanged(run, outcome(task, "two", 0))
    assert unchanged(run, outcome(task, "one", 1))
    assert unchanged(run, RecordOutcome(task=task, worker="daemon", output=encode(1))), "no start was recorded for it"
    run.do(outcome(task, "one", 0))
    assert unchanged(run, outcome(task, "one", 0)), "a second time"


def test_a_lapsed_lease_gives_the_same_attempt_to_another_and_what_comes_late_changes_nothing(drive):
    run, task = echo(drive)
    run.do(StartTask(task=task, worker="one"))
    run.advance(29)
    assert run.types[-1] == "TaskStarted"
    run.advance(1)
    returned = run.events[-1]
    assert isinstance(returned, ev.TaskReturned)
    assert (returned.times, run.task("A")[1].attempt) == (1, 1)
    assert run.decisions[-1].silent == [(TaskKind.NODE, "echo", "one", task)]
    assert run.decisions[-1].returned == [task]
    assert unchanged(run, outcome(task, "one", 0))
    run.do(StartTask(task=task, worker="two"))
    assert unchanged(run, outcome(task, "one", 0))
    run.do(outcome(task, "two", 1, output=encode(2)))
    assert run.output == 2


def test_a_renewed_lease_does_not_lapse(drive):
    run, task = echo(drive, TimeoutSeconds=500)
    run.do(StartTask(task=task, worker="one"))
    for _ in range(10):
        run.advance(20)
        run.pulse.leases[task] = run.now
    assert run.types[-1] == "TaskStarted"
    run.advance(30)
    assert run.types[-1] == "TaskReturned"


def test_workers_lost_again_and_again_fail_the_task(drive):
    run, task = echo(drive, Retry=NONE)
    for number in range(3):
        run.do(StartTask(task=task, worker=f"w{number}"))
        run.advance(30)
    assert run.run.error == "Engine.WorkerLost"


def test_one_that_was_given_back_waits_as_long_as_before(drive):
    run, task = echo(drive, ScheduleToStartSeconds=50, Retry=NONE)
    run.do(StartTask(task=task, worker="one"))
    run.advance(10)
    assert run.do(ReturnTask(task=task, returns=0, reason="draining")).returned == [task]
    run.advance(49)
    assert run.decisions[-1].probes == []
    run.advance(1)
    assert run.decisions[-1].probes == [task], "Matching is asked whether anybody has it"


def test_the_worker_keeps_the_tasks_own_times(drive):
    run, task = echo(drive, TimeoutSeconds=20, HeartbeatSeconds=5, Retry=NONE)
    run.do(StartTask(task=task, worker="one"))
    run.advance(25)
    assert run.types[-1] == "TaskStarted", "it reports in a moment"
    run.do(outcome(task, "one", 0, output=None, timed_out=TimeoutKind.START_TO_CLOSE, ran_seconds=20.0))
    timed_out = next(event for event in run.events if isinstance(event, ev.TaskTimedOut))
    assert (timed_out.kind, timed_out.waited_seconds, run.run.error) == ("START_TO_CLOSE", 20, "States.Timeout")


def test_one_that_never_reports_but_keeps_its_lease_ends_too(drive):
    run, task = echo(drive, TimeoutSeconds=20, Retry=NONE)
    run.do(StartTask(task=task, worker="one"))
    for _ in range(20):
        run.pulse.leases[task] = run.now
        run.advance(5)
    timed_out = next(event for event in run.events if isinstance(event, ev.TaskTimedOut))
    assert timed_out.time - run.events[3].time == timedelta(seconds=80)


def test_a_cancellation_names_the_worker_that_is_to_stop(drive):
    run, task = echo(drive)
    assert run.do(StartTask(task=task, worker="one")).called_off == {}
    decision = run.do(Cancel(reason="enough", request_id=None))
    assert (decision.canceled, decision.called_off) == ([task], {"one": [task]})
    assert run.run.status is ExecutionStatus.CANCELED
    assert unchanged(run, outcome(task, "one", 0))


def test_a_cancellation_of_one_that_waits_names_nobody(drive):
    run, task = echo(drive)
    decision = run.do(Cancel(reason="enough", request_id=None))
    assert (decision.canceled, decision.called_off, decision.retired) == ([task], {}, [task])


def test_one_that_waits_for_its_token_is_its_workers_no_more(drive):
    run, task = echo(drive, "echo.waitForTaskToken")
    run.do(StartTask(task=task, worker="one"))
    run.do(outcome(task, "one", 0))
    assert run.types[-1] == "TaskSubmitted"
    assert unchanged(run, outcome(task, "one", 0))
    assert run.do(Cancel(reason="enough", request_id=None)).called_off == {}
