"""Matchings that share their queues: what one of them has, all of them have; what is forgotten is brought from the
store, and nothing but references, so many of each queue, is with them."""

from __future__ import annotations

import msgspec
import pytest
import trio
from simulation import OWNER
from split_daemon import Split, split

from daemon.links.interface import Caller
from daemon.settings import MatchingSettings, QueueSettings, Settings, TaskSettings, WorkerSettings
from enginekit.messages import calls
from enginekit.messages.events import TaskStarted
from enginekit.messages.json import JSON
from enginekit.messages.links import MatchTasks, MatchTasksResult, QueueKey, TaskKind
from enginekit.messages.status import ExecutionStatus

SETTINGS = Settings(
    worker=WorkerSettings(slots=8, drain_seconds=5),
    tasks=TaskSettings(lease_seconds=9.0),
    matching=MatchingSettings(partitions=2, handout_seconds=4.0),
)
FEW = msgspec.structs.replace(SETTINGS, queues=QueueSettings(queue_tasks=20))


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    monkeypatch.setattr(Split, "shared_queues", True)


def at_desk(**more: JSON) -> dict[str, JSON]:
    return {"StartAt": "W", "States": {"W": {"Type": "Task", "Resource": "activity:desk", "End": True, **more}}}


async def poll(daemon: Split, tasks: int = 1, seconds: float = 0, worker: str = "clerk") -> list[calls.WorkerTask]:
    call = calls.PollTask(queue="desk", worker_id=worker, max_tasks=tasks, wait_seconds=seconds)
    return (await daemon.call(call, calls.PollTaskResult)).tasks


async def complete(daemon: Split, task: calls.WorkerTask) -> None:
    await daemon.call(calls.CompleteTask(token=task.token, output=msgspec.Raw(b"{}")), calls.Acknowledged)


async def queue(daemon: Split) -> calls.QueueView:
    (view,) = (await daemon.call(calls.ListQueues(), calls.ListQueuesResult)).queues
    return view


async def work_through(daemon: Split, tasks: int) -> list[str]:
    """One worker, one task after the other; whose they are."""
    done: list[str] = []
    while len(done) < tasks:
        for task in await poll(daemon, seconds=30):
            await complete(daemon, task)
            done.append(task.workflow_id)
    return done


def test_a_poll_is_answered_at_once_whoever_has_it(tmp_path):
    async def scenario(daemon: Split):
        for _ in range(4):
            await daemon.matching()
        took: list[float] = []

        async def wait() -> None:
            (task,) = await poll(daemon, seconds=30)
            took.append(trio.current_time())
            await complete(daemon, task)

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(wait)
            await trio.sleep(1)
            assert not took
            view = await queue(daemon)
            assert (view.pollers, view.depth) == (12, 0), "all of them taken together"
            began = trio.current_time()
            for _ in range(12):
                await daemon.start(at_desk())
        assert max(took) - began < 0.01
        await trio.sleep(2)
        view = await queue(daemon)
        assert (view.pollers, view.depth, view.dispatched) == (0, 0, 12)

    split(scenario, tmp_path, SETTINGS, {})


def test_a_matching_that_is_killed_leaves_no_gap(tmp_path):
    async def scenario(daemon: Split):
        first = await daemon.matching()
        names = [(await daemon.start(at_desk(Priority=number % 3))).workflow_id for number in range(30)]
        await trio.sleep(1)
        await daemon.matching()
        await first.kill()
        began = trio.current_time()
        reads = daemon.memory.waiting_tasks
        daemon.memory.waiting_tasks = None  # Nothing is brought from the store.
        in_order = [name for _, name in sorted(enumerate(names), key=lambda each: (-(each[0] % 3), each[0]))]
        assert await work_through(daemon, 30) == in_order
        assert trio.current_time() - began < 1
        daemon.memory.waiting_tasks = reads

    split(scenario, tmp_path, SETTINGS, {})


def test_what_a_matching_had_claimed_comes_back_when_its_lease_lapses(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        await daemon.matching()
        started = await daemon.start(at_desk())
        await trio.sleep(1)
        # Claimed for a poll whose start nobody records.
        call = MatchTasks(
            queue=QueueKey(OWNER.tenant, TaskKind.ACTIVITY, "desk"), worker_id="lost", max_tasks=1, wait_seconds=0
        )
        lost = await daemon.links.matching.request(Caller(OWNER.tenant, "lost"), call, MatchTasksResult, 5.0)
        assert len(lost.tasks) == 1
        assert await poll(daemon) == []
        (task,) = await poll(daemon, seconds=20)
        assert 3 < trio.current_time() - 1 < 6
        await complete(daemon, task)
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED

    split(scenario, tmp_path, SETTINGS, {})


def test_what_is_forgotten_is_brought_from_the_store(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        await daemon.matching()
        names = [(await daemon.start(at_desk(Priority=number % 2))).workflow_id for number in range(40)]
        await trio.sleep(1)
        daemon.queues.clear()
        began = trio.current_time()
        done = await work_through(daemon, 40)
        assert done == [*names[1::2], *names[0::2]]
        assert trio.current_time() - began < 1, "with the first turn"

    split(scenario, tmp_path, SETTINGS, {})


def test_no_more_than_so_many_of_a_queue_are_with_them(tmp_path):
    async def scenario(daemon: Split):
        for _ in range(3):
            await daemon.matching()
        started = [await daemon.start(at_desk(Priority=1 if number == 149 else 0)) for number in range(150)]
        names = [each.workflow_id for each in started]
        await trio.sleep(1)
        assert (await queue(daemon)).depth == 20
        done = []
        for _ in range(150):
            (task,) = await poll(daemon, seconds=30)
            done.append(task.workflow_id)
            await complete(daemon, task)
            assert (await queue(daemon)).depth <= 20
        assert sorted(done) == sorted(names)
        assert done.index(names[149]) <= 20, "seen when the queue is filled for the first time"
        rest = [name for name in done if name != names[149]]
        assert rest == names[:149]
        assert trio.current_time() < 10
        for each in started:
            assert sum(isinstance(event, TaskStarted) for event in await daemon.events(each)) == 1

    split(scenario, tmp_path, FEW, {})


def test_a_task_that_is_canceled_is_not_given_out(tmp_path):
    async def scenario(daemon: Split):
        for _ in range(2):
            await daemon.matching()
        kept, canceled = await daemon.start(at_desk()), await daemon.start(at_desk(Priority=5))
        late = await daemon.start(at_desk(ScheduleToStartSeconds=3, Retry=[]))
        await trio.sleep(0.5)
        await daemon.call(calls.CancelWorkflow(workflow_id=canceled.workflow_id, request_id="c"), calls.Acknowledged)
        await trio.sleep(4)
        assert (await daemon.closed(late)).status is ExecutionStatus.FAILED
        assert (await queue(daemon)).depth == 1
        (task,) = await poll(daemon, tasks=10)
        assert task.workflow_id == kept.workflow_id

    split(scenario, tmp_path, SETTINGS, {})
