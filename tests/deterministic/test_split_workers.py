"""Workers in other processes and queues in partitions: what runs them, what becomes of it when one of them is gone."""

from __future__ import annotations

from collections import Counter

import trio
from split_daemon import Split, split

from daemon.settings import MatchingSettings, Settings, TaskSettings, WorkerSettings
from enginekit.messages import events as ev
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus
from enginekit.node import NodeCall, NodeFailure

SETTINGS = Settings(
    worker=WorkerSettings(slots=8, drain_seconds=5),
    tasks=TaskSettings(lease_seconds=9.0, returns=3),
    matching=MatchingSettings(partitions=4, lease_seconds=4.0),
)

NONE: JSON = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]


class Desk:
    """A node that takes as long as its input says, and notes who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.canceled: list[str] = []
        self.sick = False

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, dict)
        seconds = call.input.get("seconds", 0)
        assert isinstance(seconds, int | float)
        self.asked.append(call.workflow_id)
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.canceled.append(call.workflow_id)
            raise
        if self.sick:
            raise NodeFailure("States.Http.StatusCode.503", "so it is", unhealthy=True)
        return {"by": call.workflow_id}


def one(resource: str = "echo", **more: JSON) -> dict[str, JSON]:
    return {"StartAt": "Work", "States": {"Work": {"Type": "Task", "Resource": resource, "End": True, **more}}}


def line(length: int) -> dict[str, JSON]:
    states: dict[str, JSON] = {
        f"S{number}": {"Type": "Task", "Resource": "echo", "Next": f"S{number + 1}"} for number in range(1, length)
    }
    states[f"S{length}"] = {"Type": "Task", "Resource": "echo", "End": True}
    return {"StartAt": "S1", "States": states}


def started_by(history: list[ev.AnyEvent]) -> list[str]:
    return [event.worker for event in history if isinstance(event, ev.TaskStarted)]


def once_each(history: list[ev.AnyEvent]) -> None:
    """Every attempt has one end."""
    ended = Counter(event.task for event in history if isinstance(event, ev.TaskCompleted | ev.TaskFailed))
    assert set(ended.values()) <= {1}
    assert [event.id for event in history] == list(range(1, len(history) + 1))


def test_what_is_to_be_run_is_run_by_whoever_is_there(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        for _ in range(2):
            await daemon.matching()
        names = {(await daemon.worker()).worker_id for _ in range(3)}
        started = [await daemon.start(line(5)) for _ in range(40)]
        seen = set()
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            once_each(history)
            assert [e.lease_seconds for e in history if isinstance(e, ev.TaskStarted)] == [9.0] * 5
            seen.update(started_by(history))
        assert seen == names, "all of them"
        assert trio.current_time() < 5

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_what_a_worker_had_when_it_was_killed_is_run_by_another(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        first = await daemon.worker()
        started = [await daemon.start(one(), {"seconds": 60}) for _ in range(5)]
        await trio.sleep(1)
        assert len(desk.asked) == 5
        await first.kill()
        second = await daemon.worker()
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            once_each(history)
            assert started_by(history) == [first.worker_id, second.worker_id]
            (returned,) = [e for e in history if isinstance(e, ev.TaskReturned)]
            assert (returned.times, first.worker_id in returned.reason) == (1, True)
        assert trio.current_time() < 1 + 9 + 60 + 6

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_long_tasks_keep_their_leases(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        worker = await daemon.worker()
        started = await daemon.start(one(), {"seconds": 200})
        await daemon.closed(started)
        assert started_by(await daemon.events(started)) == [worker.worker_id]
        assert desk.asked == [started.workflow_id]

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_a_bounded_number_of_workers_is_lost_by_one_attempt(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        started = await daemon.start(one(Retry=NONE), {"seconds": 1000})
        for _ in range(4):
            worker = await daemon.worker()
            await trio.sleep(8)
            await worker.kill()
            await trio.sleep(11)
        closed = await daemon.closed(started)
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "Engine.WorkerLost")
        assert [e.times for e in await daemon.events(started) if isinstance(e, ev.TaskReturned)] == [1, 2, 3]

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})
