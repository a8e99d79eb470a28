"""For random definitions and random fates of their tasks: the run ends, replays to the live state after every
decision (which `Drive` checks), and comes out the same the second time."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.execution.commands import Cancel, Limits, RecordOutcome, Redrive
from daemon.execution.deadlines import next_wake
from enginekit.messages import events as ev
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus
from tests.hypothesis_profiles import examples

ERRORS = ["Boom", "Bang", "States.TaskFailed"]
LIMITS = Limits(step_transitions=7, step_events=20)


@st.composite
def machines(draw, depth=2, prefix="S"):
    """A chain of states, some of which open branches of their own; choices and catches only go forward."""
    count = draw(st.integers(1, 4))
    states = {}
    for index in range(count):
        name = f"{prefix}{index}"
        following = {"End": True} if index == count - 1 else {"Next": f"{prefix}{index + 1}"}
        kinds = ["Pass", "Task", "Wait", *(["Parallel", "Map"] if depth else [])]
        kind = draw(st.sampled_from(kinds))
        state = {"Type": kind, **following}
        if kind == "Pass":
            state["Result"] = draw(st.sampled_from([1, "x", [1, 2], {"a": [0]}]))
        elif kind == "Task":
            state["Resource"] = draw(st.sampled_from(["echo", "activity:work"]))
        elif kind == "Wait":
            state["Seconds"] = draw(st.integers(0, 100))
        elif kind == "Parallel":
            branches = draw(st.integers(1, 3))
            state["Branches"] = [draw(machines(depth - 1, f"{name}p{branch}")) for branch in range(branches)]
        else:
            state["ItemsPath"] = "$$.Execution.Input.items"
            state["MaxConcurrency"] = draw(st.integers(0, 3))
            state["ItemProcessor"] = draw(machines(depth - 1, f"{name}m"))
        if kind in ("Task", "Parallel", "Map"):
            if draw(st.booleans()):
                state["Retry"] = [
                    {"ErrorEquals": [draw(st.sampled_from(ERRORS))], "MaxAttempts": 2, "IntervalSeconds": 5}
                ]
            if index < count - 1 and draw(st.booleans()):
                target = f"{prefix}{draw(st.integers(index + 1, count - 1))}"
                state["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": target, "ResultPath": "$"}]
        states[name] = state
    return {"StartAt": f"{prefix}0", "States": states}


def play(drive, definition, items, seed):
    """Tasks end one by one as chance has it; time passes when nothing else can."""
    run = drive(definition, {"items": list(range(items))}, LIMITS, seed)
    chance = random.Random(seed)
    for _ in range(5000):
        if run.run.status.closed:
            return run
        if run.run.tasks and chance.random() < 0.8:
            task = chance.choice(sorted(run.run.tasks))
            if chance.random() < 0.25:
                run.do(RecordOutcome(task=task, worker="w", error=chance.choice(ERRORS), cause="chance"))
            else:
                run.do(RecordOutcome(task=task, worker="w", output=encode({"n": chance.randrange(3)})))
        else:
            run.advance(chance.choice([1, 10, 100]))
    raise AssertionError("the run does not end")


@settings(max_examples=examples(60), deadline=None)
@given(machines(), st.integers(0, 4), st.integers(0, 2**32))
def test_every_run_ends_and_repeats(drive, definition, items, seed):
    first = play(drive, definition, items, seed)
    assert first.run.status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED)
    assert (first.run.tasks, next_wake(first.run, first.pulse)) == ({}, None)
    if first.run.status is ExecutionStatus.SUCCEEDED:
        assert (first.run.branches, first.run.nodes, first.run.ready) == ({}, {}, [])
    ends = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCanceled)
    scheduled = [event.id for event in first.events if isinstance(event, ev.TaskScheduled)]
    assert sorted(event.task for event in first.events if isinstance(event, ends)) == scheduled
    assert play(drive, definition, items, seed).stored == first.stored
    redriven(first)


def redriven(run):
    """A run that has failed goes on where it stopped, and repeats nothing that had ended in what is kept."""
    if run.run.status is ExecutionStatus.SUCCEEDED:
        return
    kept = {node.entry for node in run.run.nodes.values()}
    completed = {event.entry for event in run.events if isinstance(event, ev.TaskCompleted)}
    stopped = len(run.stored)
    run.do(Redrive(reason="again", request_id=None, input=None))
    while not run.run.status.closed:
        if run.run.tasks:
            run.do(RecordOutcome(task=min(run.run.tasks), worker="w", output=encode(None)))
        else:
            run.advance(100)
    assert run.run.status is ExecutionStatus.SUCCEEDED
    again = {event.entry for event in run.events[stopped:] if isinstance(event, ev.TaskScheduled)}
    assert not again & (completed - kept)
    replayed = [event.entry for event in run.events[stopped:] if isinstance(event, ev.NodeEntered)]
    assert len(set(replayed)) == len(replayed)


@settings(max_examples=examples(40), deadline=None)
@given(machines(), st.integers(0, 4), st.integers(0, 40))
def test_a_cancellation_ends_it_wherever_it_stands(drive, definition, items, steps):
    run = drive(definition, {"items": list(range(items))}, LIMITS)
    chance = random.Random(steps)
    for _ in range(steps):
        if run.run.tasks:
            run.do(RecordOutcome(task=chance.choice(sorted(run.run.tasks)), worker="w", output=encode(None)))
        else:
            run.advance(10)
    if not run.run.status.closed:
        run.do(Cancel(reason="enough", request_id="r"))
        assert run.run.status is ExecutionStatus.CANCELED
        assert run.types[-1] == "WorkflowCanceled"
        before = len(run.stored)
        run.do(Cancel(reason="enough", request_id="r"))
        assert len(run.stored) == before
