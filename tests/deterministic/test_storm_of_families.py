"""Storms over parents and children: services raise and commits fail while children start, fail, are canceled with their
parents, signaled, buried and redriven. Every task has one child, every end is heard once, every signal is taken once,
letters are of what failed and of nothing else, and in the end everything can be redriven to its success."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from test_storm import CALM, FORGETFUL, insist, labour, strike

from daemon.execution import snapshot
from daemon.execution.evolve import replay
from daemon.stores.rows import ExecutionFilter, LetterFilter
from enginekit.messages import calls, dead_letters
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind, decode_event
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

FAMILIES = 6
SIGNALS = 3
STEP = {"StartAt": "Do", "States": {"Do": {"Type": "Task", "Resource": "activity:work", "End": True}}}


def child(**more):
    return {"Type": "Task", "Resource": "workflow:step", "End": True, **more}


def machine(name, state, **config):
    return {"StartAt": name, "States": {name: state}, **config}


def signals():
    states = {
        f"Take{number}": {
            "Type": "Task",
            "Resource": "signal:go",
            "ResultPath": f"$.taken{number}",
            **({"Next": f"Take{number + 1}"} if number + 1 < SIGNALS else {"End": True}),
        }
        for number in range(SIGNALS)
    }
    return {"StartAt": "Take0", "States": states}


RETRY = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1, "IntervalSeconds": 1}]
DISTRIBUTED = {
    "Type": "Map",
    "ItemsPath": "$.items",
    "ItemProcessor": machine("Far", child(), ProcessorConfig={"Mode": "DISTRIBUTED"}),
    "ToleratedFailurePercentage": 100,
    "End": True,
}
NEAR = {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": machine("N", child()), "End": True}
FAMILY = machine(
    "All",
    {
        "Type": "Parallel",
        "Branches": [
            signals(),
            machine("Near", NEAR),
            machine("Grand", {"Type": "Task", "Resource": "workflow:middle", "Retry": RETRY, "End": True}),
            machine("Each", DISTRIBUTED),
        ],
        "End": True,
    },
)  # fmt: skip
MIDDLE = machine("M", child(ParentClosePolicy="TERMINATE"))


async def redrive(daemon, chance):
    """Whatever has failed is redriven, by its letter or by its id, sometimes twice at once."""
    while True:
        await trio.sleep(chance.uniform(0.5, 3))
        listed = await insist(daemon, dead_letters.ListDeadLetters(page_size=20), dead_letters.ListDeadLettersResult)
        wanted: list[calls.Call] = [
            dead_letters.RedriveDeadLetter(id=each.id, request_id=f"letter-{each.id}")
            for each in listed.dead_letters
            if chance.random() < 0.5
        ]
        for status in (ExecutionStatus.FAILED, ExecutionStatus.CANCELED):
            failed = await insist(daemon, calls.ListWorkflows(status=status, page_size=20), calls.ListWorkflowsResult)
            wanted += [
                calls.RedriveWorkflow(workflow_id=each.workflow_id, run_id=each.run_id)
                for each in failed.executions
                if chance.random() < 0.5
            ]
        async with trio.open_nursery() as nursery:
            for call in wanted:
                for _ in range(chance.choice([1, 1, 2])):
                    nursery.start_soon(try_to, daemon, call)


async def try_to(daemon, call):
    try:
        await insist(daemon, call, calls.RedriveResult)
    except Refused as refused:
        assert refused.status in (ErrorStatus.FAILED_PRECONDITION, ErrorStatus.NOT_FOUND)  # noqa: PT017


async def signal(daemon, started, chance):
    """Each once, however often it is sent; a run that is closed for now is sent it later."""
    for number in range(SIGNALS):
        while True:
            await trio.sleep(chance.uniform(0, 2))
            call = calls.SignalWorkflow(
                workflow_id=started.workflow_id, name="go", input=encode(number), request_id=f"signal-{number}"
            )
            try:
                await insist(daemon, call, calls.Acknowledged)
                await insist(daemon, call, calls.Acknowledged)
                break
            except Refused as refused:
                assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017


async def cancel(daemon, started, chance):
    """Some parents are canceled, and redriven."""
    await trio.sleep(chance.uniform(1, 10))
    call = calls.CancelWorkflow(workflow_id=started.workflow_id, request_id="cancel")
    try:
        await insist(daemon, call, calls.Acknowledged)
    except Refused as refused:
        assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017


async def to_the_end(daemon, started):
    """Redriven until it has succeeded."""
    for _ in range(200):
        seen = await daemon.closed(started)
        if seen.status is ExecutionStatus.SUCCEEDED:
            return seen
        await try_to(daemon, calls.RedriveWorkflow(workflow_id=started.workflow_id, run_id=started.run_id))
        await trio.sleep(1)
    raise AssertionError(f"it does not end: {seen}")


@pytest.mark.parametrize("seed", range(8))
def test_a_storm_over_families(simulate, seed):
    chance = random.Random(seed)

    async def scenario(daemon):
        for name, definition in (("step", STEP), ("middle", MIDDLE)):
            call = calls.RegisterWorkflow(name=name, definition=encode(definition))
            await daemon.call(call, calls.RegisterWorkflowResult)
        async with trio.open_nursery() as nursery:
            for name in ("one", "two", "three"):
                nursery.start_soon(labour, daemon, name, chance)
            nursery.start_soon(redrive, daemon, chance)
            started = []
            async with trio.open_nursery() as storm:
                storm.start_soon(strike, daemon, chance)
                for number in range(FAMILIES):
                    await trio.sleep(chance.uniform(0, 1))
                    call = calls.StartWorkflow(
                        definition=encode(FAMILY),
                        input=encode({"items": list(range(number % 4))}),
                        workflow_id=f"family-{number}",
                        request_id=f"start-{number}",
                    )
                    started.append(await insist(daemon, call, calls.StartWorkflowResult))
                    storm.start_soon(signal, daemon, started[-1], chance)
                    if chance.random() < 0.5:
                        storm.start_soon(cancel, daemon, started[-1], chance)
            views = [await to_the_end(daemon, one) for one in started]
            nursery.cancel_scope.cancel()
        await trio.sleep(120)
        runs = await everything(daemon)
        letters = await daemon.memory.dead_letters(LetterFilter(tenant=None, limit=10_000))
        left = await daemon.memory.effects(10)
        assert sum(view.restarts for view in daemon.supervisor.views()) >= 2, "the storm has hit nothing"
        return views, runs, letters, left

    views, runs, letters, left = simulate(scenario, seed, CALM if seed % 2 else FORGETFUL)
    assert left == []
    for number, view in enumerate(views):
        taken, near, _, each = decode(view.output)
        assert [taken[f"taken{index}"] for index in range(SIGNALS)] == list(range(SIGNALS))
        assert (len(near), len(each)) == (number % 4, number % 4)
    check_families(runs)
    buried = sorted((run.ref.run_id, run.letter) for run, _ in runs.values() if run.letter)
    assert sorted((each.run.run_id, each.letter.event_id) for each in letters) == buried


async def everything(daemon):
    """Each run: its state and its events."""
    found = {}
    for row in await rows(daemon, None):
        queue = [row]
        while queue:
            one = queue.pop()
            data = await daemon.memory.events("acme", one.run.run_id, 0, 100_000, 2**30)
            events = [(decode_event(each), len(each)) for each in data]
            assert [event.id for event, _ in events] == list(range(1, one.last_event_id + 1))
            run = replay(events)
            assert (run.status, run.last_event_id) == (one.status, one.last_event_id)
            (loaded,) = await daemon.memory.load_runs([one.run], snapshot.FINGERPRINT, 1)
            if loaded.snapshot is not None:
                assert snapshot.dump(replay(events[: loaded.snapshot.event_id])) == loaded.snapshot.data
            found[one.run.run_id] = run, [event for event, _ in events]
            queue += await rows(daemon, one.run.run_id)
    return found


async def rows(daemon, parent):
    return await daemon.memory.list_executions(ExecutionFilter(tenant="acme", limit=10_000, parent=parent))


def check_families(runs):
    of_tasks = Counter((run.parent_task.run_id, run.parent_task.task) for run, _ in runs.values() if run.parent_task)
    assert set(of_tasks.values()) <= {1}, "a task has two children"
    ends = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCanceled)
    for run, events in runs.values():
        heard = Counter(event.task for event in events if isinstance(event, ev.ChildWorkflowClosed))
        assert set(heard.values()) <= {1}, "an end is heard twice"
        scheduled = [event for event in events if isinstance(event, ev.TaskScheduled)]
        ended = Counter(event.task for event in events if isinstance(event, ends))
        assert set(ended.values()) <= {1}
        if run.status.closed:
            assert set(ended) == {event.id for event in scheduled}
        for event in events:
            if isinstance(event, ev.ChildWorkflowStarted):
                assert of_tasks[run.ref.run_id, event.task] == 1
                assert runs[event.run_id][0].parent_task.task == event.task
        waited = {event.id for event in scheduled if event.kind is TaskKind.WORKFLOW}
        assert set(heard) <= waited
        # Where nobody waits for it any more, a child has ended, or was redriven for its own sake.
        own = run.parent_task
        if own is not None and not run.status.closed:
            assert run.redrives or own.task in runs[own.run_id][0].tasks
