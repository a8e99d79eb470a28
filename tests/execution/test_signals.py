"""Signals: kept in order, taken by the states that wait for them, bounded, and never taken twice."""

from __future__ import annotations

import pytest

from daemon.execution.commands import Cancel, CompleteTask, Limits, Pulse, Signal
from daemon.execution.tokens import CALLBACK
from daemon.execution.view import describe
from enginekit.messages import events as ev
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused


def wait_for(name="go", **more):
    return {"Type": "Task", "Resource": f"signal:{name}", **more}


def machine(**states):
    return {"StartAt": next(iter(states)), "States": states}


def send(run, value, name="go", request_id=None):
    return run.do(Signal(name=name, input=encode(value), request_id=request_id))


def test_a_state_waits_for_its_signal_and_answers_what_it_carried(drive):
    run = drive(machine(A=wait_for(ResultPath="$.said", End=True)), {"n": 1})
    (node,) = describe(run.run, Pulse(since=run.now)).nodes
    assert (node.state, node.queue) == ("awaiting_signal", "go")
    assert run.offered == []
    send(run, {"by": "Ada"})
    assert run.output == {"n": 1, "said": {"by": "Ada"}}
    completed = next(event for event in run.events if isinstance(event, ev.TaskCompleted))
    received = next(event for event in run.events if isinstance(event, ev.SignalReceived))
    assert (completed.output_ref, received.by) == (received.id, "tester")


def test_early_signals_are_kept_first_in_first_out_by_name(drive):
    run = drive(machine(W={"Type": "Wait", "Seconds": 5, "Next": "A"}, A=wait_for(Next="B"), B=wait_for(End=True)))
    for value in (1, 2, 3):
        send(run, value)
    send(run, "other", name="stop")
    run.advance(5)
    assert run.output == 2
    assert [payload.raw for payload in run.run.signals["go"]] == [encode(3)]


def test_those_that_have_waited_longest_get_the_next_signal(drive):
    branches = [machine(A=wait_for(End=True)), machine(B=wait_for(End=True))]
    run = drive(machine(P={"Type": "Parallel", "Branches": branches, "End": True}))
    send(run, "first")
    send(run, "second")
    assert run.output == ["first", "second"]


def test_a_repeated_request_changes_nothing(drive):
    run = drive(machine(A=wait_for(Next="B"), B=wait_for(End=True)))
    send(run, 1, request_id="r")
    before = list(run.stored)
    send(run, 1, request_id="r")
    assert run.stored == before
    send(run, 2, request_id="s")
    assert run.output == 2
    send(run, 2, request_id="s")


def test_a_closed_run_takes_none(drive):
    run = drive(machine(A=wait_for(End=True)))
    run.do(Cancel(reason="", request_id=None))
    with pytest.raises(Refused) as refused:
        send(run, 1)
    assert refused.value.status is ErrorStatus.FAILED_PRECONDITION


@pytest.mark.parametrize("limits", [Limits(signals=3), Limits(signal_bytes=3)])
def test_no_more_are_kept_than_may_wait(drive, limits):
    run = drive(machine(W={"Type": "Wait", "Seconds": 5, "Next": "A"}, A=wait_for(End=True)), limits=limits)
    for value in (1, 2, 3):
        send(run, value)
    before = list(run.stored)
    with pytest.raises(Refused) as refused:
        send(run, 4)
    assert refused.value.status is ErrorStatus.RESOURCE_EXHAUSTED
    assert refused.value.data["retry_after_seconds"] == 5.0
    assert run.stored == before


def test_a_signal_that_is_waited_for_needs_no_room(drive):
    run = drive(machine(A=wait_for(End=True)), limits=Limits(signals=0))
    send(run, 1)
    assert run.output == 1


def test_a_wait_that_takes_too_long_is_a_timeout_that_is_caught(drive):
    catch = [{"ErrorEquals": ["States.Timeout"], "Next": "Late"}]
    run = drive(machine(A=wait_for(TimeoutSeconds=60, Catch=catch, End=True), Late={"Type": "Pass", "End": True}))
    run.advance(59)
    assert run.run.status is ExecutionStatus.RUNNING
    run.advance(1)
    assert run.output["Error"] == "States.Timeout"
    (event,) = [event for event in run.events if isinstance(event, ev.TaskTimedOut)]
    assert event.waited_seconds == 60


def test_without_a_timeout_it_may_take_a_year(drive):
    run = drive(machine(A=wait_for(End=True)))
    run.advance(365 * 86400)
    send(run, "at last")
    assert run.output == "at last"


def test_a_signal_and_then_a_token(drive):
    state = {"Type": "Task", "Resource": "signal:go.waitForTaskToken", "End": True}
    run = drive(machine(A=state))
    task = run.task("A")[1].id
    send(run, "ready")
    assert run.types[-1] == "TaskSubmitted"
    assert run.run.signals == {}
    send(run, "another", name="go")
    run.do(CompleteTask(task=task, returns=CALLBACK, output=encode(7)))
    assert run.output == 7


def test_a_canceled_wait_leaves_the_signals_of_others(drive):
    boom = machine(W={"Type": "Wait", "Seconds": 5, "Next": "F"}, F={"Type": "Fail", "Error": "Boom"})
    parallel = {
        "Type": "Parallel",
        "Branches": [machine(A=wait_for(End=True)), boom],
        "Catch": [{"ErrorEquals": ["Boom"], "Next": "Z"}],
        "End": True,
    }
    run = drive(machine(P=parallel, Z=wait_for(End=True)))
    run.advance(5)
    send(run, "for Z")
    assert run.output == "for Z"
