"""What History holds and hands out stays in proportion, whatever is asked of it."""

from __future__ import annotations

import gc

import pytest
import trio
from slow_store import Gate

from daemon.journal.outbox import Outbox
from daemon.journal.session import Session
from daemon.links.memory import MemoryLink
from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.json import size
from enginekit.messages.status import Refused

ACT = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:a", "End": True}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}}
LOOP = {"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Pass", "Next": "A"}}}
POLL = calls.PollTask(queue="a", worker_id="w", wait_seconds=5, max_tasks=60)


def session_of(daemon) -> Session:
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is Session][-1]


def test_no_more_is_decided_than_a_store_that_is_slow_has_room_for(simulate):
    async def scenario(daemon):
        session = session_of(daemon)
        Gate(daemon.memory)

        async def start():
            with pytest.raises(Refused):
                await daemon.start(WAIT, "x" * 200_000)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                for _ in range(50):
                    nursery.start_soon(start)
                await trio.sleep(1)
            gathering = session.committer.gathering
            held = sum(len(event) for write in gathering.writes.values() for event in write.events)
            assert 0 < held < 2 * Settings().history.batch_bytes
            nursery.cancel_scope.cancel()

    simulate(scenario)


def test_a_poll_hands_out_a_bounded_number_of_bytes_and_the_rest_stays_queued(simulate):
    async def scenario(daemon):
        for _ in range(30):
            await daemon.start(ACT, "x" * 200_000)
        got = []
        while len(got) < 30:
            tasks = (await daemon.call(POLL, calls.PollTaskResult)).tasks
            assert 0 < sum(size(task.input) for task in tasks) <= 2 * 1024 * 1024
            got += [task.run_id for task in tasks]
        assert len(set(got)) == 30

    simulate(scenario)


def test_waits_that_were_answered_are_forgotten(simulate):
    async def scenario(daemon):
        short = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": True}}}
        for _ in range(50):
            await daemon.closed(await daemon.start(short))
        assert len(session_of(daemon).waiters._deadlines) < 12

    simulate(scenario)


def test_waits_that_were_abandoned_give_their_places_back(simulate):
    async def scenario(daemon):
        started = await daemon.start(WAIT)
        about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
        for _ in range(5):
            with trio.move_on_after(1):
                await daemon.call(calls.WaitWorkflow(**about, wait_seconds=900), calls.DescribeWorkflowResult)
        await daemon.call(calls.WaitWorkflow(**about, wait_seconds=1), calls.DescribeWorkflowResult)

    simulate(scenario, settings=Settings(history=HistorySettings(waiters=5)))


def test_heartbeats_of_tasks_that_are_over_are_forgotten(simulate):
    async def scenario(daemon):
        again = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:a", "Next": "A"}}}
        started = await daemon.start(again)
        for _ in range(20):
            token = (await daemon.call(POLL, calls.PollTaskResult)).tasks[0].token
            await daemon.call(calls.HeartbeatTask(token=token), calls.HeartbeatTaskResult)
            await daemon.call(calls.CompleteTask(token=token), calls.Acknowledged)
        assert len(session_of(daemon).pulses[started.run_id].beats) < 2

    simulate(scenario)


def test_a_page_of_small_events_reads_a_bounded_number_of_the_payloads_they_refer_to(simulate):
    retried = {
        "Type": "Task",
        "Resource": "test:flaky",
        "Parameters": {"failures": 1, "seconds": 1, "x.$": "$.x", "n.$": "$.n"},
        "Retry": [{"ErrorEquals": ["Flaky"]}],
        "ResultSelector": {},
        "End": True,
    }
    wide = {
        "Type": "Map",
        "ItemsPath": "$.items",
        "ItemSelector": {"x.$": "$.x", "n.$": "$$.Map.Item.Index"},
        "ItemProcessor": {"StartAt": "T", "States": {"T": retried}},
        "End": True,
    }

    async def scenario(daemon):
        data = {"items": list(range(40)), "x": "y" * 100_000}
        started = await daemon.start({"StartAt": "M", "States": {"M": wide}}, data)
        closed = await daemon.closed(started)
        read = [0]
        real = daemon.memory.events_by_id

        async def counting(*arguments):
            found = await real(*arguments)
            read[0] = max(read[0], sum(map(len, found)))
            return found

        daemon.memory.events_by_id = counting
        assert len(await daemon.events(started)) == closed.history_length
        assert 0 < read[0] < 2 * Settings().history.page_bytes

    simulate(scenario)


def test_a_description_lists_a_bounded_number_of_nodes(simulate):
    def fan(name, states):
        return {"StartAt": name, "States": {name: {"Type": "Map", "ItemProcessor": states, "End": True}}}

    async def scenario(daemon):
        started = await daemon.start(fan("M", fan("N", WAIT)), [list(range(30))] * 30)
        await trio.sleep(100)
        view = await daemon.call(calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult)
        assert len(view.nodes) == 500
        assert view.nodes_total == 1 + 30 + 900

    simulate(scenario)


def test_runs_that_never_rest_go_on_after_one_of_them_was_set_aside(simulate, monkeypatch):
    from daemon.execution import nodes

    real = nodes._enter
    bad: list[str] = []

    def enter(step, branch):
        if step.run.ref.run_id in bad and step.run.last_event_id > 2000:
            raise RuntimeError("injected")
        real(step, branch)

    monkeypatch.setattr(nodes, "_enter", enter)

    async def scenario(daemon):
        commit = daemon.memory.commit

        async def timed(batch):
            await trio.sleep(0.01)
            await commit(batch)

        daemon.memory.commit = timed
        bad.append((await daemon.start(LOOP)).run_id)
        good = await daemon.start(LOOP)
        await trio.sleep(10)
        before = len(await daemon.memory.events("acme", good.run_id, 0, 100_000, 2**30))
        await trio.sleep(10)
        assert len(await daemon.memory.events("acme", good.run_id, 0, 100_000, 2**30)) > before

    simulate(scenario)


async def test_a_receiver_that_lost_messages_is_told_to_look_into_the_store(monkeypatch, autojump_clock):
    monkeypatch.setattr("daemon.journal.outbox.OUTBOX_MESSAGES", 5)
    link = MemoryLink("matching", 1)
    outbox = Outbox(link, "resync")
    got = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        for number in range(4):
            outbox.put(number)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(4, 8):
            outbox.put(number)
        while not got or got[-1] != "resync":
            with trio.fail_after(1):
                got += await link.receive()
        nursery.cancel_scope.cancel()
    assert got[:-1] == sorted(got[:-1])
