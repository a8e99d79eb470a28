"""Closed executions under a retention, on the whole daemon: gone after it, not before, never while they are needed."""

from __future__ import annotations

import pytest
import trio
from cluster import simulate_cluster, until
from simulation import OWNER

from daemon.settings import DeadLetterSettings, HistorySettings, Settings
from daemon.stores.memory import MemoryStore
from daemon.supervisor import ServiceName
from enginekit.messages import calls, dead_letters
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

HOUR = 3600
DAY = 24 * HOUR
KEPT = Settings(history=HistorySettings(retention_days=30))
FORGETFUL = Settings(history=HistorySettings(retention_days=30, cache_bytes=0))
BRIEFLY = Settings(history=HistorySettings(retention_days=1 / 24))
LETTERS_TOO = Settings(history=HistorySettings(retention_days=30), dead_letters=DeadLetterSettings(retention_days=60))
ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
FAILS = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "test:flaky", "End": True}}}


def waits(days: float) -> dict[str, object]:
    return {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": round(days * DAY), "End": True}}}


def several(definition: dict[str, object], then: dict[str, object]) -> dict[str, object]:
    """A distributed Map, each item of which is an execution; and what comes after it."""
    inner = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **definition}
    return {
        "StartAt": "M",
        "States": {"M": {"Type": "Map", "ItemProcessor": inner, "Next": then["StartAt"]}, **then["States"]},
    }


async def there(daemon, *, page_size=100) -> list[str]:
    found = await daemon.call(calls.ListWorkflows(page_size=page_size), calls.ListWorkflowsResult)
    return [each.workflow_id for each in found.executions]


async def refused(awaitable) -> Refused:
    with pytest.raises(Refused) as found:
        await awaitable
    return found.value


async def rows(daemon) -> int:
    """Of executions in the store, those that others have started included."""
    return len(daemon.memory._rows.runs)


@pytest.mark.parametrize("settings", [KEPT, FORGETFUL])
def test_an_execution_is_kept_for_its_time_and_then_it_is_gone(simulate, settings):
    async def scenario(daemon):
        started = await daemon.start(ECHO, {"n": 1}, workflow_id="order-1", request_id="r-1")
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        await trio.sleep(30 * DAY)
        assert await there(daemon) == ["order-1"]
        assert len(await daemon.events(started)) > 3
        await trio.sleep(2 * HOUR)
        assert await there(daemon) == []
        for run_id in (None, started.run_id):
            describe = calls.DescribeWorkflow(workflow_id="order-1", run_id=run_id)
            assert (await refused(daemon.call(describe, calls.Result))).status is ErrorStatus.NOT_FOUND
            history = calls.GetHistory(workflow_id="order-1", run_id=run_id)
            assert (await refused(daemon.call(history, calls.Result))).status is ErrorStatus.NOT_FOUND
        for call in (
            calls.RedriveWorkflow(workflow_id="order-1"),
            calls.TerminateWorkflow(workflow_id="order-1", run_id=started.run_id, reason="", request_id="t"),
        ):
            assert (await refused(daemon.call(call, calls.Result))).status is ErrorStatus.NOT_FOUND
        again = await daemon.start(ECHO, workflow_id="order-1", request_id="r-1", reuse="reject")
        assert again.run_id != started.run_id
        assert (await daemon.closed(again)).status is ExecutionStatus.SUCCEEDED
        assert await there(daemon) == ["order-1"]

    simulate(scenario, settings=settings)


def test_nothing_is_purged_unless_a_setting_says_so(simulate, monkeypatch):
    asked = []

    async def never(*arguments):
        asked.append(arguments)

    monkeypatch.setattr(MemoryStore, "expired_runs", never)
    monkeypatch.setattr(MemoryStore, "tidy", never)

    async def scenario(daemon):
        await daemon.closed(await daemon.start(ECHO, workflow_id="order-1"))
        await trio.sleep(100 * DAY)
        assert await there(daemon) == ["order-1"]
        assert not asked

    simulate(scenario)


