"""Dead letters, and redriving a run: it goes on where it stopped, with what it had or with something else."""

from __future__ import annotations

import pytest
from msgspec import Raw

from daemon.execution.commands import Cancel, CompleteTask, FailTask, RecordOutcome, Redrive, StartTask, Terminate
from daemon.execution.view import describe
from enginekit.messages import events as ev
from enginekit.messages.events import TimeoutKind
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

RETRY = [{"ErrorEquals": ["Boom"], "MaxAttempts": 2, "IntervalSeconds": 1}]


def task(**more):
    return {"Type": "Task", "Resource": "echo", **more}


def machine(**states):
    return {"StartAt": next(iter(states)), "States": states}


def redrive(run, given=None, **more):
    more = {"reason": "", "request_id": None, **more}
    return run.do(Redrive(input=None if given is None else encode(given), **more))


def letter(run):
    (found,) = [event for event in run.events if isinstance(event, ev.TaskDeadLettered)]
    return found


def entered(run):
    return [event.path for event in run.events if isinstance(event, ev.NodeEntered)]


def test_a_task_that_nobody_catches_is_kept_whole(drive):
    run = drive(machine(A=task(Parameters={"v.$": "$.n"}, Retry=RETRY, End=True)), {"n": 1})
    times = []
    for _ in range(3):
        times.append(run.now)
        run.fail("A", "Boom", "why")
        run.advance(10)
    kept = letter(run)
    assert (kept.node, kept.path, kept.resource, kept.error, kept.cause) == ("A", "A", "echo", "Boom", "why")
    assert [(each.attempt, each.error, each.cause, each.failed_at) for each in kept.attempts] == [
        (number, "Boom", "why", at) for number, at in enumerate(times, 1)
    ]
    held = next(event for event in run.events if event.id == kept.input_ref)
    assert decode(held.input) == {"v": 1}
    assert run.run.letter == kept.id


@pytest.mark.parametrize("outcome", ["timed out", "caught", "retried by its Parallel", "canceled"])
def test_only_what_fails_the_execution_is_a_dead_letter(drive, outcome):
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Z"}]
    inner = machine(A=task(End=True))
    parallel = {"Type": "Parallel", "Branches": [inner], "End": True}
    if outcome == "caught":
        parallel["Catch"] = catch
    if outcome == "retried by its Parallel":
        parallel["Retry"] = RETRY
    run = drive(machine(P=parallel, Z={"Type": "Pass", "End": True}) if "Catch" in parallel else machine(P=parallel))
    if outcome == "timed out":
        number = run.task("P[0].A")[1].id
        run.do(RecordOutcome(task=number, worker="w", timed_out=TimeoutKind.START_TO_CLOSE, ran_seconds=300))
        assert letter(run).error == "States.Timeout"
        return
    if outcome == "canceled":
        run.do(Cancel(reason="", request_id=None))
    else:
        run.fail("P[0].A", "Boom")
    assert "TaskDeadLettered" not in run.types


def test_a_redriven_run_goes_on_at_the_task_that_failed(drive):
    run = drive(machine(A=task(Next="B"), B=task(Retry=RETRY, Next="C"), C=task(End=True)), {"n": 1})
    run.complete("A", {"n": 2})
    for _ in range(3):
        run.fail("B", "Boom")
        run.advance(10)
    assert run.run.status is ExecutionStatus.FAILED
    assert describe(run.run, run.pulse).nodes == []
    redrive(run, reason="the shop is back")
    node, attempt = run.task("B")
    assert (attempt.attempt, node.retries, decode(attempt.input.raw)) == (4, {}, {"n": 2})
    assert run.offered[-1] == attempt.id
    run.fail("B", "Boom")
    run.advance(10)
    run.complete("B", 3)
    run.complete("C", 4)
    assert run.output == 4
    assert entered(run) == ["A", "B", "C"]
    assert run.run.letter == 0
    (event,) = [event for event in run.events if isinstance(event, ev.WorkflowRedriven)]
    assert (event.by, event.reason) == ("tester", "the shop is back")


def test_a_task_is_given_the_edited_input_also_when_it_is_retried(drive):
    states = machine(A=task(Parameters={"v.$": "$.n"}, ResultPath="$.r", Retry=RETRY, End=True))
    run = drive(states, {"n": "bad"})
    run.fail("A", "Bad")
    redrive(run, {"v": "good"})
    for _ in range(2):
        assert decode(run.task("A")[1].input.raw) == {"v": "good"}
        run.fail("A", "Boom")
        run.advance(10)
    run.complete("A", "done")
    assert run.output == {"n": "bad", "r": "done"}


