"""What History answers a Worker in another process: starts, renewals, and nothing before it is on disk."""

from __future__ import annotations

import pytest
import trio
from slow_store import Gate
from split_daemon import Split, split

from daemon.links.interface import Caller
from daemon.settings import Settings, TaskSettings
from daemon.supervisor import ServiceName
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, encode
from enginekit.messages.links import (
    CancelTasks,
    GiveBackTasks,
    OutcomesRecorded,
    RenewTasks,
    RetireTasks,
    RunRef,
    StartNodes,
    StartNodesResult,
    StartTasks,
    TaskOutcome,
    TaskRef,
    ToWorker,
)
from enginekit.messages.status import Refused

SETTINGS = Settings(tasks=TaskSettings(lease_seconds=9.0, returns=3))
ONE: dict[str, JSON] = {"StartAt": "Work", "States": {"Work": {"Type": "Task", "Resource": "echo", "End": True}}}


async def waiting(daemon: Split, number: int, data: JSON = None) -> list[TaskRef]:
    """Tasks of as many executions, which nobody takes."""
    refs = []
    for _ in range(number):
        begun = await daemon.start(ONE, data)
        history = await daemon.events(begun)
        (task,) = [event.id for event in history if isinstance(event, ev.TaskScheduled)]
        refs.append(TaskRef(RunRef("acme", begun.workflow_id, begun.run_id), task))
    return refs


async def ask(daemon: Split, tasks: list[TaskRef], worker_id: str = "w-1") -> StartNodesResult:
    call = StartNodes(tasks=tasks, worker_id=worker_id)
    return await daemon.exchange.inbox.request(Caller("", worker_id), call, StartNodesResult, 10)


async def told(daemon: Split, worker_id: str = "w-1") -> list[ToWorker]:
    found: list[ToWorker] = []
    with trio.move_on_after(0.1):
        found += [m for m in await daemon.exchange.worker(worker_id).receive() if isinstance(m, ToWorker)]
    return found


async def history(daemon: Split, ref: TaskRef) -> list[str]:
    begun = calls.StartWorkflowResult(workflow_id=ref.run.workflow_id, run_id=ref.run.run_id)
    return [type(event).__name__ for event in await daemon.events(begun)]


def test_a_task_is_started_by_one_worker_which_is_given_it_again_when_it_asks_again(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 3)
        first = await ask(daemon, refs[:2])
        assert [(node.spec.task, node.returns, node.lease_seconds) for node in first.tasks] == [
            (ref, 0, 9.0) for ref in refs[:2]
        ]
        assert (await ask(daemon, refs, "w-2")).tasks == (await ask(daemon, refs[2:], "w-2")).tasks
        assert await ask(daemon, refs) == first, "its answer may have been lost"
        for ref in refs:
            assert (await history(daemon, ref)).count("TaskStarted") == 1
        await daemon.call(calls.CancelWorkflow(workflow_id=refs[0].run.workflow_id), calls.Acknowledged)
        gone = TaskRef(RunRef("acme", "nobody", "0198c0de-0000-7000-8000-000000000000"), 3)
        assert [node.spec.task for node in (await ask(daemon, [gone, *refs])).tasks] == refs[1:2]

    split(scenario, tmp_path, SETTINGS, {})


def test_an_answer_is_bounded_and_says_what_is_left(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 15, {"text": "x" * 200_000})
        found, left, answers = [], refs, 0
        while left:
            answer = await ask(daemon, left)
            assert sum(len(bytes(node.spec.input)) for node in answer.tasks) <= 2 * 1024 * 1024
            found += [node.spec.task for node in answer.tasks]
            left, answers = answer.rest, answers + 1
        assert (sorted(found, key=str), answers) == (sorted(refs, key=str), 2)

    split(scenario, tmp_path, SETTINGS, {})


