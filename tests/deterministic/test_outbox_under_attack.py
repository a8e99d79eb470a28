"""Effects about children and parents, delivered late, in bulk, and about runs that have gone on meanwhile."""

from __future__ import annotations

import pytest
import trio
from slow_store import Gate, as_other

from daemon.journal.session import Session
from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

NOTHING_KEPT = Settings(history=HistorySettings(cache_bytes=0))
ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
WORK = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:work", "End": True}}}


def parent(**more):
    return {"StartAt": "P", "States": {"P": {"Type": "Task", "Resource": "workflow:child", "End": True, **more}}}


def spread(name="E", **more):
    machine = {"StartAt": name, "States": {name: ECHO["States"]["E"]}}
    processor = {**machine, "ProcessorConfig": {"Mode": "DISTRIBUTED"}}
    return {"Type": "Map", "ItemProcessor": processor, "ItemsPath": "$.items", "End": True, **more}


async def register(daemon, definition, name="child"):
    call = calls.RegisterWorkflow(name=name, definition=encode(definition))
    await daemon.call(call, calls.RegisterWorkflowResult)


async def children(daemon, started):
    call = calls.ListWorkflows(parent=started.run_id, page_size=1000)
    return (await daemon.call(call, calls.ListWorkflowsResult)).executions


async def take(daemon, error=None, output=None):
    poll = calls.PollTask(queue="work", worker_id="w", max_tasks=1, wait_seconds=30)
    (task,) = (await daemon.call(poll, calls.PollTaskResult)).tasks
    report = (
        calls.CompleteTask(token=task.token, output=encode(output))
        if error is None
        else calls.FailTask(token=task.token, error=error, cause="why")
    )
    await daemon.call(report, calls.Acknowledged)


async def insist(daemon, call, result):
    while True:
        try:
            return await daemon.call(call, result)
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise
            await trio.sleep(0.1)


def slow_checks(daemon, seconds=1.0, slow=lambda tenant: True):
    """Looking for what a start asks takes its time."""
    real = daemon.memory.start_check

    async def slowly(tenant, *arguments):
        if slow(tenant):
            await trio.sleep(seconds)
        return await real(tenant, *arguments)

    daemon.memory.start_check = slowly


def test_children_are_started_beside_one_another(simulate):
    async def scenario(daemon):
        await register(daemon, ECHO)
        fan = {"Type": "Map", "ItemProcessor": parent(), "End": True}
        slow_checks(daemon)
        at = trio.current_time()
        started = await daemon.start({"StartAt": "M", "States": {"M": fan}}, list(range(32)))
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        return trio.current_time() - at

    assert simulate(scenario) < 10


def test_one_tenants_children_do_not_hold_up_anothers(simulate):
    async def scenario(daemon):
        await register(daemon, ECHO)
        call = calls.RegisterWorkflow(name="child", definition=encode(ECHO))
        await as_other(daemon, call, calls.RegisterWorkflowResult)
        processor = {**parent(), "ProcessorConfig": {"Mode": "DISTRIBUTED"}}
        many = {"StartAt": "M", "States": {"M": {**spread(), "ItemProcessor": processor}}}
        slow_checks(daemon, slow=lambda tenant: tenant == "acme")
        started = await daemon.start(many, {"items": list(range(600))})
        await trio.sleep(1.5)
        at = trio.current_time()
        call = calls.StartWorkflow(definition=encode(parent()))
        other = await as_other(daemon, call, calls.StartWorkflowResult)
        wait = calls.WaitWorkflow(workflow_id=other.workflow_id, run_id=other.run_id, wait_seconds=3600)
        assert (await as_other(daemon, wait, calls.DescribeWorkflowResult)).status is ExecutionStatus.SUCCEEDED
        waited = trio.current_time() - at
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        return waited

    assert simulate(scenario) < 5


@pytest.mark.parametrize("settings", [Settings(), NOTHING_KEPT])
def test_a_child_that_is_redriven_before_its_parent_has_heard_of_its_end(simulate, settings):
    """The parent goes on waiting, and is told how the child ended at last."""

    async def scenario(daemon):
        await register(daemon, WORK)
        started = await daemon.start(parent(), {"n": 1})
        await trio.sleep(1)
        (child,) = await children(daemon, started)
        # The notice is held up by reading the parent back, as it may be by any number of others before it.
        real, held = daemon.memory.load_runs, trio.Event()

        async def slowly(runs, *how):
            if started.run_id in {run.run_id for run in runs}:
                await held.wait()
            return await real(runs, *how)

        daemon.memory.load_runs = slowly
        await take(daemon, error="Boom")
        call = calls.RedriveWorkflow(workflow_id=child.workflow_id, run_id=child.run_id)
        await daemon.call(call, calls.RedriveResult)
        daemon.memory.fail_next_commit(after_write=True)
        with pytest.raises(Refused):
            await daemon.start(ECHO)
        held.set()
        await trio.sleep(5)
        assert daemon.supervisor.views()[1].restarts == 0
        await insist(daemon, calls.ListWorkflows(), calls.ListWorkflowsResult)
        await take(daemon, output="late")
        closed = await daemon.closed(started)
        await trio.sleep(5)
        assert await daemon.memory.effects(10) == []
        return closed.status

    assert simulate(scenario, settings=settings) in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED)