def test_an_open_execution_is_kept_and_so_is_one_with_a_dead_letter(simulate):
    async def scenario(daemon):
        await daemon.start(waits(100), workflow_id="open")
        failed = await daemon.start(
            {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:work", "End": True}}},
            workflow_id="failed",
        )
        polled = calls.PollTask(queue="work", worker_id="w", max_tasks=1, wait_seconds=5)
        (task,) = (await daemon.call(polled, calls.PollTaskResult)).tasks
        await daemon.call(calls.FailTask(token=task.token, error="Boom", cause="why"), calls.Acknowledged)
        assert (await daemon.closed(failed)).status is ExecutionStatus.FAILED
        await trio.sleep(59 * DAY)
        assert await there(daemon) == ["failed", "open"]
        (letter,) = (await daemon.call(dead_letters.ListDeadLetters(), dead_letters.ListDeadLettersResult)).dead_letters
        await daemon.call(dead_letters.GetDeadLetter(id=letter.id), dead_letters.GetDeadLetterResult)
        # The letter's time comes, and then its execution's has long been.
        await trio.sleep(1 * DAY + 3 * HOUR)
        assert await there(daemon) == ["open"]
        await trio.sleep(60 * DAY)
        assert await there(daemon) == ["open"]
        await trio.sleep(11 * DAY)
        assert await there(daemon) == []

    simulate(scenario, settings=LETTERS_TOO)


@pytest.mark.parametrize("settings", [KEPT, FORGETFUL])
def test_those_that_an_execution_has_started_go_when_its_time_has_come_and_before_it(simulate, settings):
    async def scenario(daemon):
        parent = await daemon.start(several(ECHO, waits(40)), [1, 2, 3], workflow_id="parent")
        await trio.sleep(39 * DAY)
        assert await rows(daemon) == 4
        assert (await daemon.closed(parent)).status is ExecutionStatus.SUCCEEDED
        await trio.sleep(29 * DAY)
        assert await rows(daemon) == 4
        seen = []
        while await rows(daemon):
            seen.append(await rows(daemon))
            await trio.sleep(HOUR)
        assert len(seen) < 48
        assert set(seen) == {4}, "children and parent go in one go"

    simulate(scenario, settings=settings)


def test_what_somebody_waits_for_goes_before_its_purging(simulate, monkeypatch):
    """A read and a redrive, of executions that a look has just found, stand at the store when it would have them
    purged: both get what they asked for, and a third one, which nobody asks for, is gone when they do."""
    looked, asked, answered = trio.Event(), trio.Event(), trio.Event()
    expired_runs, events, latest_run = MemoryStore.expired_runs, MemoryStore.events, MemoryStore.latest_run
    waiting = []

    async def looks(self, *arguments):
        page = await expired_runs(self, *arguments)
        if page.runs:
            looked.set()
            await asked.wait()
        return page

    def held_up(answer):
        async def answers(self, *arguments):
            if looked.is_set() and not answered.is_set():
                waiting.append(answer)
                if len(waiting) == 2:
                    asked.set()
                await answered.wait()
            return await answer(self, *arguments)

        return answers

    monkeypatch.setattr(MemoryStore, "expired_runs", looks)
    monkeypatch.setattr(MemoryStore, "events", held_up(events))
    monkeypatch.setattr(MemoryStore, "latest_run", held_up(latest_run))

    async def scenario(daemon):
        started = {name: await daemon.start(waits(1), workflow_id=name) for name in ("read", "redriven", "alone")}
        for each in started.values():
            await daemon.call(calls.TerminateWorkflow(workflow_id=each.workflow_id), calls.Acknowledged)
        runs = daemon.memory._rows.runs
        pages = []

        async def read():
            history = calls.GetHistory(workflow_id="read", run_id=started["read"].run_id)
            pages.append(await daemon.call(history, calls.GetHistoryResult))

        async def redrive():
            call = calls.RedriveWorkflow(workflow_id="redriven", run_id=started["redriven"].run_id)
            await daemon.call(call, calls.RedriveResult)

        await read()
        await looked.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(redrive)
            await until(lambda: started["alone"].run_id not in runs)
            assert len(runs) == 2
            answered.set()
        assert pages[1] == pages[0]
        assert pages[0].closed
        await trio.sleep(2 * HOUR)
        assert await there(daemon) == ["redriven"]
        assert (await daemon.closed(started["redriven"])).status is ExecutionStatus.SUCCEEDED
        await trio.sleep(29 * DAY)
        assert await there(daemon) == ["redriven"]
        await trio.sleep(2 * DAY)
        assert await there(daemon) == []

    simulate(scenario, settings=KEPT)


def test_pages_go_on_behind_what_has_been_purged_meanwhile(simulate):
    async def scenario(daemon):
        for number in range(6):
            await daemon.closed(await daemon.start(ECHO, workflow_id=f"order-{number}"))
            await trio.sleep(5 * DAY)
        page = await daemon.call(calls.ListWorkflows(page_size=2), calls.ListWorkflowsResult)
        assert [each.workflow_id for each in page.executions] == ["order-5", "order-4"]
        history = await daemon.call(calls.GetHistory(workflow_id="order-0", limit=2), calls.GetHistoryResult)
        assert len(history.events) == 2
        await trio.sleep(11 * DAY)
        page = await daemon.call(
            calls.ListWorkflows(page_size=2, page_token=page.next_page_token), calls.ListWorkflowsResult
        )
        assert [each.workflow_id for each in page.executions] == ["order-3"]
        assert page.next_page_token is None
        rest = calls.GetHistory(workflow_id="order-0", after_id=2)
        assert (await refused(daemon.call(rest, calls.Result))).status is ErrorStatus.NOT_FOUND

    simulate(scenario, settings=KEPT)


@pytest.mark.parametrize("after_write", [False, True])
def test_a_session_that_is_lost_while_it_purges_leaves_whole_ones_and_the_next_goes_on(simulate, after_write):
    async def scenario(daemon):
        started = [await daemon.start(ECHO, workflow_id=f"order-{number}") for number in range(20)]
        for each in started:
            await daemon.closed(each)
        await trio.sleep(30 * DAY - HOUR)
        assert len(await there(daemon)) == 20
        daemon.memory.fail_next_commit(after_write=after_write)
        await trio.sleep(3 * HOUR)
        assert await there(daemon) == []
        assert await rows(daemon) == 0
        assert (
            await daemon.closed(await daemon.start(ECHO, workflow_id="order-1"))
        ).status is ExecutionStatus.SUCCEEDED

    simulate(scenario, settings=KEPT)


@pytest.mark.parametrize("seed", range(3))
def test_two_histories_purge_each_its_own_and_one_that_died_is_made_up_for(seed):
    async def scenario(cluster):
        one, two = await cluster.everything()
        started = [await cluster.start(ECHO, f"order-{number}") for number in range(20)]
        for each in started:
            await cluster.closed(each)
        await trio.sleep(0.9 * HOUR)
        assert len(cluster.memory._rows.runs) == 20
        if seed:
            await one.kill()
        await trio.sleep(1.3 * HOUR)
        assert not cluster.memory._rows.runs
        for each in started:
            assert await cluster.memory.events(OWNER.tenant, each.run_id, 0, 10, 1000) == []
        again = await cluster.start(ECHO, "order-1")
        assert (await cluster.closed(again)).status is ExecutionStatus.SUCCEEDED
        assert (one.wire.fenced, two.wire.fenced) == (0, 0)

    simulate_cluster(scenario, seed, BRIEFLY)


def test_an_inline_definition_goes_with_the_last_execution_that_has_it_and_comes_again_with_the_next(simulate):
    async def scenario(daemon):
        async def run_once(definition, name):
            await daemon.closed(await daemon.start(definition, workflow_id=name))

        for number in range(3):
            await run_once(ECHO, f"order-{number}")
        await daemon.start(waits(50), workflow_id="open")
        await daemon.call(
            calls.RegisterWorkflow(name="kept", definition=encode(waits(1))), calls.RegisterWorkflowResult
        )
        assert len(daemon.memory._texts) == 3
        await trio.sleep(31 * DAY)
        assert len(daemon.memory._texts) == 2
        assert await there(daemon) == ["open"]
        await run_once(ECHO, "order-4")
        assert len(daemon.memory._texts) == 3
        daemon.sabotage[ServiceName.HISTORY].set()
        await trio.sleep(1)
        history = calls.GetHistory(workflow_id="order-4")
        assert (await daemon.call(history, calls.GetHistoryResult)).closed
        await trio.sleep(51 * DAY)
        assert len(daemon.memory._texts) == 1
        kept = await daemon.call(calls.StartWorkflow(workflow="kept", input=encode({})), calls.StartWorkflowResult)
        assert (await daemon.closed(kept)).status is ExecutionStatus.SUCCEEDED

    simulate(scenario, settings=KEPT)


def test_who_asks_while_it_is_being_purged_gets_what_is_so_after_it(simulate, monkeypatch):
    """Starts with the names of a run that is on its way out wait for that, and do not find it any more."""
    commit = MemoryStore.commit

    async def slowly(self, batch):
        if batch.purges:
            await trio.sleep(5)
        await commit(self, batch)

    monkeypatch.setattr(MemoryStore, "commit", slowly)

    async def scenario(daemon):
        started = await daemon.start(ECHO, workflow_id="order-1", request_id="r-1")
        await daemon.closed(started)
        purging = daemon.memory._rows.runs
        await trio.sleep(30 * DAY - 10)
        statuses = []

        async def ask(call):
            while True:
                try:
                    await daemon.call(call, calls.Result)
                except Refused as lost:
                    statuses.append(lost.status)
                    return
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, calls.TerminateWorkflow(workflow_id="order-1", run_id=started.run_id, reason=""))
            nursery.start_soon(ask, calls.RedriveWorkflow(workflow_id="order-1", run_id=started.run_id))
            run_id = started.run_id
            while run_id == started.run_id:
                again = await daemon.call(
                    calls.StartWorkflow(
                        definition=encode(ECHO), input=encode({}), workflow_id="order-1", request_id="r-1"
                    ),
                    calls.StartWorkflowResult,
                )
                run_id = again.run_id
                await trio.sleep(1)
        assert list(purging) == [run_id]
        assert len(statuses) == 2

    simulate(scenario, settings=KEPT)