def test_a_start_is_on_disk_before_it_is_answered_and_a_cancellation_before_it_is_told(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 2)
        gate = Gate(daemon.memory)
        answers: list[StartNodesResult] = []

        async def start() -> None:
            answers.append(await ask(daemon, refs))

        async def cancel() -> None:
            call = calls.CancelWorkflow(workflow_id=refs[0].run.workflow_id)
            await daemon.call(call, calls.Acknowledged)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await gate.waiting.wait()
            await trio.sleep(1)
            assert answers == []
            gate.open()
        assert [node.spec.task for node in answers[0].tasks] == refs
        gate = Gate(daemon.memory)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await gate.waiting.wait()
            # It is over, but for the disk: nobody may be told that it is.
            assert daemon.exchange.inbox.offer(RenewTasks("w-1", refs))
            assert await told(daemon) == []
            gate.open()
        canceled = [ref for m in await told(daemon) if isinstance(m, CancelTasks) for ref in m.tasks]
        assert set(canceled) == {refs[0]}

    split(scenario, tmp_path, SETTINGS, {})


def test_a_renewal_of_what_is_not_its_own_is_answered_and_changes_nothing(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 2)
        await ask(daemon, refs[:1])
        for _ in range(5):
            await trio.sleep(6)
            assert daemon.exchange.inbox.offer(RenewTasks("w-1", refs[:1]))
            assert daemon.exchange.inbox.offer(RenewTasks("w-2", refs))
            assert await told(daemon) == []
            assert [m.tasks for m in await told(daemon, "w-2") if isinstance(m, CancelTasks)] == [[ref] for ref in refs]
        assert (await history(daemon, refs[0]))[-1] == "TaskStarted"
        assert daemon.exchange.inbox.offer(GiveBackTasks("w-2", refs, "not mine"))
        await trio.sleep(1)
        assert (await history(daemon, refs[0]))[-1] == "TaskStarted"
        assert daemon.exchange.inbox.offer(GiveBackTasks("w-1", refs, "enough"))
        await trio.sleep(1)
        assert (await history(daemon, refs[0]))[-1] == "TaskReturned"
        assert (await history(daemon, refs[1]))[-1] == "TaskScheduled"
        again = await ask(daemon, refs[:1], "w-3")
        assert [node.returns for node in again.tasks] == [1]

    split(scenario, tmp_path, SETTINGS, {})


def test_a_history_whose_own_lease_has_lapsed_tells_workers_nothing(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 1)
        await ask(daemon, refs)
        outcome = TaskOutcome(refs[0], "w-2", encode(1), returns=0)
        messages = [RenewTasks("w-2", refs), outcome]
        assert daemon._condition.history is not None
        (session,) = daemon._condition.history._sessions
        for holds in (True, False):
            if not holds:
                session.lease.end()
            for message in messages:
                assert daemon.exchange.inbox.offer(message)
            answers = await told(daemon, "w-2")
            assert answers == ([CancelTasks("w-2", refs), OutcomesRecorded("w-2", refs)] if holds else [])

    split(scenario, tmp_path, SETTINGS, {})


def test_matching_is_not_told_to_forget_a_task_by_a_history_whose_lease_has_lapsed(tmp_path):
    async def scenario(daemon: Split):
        (session,) = daemon._condition.history._sessions
        told_of: list[object] = []
        put = session.matching.put

        def heard(message: object) -> None:
            told_of.append(message)
            put(message)

        session.matching.put = heard
        gone = TaskRef(RunRef("acme", "nobody", "0198c0de-0000-7000-8000-000000000000"), 3)
        asked = [
            (StartNodes(tasks=[gone], worker_id="w-1"), StartNodesResult),
            (StartTasks(tasks=[gone], worker_id="w-1"), calls.PollTaskResult),
        ]
        for call, result in asked:
            await daemon.exchange.inbox.request(Caller("acme", "w-1"), call, result, 10)
            assert told_of == [RetireTasks([gone])]
            told_of.clear()
        session.lease.end()
        for call, result in asked:
            with pytest.raises(Refused, match="may have gone to another History"):
                await daemon.exchange.inbox.request(Caller("acme", "w-1"), call, result, 10)
        assert told_of == []

    split(scenario, tmp_path, SETTINGS, {})


def test_leases_begin_anew_when_history_starts_again(tmp_path):
    async def scenario(daemon: Split):
        refs = await waiting(daemon, 1)
        await ask(daemon, refs)
        await trio.sleep(8)
        daemon.sabotage[ServiceName.HISTORY].set()
        await trio.sleep(6)
        assert (await history(daemon, refs[0]))[-1] == "TaskStarted"
        await trio.sleep(6)
        assert (await history(daemon, refs[0]))[-1] == "TaskReturned"

    split(scenario, tmp_path, SETTINGS, {})