def test_a_step_that_closes_a_child_leaves_nothing_else_to_do(simulate):
    """One Map of a child wants more items in the very step in which the other fails it."""
    readable = {"StartAt": "M", "States": {"M": spread()}}
    seventh = {"x.$": "$[7].name"}
    fails = {"StartAt": "N", "States": {"N": spread("F", ItemsPath="$.none", ResultSelector=seventh)}}
    both = {
        "StartAt": "B",
        "States": {"B": {"Type": "Parallel", "Branches": [readable, fails], "End": True}},
    }

    async def scenario(daemon):
        await register(daemon, both)
        started = await daemon.start(parent(), {"items": list(range(500)), "none": []})
        closed = await daemon.closed(started)
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "States.Runtime")
        await trio.sleep(5)
        assert await daemon.memory.effects(10) == []

    simulate(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_a_redrive_of_a_run_that_is_forgotten_at_once(simulate, seed, monkeypatch):
    """While it is decided and written, others ask for the same run and have it read back; there is one state of it."""
    act = Session.act

    def in_memory(session, live, *arguments):
        assert session.runs.get(live.run.ref.run_id) is live
        return act(session, live, *arguments)

    monkeypatch.setattr(Session, "act", in_memory)

    async def scenario(daemon):
        started = await daemon.start(WORK, workflow_id="order")
        await take(daemon, error="Boom")
        gate = Gate(daemon.memory)
        gate.open()
        answers = []

        async def look():
            for _ in range(30):
                call = calls.DescribeWorkflow(workflow_id="order", run_id=started.run_id)
                await daemon.call(call, calls.DescribeWorkflowResult)

        async def redrive(number):
            call = calls.RedriveWorkflow(workflow_id="order", run_id=started.run_id, request_id=f"r{number}")
            try:
                answers.append(await daemon.call(call, calls.RedriveResult))
            except Refused as refused:
                assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017
                answers.append(refused)

        async def signal():
            for number in range(10):
                call = calls.SignalWorkflow(workflow_id="order", run_id=started.run_id, name="go", input=encode(number))
                try:
                    await daemon.call(call, calls.Acknowledged)
                except Refused as refused:
                    assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(redrive, 1)
            nursery.start_soon(look)
            nursery.start_soon(redrive, 2)
            nursery.start_soon(signal)
            nursery.start_soon(look)
        assert sum(isinstance(each, calls.RedriveResult) for each in answers) == 1
        await take(daemon, output=1)
        assert decode((await daemon.closed(started)).output) == 1
        events = await daemon.events(started)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert sum(isinstance(event, ev.WorkflowRedriven) for event in events) == 1

    simulate(scenario, seed=seed, settings=NOTHING_KEPT)


@pytest.mark.parametrize("settings", [Settings(), NOTHING_KEPT])
@pytest.mark.parametrize("seed", range(4))
def test_a_redrive_and_a_start_of_the_same_id_do_not_both_win(simulate, settings, seed):
    async def scenario(daemon):
        first = await daemon.start(WORK, workflow_id="order")
        await take(daemon, error="Boom")
        won = []

        async def redrive():
            try:
                call = calls.RedriveWorkflow(workflow_id="order", run_id=first.run_id)
                won.append(await daemon.call(call, calls.RedriveResult))
            except Refused as refused:
                assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017

        async def start():
            try:
                won.append(await daemon.start(WORK, workflow_id="order"))
            except Refused as refused:
                assert refused.status is ErrorStatus.ALREADY_EXISTS  # noqa: PT017

        async with trio.open_nursery() as nursery:
            for act in (redrive, start, redrive, start):
                nursery.start_soon(act)
        assert len(won) == 1
        listed = (await daemon.call(calls.ListWorkflows(), calls.ListWorkflowsResult)).executions
        assert [each.status for each in listed].count(ExecutionStatus.RUNNING) == 1

    simulate(scenario, seed=seed, settings=settings)