def test_a_state_that_failed_before_there_was_a_task_is_given_another_input(drive):
    run = drive(machine(A=task(Parameters={"v.$": "$.missing"}, End=True)), {"n": 1})
    assert (letter(run).error, letter(run).attempts) == ("States.Runtime", [])
    redrive(run, {"missing": 7})
    assert decode(run.task("A")[1].input.raw) == {"v": 7}


def test_a_choice_that_matched_nothing_is_given_another_input(drive):
    choice = {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericEquals": 2, "Next": "Z"}]}
    run = drive(machine(C=choice, Z={"Type": "Pass", "End": True}), {"n": 1})
    assert (run.run.error, run.run.documented) == ("States.Runtime", "States.NoChoiceMatched")
    assert "TaskDeadLettered" not in run.types
    redrive(run)
    assert run.run.status is ExecutionStatus.FAILED
    redrive(run, {"n": 2})
    assert (run.output, run.run.documented) == ({"n": 2}, None)


def test_parts_that_had_ended_are_not_run_again(drive):
    inner = machine(A=task(Next="B"), B=task(End=True))
    run = drive(machine(M={"Type": "Map", "ItemProcessor": inner, "End": True}), [0, 1, 2, 3])
    for index in range(4):
        run.complete(f"M[{index}].A", index)
    run.complete("M[0].B", "zero")
    run.fail("M[2].B", "Boom")
    assert letter(run).path == "M[2].B"
    redrive(run, "edited")
    assert sorted(node.path for node in run.run.nodes.values() if node.task) == ["M[1].B", "M[2].B", "M[3].B"]
    assert [decode(run.task(f"M[{index}].B")[1].input.raw) for index in (1, 2, 3)] == [1, "edited", 3]
    for index in (3, 2, 1):
        run.complete(f"M[{index}].B", index)
    assert run.output == ["zero", 1, 2, 3]


def test_waits_and_backoffs_go_on(drive):
    wait = machine(W={"Type": "Wait", "Seconds": 100, "End": True})
    tried = machine(R=task(Retry=[{"ErrorEquals": ["Boom"], "IntervalSeconds": 50}], End=True))
    fails = machine(A=task(End=True))
    run = drive(machine(P={"Type": "Parallel", "Branches": [wait, tried, fails], "End": True}))
    run.fail("P[1].R", "Boom")
    run.advance(10)
    run.fail("P[2].A", "Bang")
    run.advance(20)
    redrive(run)
    run.complete("P[2].A", "a")
    run.advance(19)
    assert not run.run.tasks
    run.advance(1)
    run.complete("P[1].R", "r")
    run.advance(50)
    assert run.output == [{}, "r", "a"]


@pytest.mark.parametrize("command", [Cancel(reason="", request_id=None), Terminate(reason="", request_id=None)])
def test_one_that_somebody_ended_goes_on_as_well(drive, command):
    run = drive(machine(A=task(Next="B"), B=task(End=True)))
    run.complete("A", 1)
    run.do(command)
    with pytest.raises(Refused, match="no state of run run-1 failed by itself") as refused:
        redrive(run, {"n": 1})
    assert refused.value.status is ErrorStatus.FAILED_PRECONDITION
    redrive(run)
    run.complete("B", 2)
    assert run.output == 2


def test_an_execution_whose_time_was_up_gets_it_anew(drive):
    definition = {**machine(A=task(Next="B"), B=task(End=True)), "TimeoutSeconds": 60}
    run = drive(definition)
    run.advance(30)
    run.complete("A", 1)
    run.advance(30)
    assert run.run.status is ExecutionStatus.TIMED_OUT
    run.advance(1000)
    redrive(run)
    run.advance(59)
    assert run.run.status is ExecutionStatus.RUNNING
    run.advance(1)
    assert run.run.status is ExecutionStatus.TIMED_OUT
    waited = [event.waited_seconds for event in run.events if isinstance(event, ev.WorkflowTimedOut)]
    assert waited == [60, 60]
    redrive(run)
    run.complete("B", 2)
    assert run.output == 2


def test_one_that_runs_or_has_succeeded_is_not_redriven(drive):
    run = drive(machine(A=task(End=True)))
    with pytest.raises(Refused, match="is RUNNING"):
        redrive(run)
    run.complete("A", 1)
    with pytest.raises(Refused, match="is SUCCEEDED"):
        redrive(run)


def test_the_same_request_again_changes_nothing(drive):
    run = drive(machine(A=task(End=True)))
    run.fail("A", "Boom")
    redrive(run, request_id="r")
    before = list(run.stored)
    redrive(run, request_id="r")
    assert run.stored == before


def test_the_retries_of_what_failed_around_it_count_anew_as_well(drive):
    inner = machine(A=task(End=True))
    run = drive(machine(P={"Type": "Parallel", "Branches": [inner], "Retry": RETRY, "End": True}))
    for _ in range(2):
        for _ in range(3):
            run.fail("P[0].A", "Boom")
            run.advance(10)
        assert run.run.status is ExecutionStatus.FAILED
        redrive(run)
    assert run.types.count("ParallelStarted") == 5
    run.complete("P[0].A", 1)
    assert run.output == [1]


def test_the_context_tells_how_often(drive):
    run = drive(machine(A=task(Parameters={"n.$": "$$.Execution.RedriveCount"}, End=True)))
    for count in range(3):
        assert decode(run.task("A")[1].input.raw) == {"n": count}
        run.fail("A", "Boom")
        redrive(run)


def test_a_workers_token_of_before_is_worth_nothing(drive):
    run = drive(machine(A={"Type": "Task", "Resource": "activity:work", "End": True}))
    first = run.task("A")[1].id
    run.do(StartTask(task=first, worker="one"))
    run.do(Terminate(reason="", request_id=None))
    redrive(run)
    with pytest.raises(Refused):
        run.do(CompleteTask(task=first, returns=0, output=encode(1)))
    second = run.task("A")[1].id
    run.do(StartTask(task=second, worker="one"))
    run.do(CompleteTask(task=second, returns=0, output=encode(2)))
    assert run.output == 2


def test_an_output_that_could_not_be_made_of_its_parts_is_tried_again_without_them(drive):
    inner = machine(A=task(End=True))
    definition = machine(M={"Type": "Map", "ItemProcessor": inner, "ResultSelector": {"n.$": "$[5].n"}, "End": True})
    run = drive(definition, [1, 2])
    run.complete("M[0].A", 1)
    run.complete("M[1].A", 2)
    assert run.run.error == "States.Runtime"
    redrive(run)
    assert (run.run.error, run.types.count("MapStarted")) == ("States.Runtime", 1)


def test_a_wide_run_is_taken_up_in_steps_and_may_be_canceled_meanwhile(drive):
    branches = [machine(**{f"A{index}": task(End=True)}) for index in range(120)]
    run = drive(machine(P={"Type": "Parallel", "Branches": branches, "End": True}))
    run.fail("P[60].A60", "Boom")
    redrive(run)
    assert len(run.run.tasks) == 120
    assert max(len(decision.events) for decision in run.decisions) < 300
    run.do(Cancel(reason="", request_id=None))
    redrive(run)
    for index in range(120):
        run.complete(f"P[{index}].A{index}", index)
    assert run.output == list(range(120))


def test_the_cause_of_a_second_timeout_counts_from_the_redrive(drive):
    run = drive({**machine(A=task(End=True)), "TimeoutSeconds": 60})
    run.advance(60)
    run.advance(1000)
    redrive(run)
    run.advance(60)
    assert run.run.status is ExecutionStatus.TIMED_OUT
    assert run.run.cause.startswith("the execution did not end within 60 seconds (TimeoutSeconds of its definition)")
    ended = run.events[-1]
    assert isinstance(ended, ev.WorkflowTimedOut)
    assert ended.waited_seconds == 60


@pytest.mark.parametrize(("given", "details"), [(None, b'{"page":3}'), ({"pages": 9}, None)])
def test_an_activity_goes_on_from_its_last_heartbeat_unless_it_is_given_something_else(drive, given, details):
    run = drive(machine(A=task(Resource="activity:pages", End=True)))
    number = run.task("A")[1].id
    run.do(StartTask(task=number, worker="w"))
    run.do(FailTask(task=number, returns=0, error="Boom", cause="", details=Raw(b'{"page":3}')))
    redrive(run, given)
    assert run.task("A")[0].details == details
