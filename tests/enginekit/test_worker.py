"""The worker kit against a scripted engine that hands out tasks and listens."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from scripted_engine import HangUp, ScriptedEngine, answers, scripted_engine

from enginekit.activity import Activity
from enginekit.client import open_client
from enginekit.messages import calls
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.methods import Caller
from enginekit.worker import Activities, ActivityError, TaskContext, Worker

DONE = calls.Acknowledged()
BEATING = calls.HeartbeatTaskResult(cancel_requested=False)
CLOSED = Refused(ErrorStatus.FAILED_PRECONDITION, "over", {"reason": "CLOSED"})


class Tasks:
    """What the engine hands out, and what became of it."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[calls.WorkerTask]] = {}
        self.reports: dict[str, tuple[str, object]] = {}
        self.asked: list[tuple[str, int, float]] = []
        self.stopped = False
        self.ends_polls = True
        self._changed = trio.Event()

    def add(self, queue: str, token: str, value: JSON = None, **more: Any) -> None:
        task = calls.WorkerTask(
            **{
                "token": token,
                "workflow_id": "w",
                "run_id": "r",
                "node": "Step",
                "path": "Step",
                "input": encode(value),
                "attempt": 2,
                "timeout_seconds": 60.0,
                "idempotency_key": f"key-{token}",
                "lease_seconds": 30.0,
            }
            | more
        )
        self.waiting.setdefault(queue, []).append(task)
        self._note()

    async def poll(self, params: dict[str, Any]) -> object:
        queue, most, wait = params["queue"], params.get("max_tasks", 1), params.get("wait_seconds", 30.0)
        self.asked.append((queue, most, wait))
        self._note()
        while not self.waiting.get(queue) and wait and not self.stopped:
            await self._changed.wait()
        tasks = self.waiting.get(queue, [])
        given, self.waiting[queue] = tasks[:most], tasks[most:]
        return calls.PollTaskResult(tasks=given)

    async def stop_polls(self, params: dict[str, Any]) -> object:
        if not self.ends_polls:
            raise Refused(ErrorStatus.INVALID_ARGUMENT, "there is no method 'StopPolls'")
        self.stopped = True
        self._note()
        return calls.StopPollsResult(stopped=1)

    def report(self, token: str, kind: str, value: object = None) -> None:
        self.reports.setdefault(token, (kind, value))
        self._note()

    async def complete(self, params: dict[str, Any]) -> object:
        self.report(params["token"], "done", params.get("output"))
        return DONE

    async def fail(self, params: dict[str, Any]) -> object:
        self.report(params["token"], params["error"], params.get("cause", ""))
        return DONE

    async def give_back(self, params: dict[str, Any]) -> object:
        self.report(params["token"], "returned")
        return DONE

    async def many(self, params: dict[str, Any]) -> object:
        for task in params["tasks"]:
            await (self.fail(task) if "error" in task else self.complete(task))
        return calls.CompleteTasksResult(results=[calls.CompletionResult() for _ in params["tasks"]])

    async def reported(self, *tokens: str) -> None:
        while not all(token in self.reports for token in tokens):
            await self._changed.wait()

    async def polled(self, times: int) -> None:
        while len(self.asked) < times:
            await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def working(
    activities: Mapping[str, Activity], tasks: Tasks, *, heartbeat: Any = None, complete: Any = None, **options: Any
) -> AsyncIterator[tuple[Worker, ScriptedEngine]]:
    async with (
        scripted_engine(
            PollTask=tasks.poll,
            StopPolls=tasks.stop_polls,
            CompleteTask=complete or tasks.complete,
            CompleteTasks=tasks.many,
            FailTask=tasks.fail,
            ReturnTask=tasks.give_back,
            HeartbeatTask=heartbeat or answers(BEATING),
        ) as engine,
        open_client(engine.url, "tok") as client,
        trio.open_nursery() as nursery,
    ):
        worker = Worker(client, activities, **options)
        await nursery.start(worker.run)
        yield worker, engine
        worker.stop()


async def double(value: JSON) -> JSON:
    assert isinstance(value, int)
    return value * 2


async def test_async_and_sync_functions_run_and_their_results_are_reported() -> None:
    threads: list[bool] = []

    def sync(value: JSON) -> JSON:
        threads.append(threading.current_thread() is threading.main_thread())
        return {"seen": value}

    tasks = Tasks()
    tasks.add("a", "t1", 21)
    tasks.add("s", "t2", "x")
    async with working({"a": double, "s": sync}, tasks):
        await tasks.reported("t1", "t2")
    assert tasks.reports == {"t1": ("done", 42), "t2": ("done", {"seen": "x"})}
    assert threads == [False]


async def test_a_function_that_takes_two_gets_its_task() -> None:
    seen: list[TaskContext] = []

    async def two(value: JSON, task: TaskContext) -> JSON:
        seen.append(task)
        return None

    tasks = Tasks()
    tasks.add("q", "t", heartbeat_seconds=9.0)
    async with working({"q": two}, tasks):
        await tasks.reported("t")
    assert (seen[0].attempt, seen[0].idempotency_key, seen[0].node, seen[0].cancelled) == (2, "key-t", "Step", False)


async def test_shapes_of_functions() -> None:
    def bound(prefix: str, value: JSON) -> JSON:
        return f"{prefix}{value}"

    class Callable_:
        async def __call__(self, value: JSON, task: TaskContext) -> JSON:
            return task.attempt

    tasks = Tasks()
    tasks.add("p", "t1", "b")
    tasks.add("c", "t2")
    tasks.add("d", "t3", [3])
    async with working(
        {"p": functools.partial(bound, "a"), "c": Callable_(), "d": lambda v, extra=7: [v, extra]}, tasks
    ):
        await tasks.reported("t1", "t2", "t3")
    assert tasks.reports == {"t1": ("done", "ab"), "t2": ("done", 2), "t3": ("done", [[3], 7])}


async def test_exceptions_fail_the_task_under_their_name() -> None:
    async def grouped(value: JSON) -> JSON:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raising, "value")
        raise AssertionError("never")

    async def raising(value: JSON) -> JSON:
        if value == "named":
            raise ActivityError("Card.Declined", "no funds")
        if value == "odd":
            return object()  # type: ignore[return-value]
        raise ValueError(f"bad {value}")

    tasks = Tasks()
    for token in ("named", "value", "odd"):
        tasks.add("r", token, token)
    tasks.add("g", "grouped")
    async with working({"r": raising, "g": grouped}, tasks):
        await tasks.reported("named", "value", "odd", "grouped")
    assert tasks.reports["named"] == ("Card.Declined", "no funds")
    assert tasks.reports["value"] == ("ValueError", "bad value")
    assert tasks.reports["grouped"] == ("ValueError", "bad value")
    assert tasks.reports["odd"][0] == "NotJSON"


async def test_no_more_run_at_once_than_there_are_slots() -> None:
    running: list[int] = [0, 0]
    gate = trio.Event()
    full = trio.Event()

    async def busy(value: JSON) -> JSON:
        running[0] += 1
        running[1] = max(running)
        if running[0] == 3:
            full.set()
        await gate.wait()
        running[0] -= 1
        return None

    tasks = Tasks()
    tokens = [f"{queue}{n}" for queue in "ab" for n in range(6)]
    for token in tokens:
        tasks.add(token[0], token)
    async with working({"a": busy, "b": busy}, tasks, concurrency=3):
        await full.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert running == [3, 3]
        gate.set()
        await tasks.reported(*tokens)
    assert running == [0, 3]
    assert max(most for _, most, _ in tasks.asked) <= 3


async def test_one_queue_is_polled_for_every_free_slot() -> None:
    tasks = Tasks()
    async with working({"q": double}, tasks, concurrency=16, poll_seconds=20):
        await tasks.polled(1)
    assert tasks.asked[0] == ("q", 16, 20.0)


async def test_a_quiet_queue_holds_one_slot_and_a_busy_one_may_have_the_rest() -> None:
    tasks = Tasks()
    for index in range(8):
        tasks.add("busy", f"t{index}", index)
    async with working({"quiet": double, "busy": double}, tasks, concurrency=6):
        await tasks.reported(*(f"t{index}" for index in range(8)))
    assert all(most == 1 for queue, most, _ in tasks.asked if queue == "quiet")
    assert max(most for queue, most, _ in tasks.asked if queue == "busy") > 1


async def test_many_outcomes_are_reported_in_one_call() -> None:
    gate = trio.Event()
    ready: list[int] = []

    async def together(value: JSON) -> JSON:
        ready.append(1)
        if len(ready) == 10:
            gate.set()
        await gate.wait()
        return value

    tasks = Tasks()
    tokens = [f"t{index}" for index in range(10)]
    for token in tokens:
        tasks.add("q", token, token)
    async with working({"q": together}, tasks) as (_, engine):
        await tasks.reported(*tokens)
        assert engine.count("CompleteTasks") >= 1
        assert engine.count("CompleteTasks") + engine.count("CompleteTask") < 10
    assert tasks.reports == {token: ("done", token) for token in tokens}


async def test_an_outcome_is_reported_although_the_connection_is_lost() -> None:
    tasks = Tasks()
    tasks.add("q", "t", 4)
    trouble = [HangUp(), HangUp()]

    async def complete(params: dict[str, Any]) -> object:
        if trouble:
            raise trouble.pop()
        return await tasks.complete(params)

    async with working({"q": double}, tasks, complete=complete):
        await tasks.reported("t")
    assert tasks.reports == {"t": ("done", 8)}


async def test_an_output_that_is_not_taken_fails_the_task() -> None:
    tasks = Tasks()
    tasks.add("q", "t", 4)
    refusal = Refused(ErrorStatus.INVALID_ARGUMENT, "output: 300,000 bytes; at most 262,144 are taken")
    async with working({"q": double}, tasks, complete=answers(refusal)):
        await tasks.reported("t")
    assert tasks.reports == {"t": ("OutputRefused", "output: 300,000 bytes; at most 262,144 are taken")}


async def test_an_output_that_is_too_large_fails_the_task_as_the_language_says() -> None:
    tasks = Tasks()
    tasks.add("q", "t", 4)
    refusal = Refused(
        ErrorStatus.INVALID_ARGUMENT, "output: 300,000 bytes", {"field": "output", "limit_bytes": 262_144}
    )
    async with working({"q": double}, tasks, complete=answers(refusal)):
        await tasks.reported("t")
    assert tasks.reports == {"t": ("States.DataLimitExceeded", "output: 300,000 bytes")}


async def test_one_spoilt_outcome_does_not_spoil_the_others() -> None:
    gate = trio.Event()
    ready: list[int] = []

    async def together(value: JSON) -> JSON:
        ready.append(1)
        if len(ready) == 5:
            gate.set()
        await gate.wait()
        return value

    tasks = Tasks()
    tokens = [f"t{index}" for index in range(5)]
    for token in tokens:
        tasks.add("q", token, token)

    async def complete(params: dict[str, Any]) -> object:
        if params["token"] == "t3":
            raise Refused(ErrorStatus.INVALID_ARGUMENT, "too large")
        return await tasks.complete(params)

    async with working({"q": together}, tasks, complete=complete) as (_, engine):
        engine.handlers["CompleteTasks"] = answers(Refused(ErrorStatus.INVALID_ARGUMENT, "tasks[3].output: too large"))
        await tasks.reported(*tokens)
    assert tasks.reports == {token: ("done", token) for token in tokens} | {"t3": ("OutputRefused", "too large")}


async def test_heartbeats_carry_the_latest_details_and_stop_with_the_outcome() -> None:
    tasks = Tasks()
    tasks.add("q", "t", lease_seconds=60.0, heartbeat_seconds=60.0)
    beats: list[object] = []
    enough = trio.Event()

    async def heartbeat(params: dict[str, Any]) -> object:
        beats.append(params.get("details"))
        if beats[-1] == {"at": 2}:
            enough.set()
        return BEATING

    async def slow(value: JSON, task: TaskContext) -> JSON:
        task.heartbeat({"at": 1})
        task.heartbeat({"at": 2})
        await enough.wait()
        return "ok"

    async with working({"q": slow}, tasks, heartbeat=heartbeat):
        await tasks.reported("t")
    assert set(map(str, beats)) == {"{'at': 2}"}
    assert tasks.reports == {"t": ("done", "ok")}


async def test_a_function_that_speaks_is_in_charge_of_its_progress() -> None:
    """Its own heartbeats go out at once; those of the kit keep the lease only, from the first of them on."""
    tasks = Tasks()
    tasks.add("q", "t", lease_seconds=0.06, heartbeat_seconds=100.0)
    progress: list[bool] = []
    three, silent = trio.Event(), trio.Event()

    async def heartbeat(params: dict[str, Any]) -> object:
        progress.append(params.get("progress", True))
        if len(progress) == 3:
            three.set()
        if progress.count(False) == 3:
            silent.set()
        return BEATING

    async def slow(value: JSON, task: TaskContext) -> JSON:
        await three.wait()
        await trio.to_thread.run_sync(task.heartbeat, {"from": "a thread"})
        await silent.wait()
        return "ok"

    async with working({"q": slow}, tasks, heartbeat=heartbeat):
        await tasks.reported("t")
    assert progress[-3:] == [False] * 3
    assert progress == sorted(progress, reverse=True)


async def test_what_was_said_last_is_there_before_the_attempt_ends() -> None:
    tasks = Tasks()
    tasks.add("q", "t")
    order: list[object] = []

    async def heartbeat(params: dict[str, Any]) -> object:
        order.append(params.get("details"))
        return BEATING

    async def fails(value: JSON, task: TaskContext) -> JSON:
        for page in (1, 2, 3):
            task.heartbeat({"page": page})
        raise ActivityError("Busy", retry_after_seconds=2.5)

    async with working({"q": fails}, tasks, heartbeat=heartbeat) as (_, engine):
        await tasks.reported("t")
        order += [params["retry_after_seconds"] for params in engine.params("FailTask")]
    assert order[-2:] == [{"page": 3}, 2.5]


async def test_the_next_attempt_is_given_what_was_said() -> None:
    tasks = Tasks()
    tasks.add("q", "t", heartbeat_details=encode({"page": 3}))
    async with working({"q": lambda value, task: task.heartbeat_details}, tasks):
        await tasks.reported("t")
    assert tasks.reports == {"t": ("done", {"page": 3})}


async def test_a_function_that_exits_fails_its_task_and_not_the_worker() -> None:
    def exits(value: JSON) -> JSON:
        sys.exit(3)

    tasks = Tasks()
    tasks.add("e", "t1")
    tasks.add("q", "t2", 1)
    async with working({"e": exits, "q": double}, tasks):
        await tasks.reported("t1", "t2")
    assert tasks.reports == {"t1": ("SystemExit", "3"), "t2": ("done", 2)}


@pytest.mark.parametrize("asked", [-1.0, 1e12, float("nan")])
async def test_no_pause_is_asked_for_that_the_daemon_would_not_take(asked: float) -> None:
    def fails(value: JSON) -> JSON:
        raise ActivityError("Busy", "half a \ud83d", retry_after_seconds=asked)

    tasks = Tasks()
    tasks.add("q", "t")
    async with working({"q": fails}, tasks) as (_, engine):
        await tasks.reported("t")
        (sent,) = engine.params("FailTask")
    assert 0 <= sent.get("retry_after_seconds", 0) <= 99_999_999
    assert tasks.reports == {"t": ("Busy", "half a ?")}


def test_what_a_heartbeat_may_say_is_bounded() -> None:
    task = calls.WorkerTask(
        token="t", workflow_id="w", run_id="r", node="N", path="N", input=encode(None), attempt=1,
        timeout_seconds=1.0, idempotency_key="k", lease_seconds=1.0,
    )  # fmt: skip
    context = TaskContext(task)
    with pytest.raises(ValueError, match="at most 4,096 are kept"):
        context.heartbeat("x" * 5000)
    context.heartbeat({"page": 1})
    context.heartbeat()
    assert bytes(context.details) == b'{"page":1}'


async def test_a_defect_of_the_daemon_does_not_end_the_worker(autojump_clock: trio.testing.MockClock) -> None:
    """The scripted engine's sockets and a clock that jumps do not mix: this one calls no engine."""

    class Flawed(Caller):
        polls = 0

        async def _perform(self, params: calls.Call, timeout_seconds: float | None) -> calls.Result:
            self.polls += 1
            if self.polls == 1:
                raise Refused(ErrorStatus.INTERNAL, "see the log")
            worker.stop()
            return calls.PollTaskResult(tasks=[])

    worker = Worker(Flawed(), {"q": double})
    await worker.run()


def test_activities_are_gathered_by_a_decorator() -> None:
    activities = Activities()

    @activities.register
    def resize(value: JSON) -> JSON:
        return value

    @activities.register("card:charge")
    async def charge(value: JSON, task: TaskContext) -> JSON:
        return value

    assert dict(activities) == {"resize": resize, "card:charge": charge}
    with pytest.raises(ValueError, match="two activities 'resize'"):
        activities.register(resize)
    with pytest.raises(ValueError, match="no task queue can be named 'a b'"):
        activities.register("a b")(resize)
    with pytest.raises(ValueError, match="no task queue can be named '<lambda>'"):
        activities.register(lambda value: value)
    with pytest.raises(TypeError, match="must take"):
        activities.register("none")(lambda: None)


async def test_a_task_that_is_over_is_cancelled_and_not_reported() -> None:
    tasks = Tasks()
    tasks.add("q", "t", lease_seconds=0.3)
    cancelled = trio.Event()

    async def endless(value: JSON, task: TaskContext) -> JSON:
        try:
            await trio.sleep_forever()
        finally:
            assert task.cancelled
            cancelled.set()

    async with working({"q": endless}, tasks, heartbeat=answers(CLOSED)):
        await cancelled.wait()
    assert tasks.reports == {}


async def test_a_cancelled_execution_cancels_its_function_and_is_told() -> None:
    tasks = Tasks()
    tasks.add("a", "t1", lease_seconds=0.3)
    tasks.add("s", "t2", lease_seconds=0.3)

    cancelled, ended = trio.Event(), threading.Event()

    async def endless(value: JSON) -> JSON:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return None

    def thread(value: JSON, task: TaskContext) -> JSON:
        while not task.cancelled:
            threading.Event().wait(0.005)
        ended.set()
        return None

    asked = answers(calls.HeartbeatTaskResult(cancel_requested=True))
    async with working({"a": endless, "s": thread}, tasks, heartbeat=asked):
        assert await trio.to_thread.run_sync(ended.wait, 60)
        await cancelled.wait()
    assert tasks.reports == {}


async def test_stop_lets_running_tasks_finish_and_takes_no_more() -> None:
    tasks = Tasks()
    tasks.add("q", "t1", 1)
    begun, gate = trio.Event(), trio.Event()

    async def slow(value: JSON) -> JSON:
        begun.set()
        await gate.wait()
        return value

    async with working({"q": slow}, tasks, concurrency=2) as (worker, _):
        await begun.wait()
        worker.stop()
        gate.set()
    assert tasks.reports == {"t1": ("done", 1)}


async def test_stop_gives_back_what_does_not_finish_in_time() -> None:
    tasks = Tasks()
    tasks.add("q", "t1")
    begun = trio.Event()

    async def endless(value: JSON) -> JSON:
        begun.set()
        await trio.sleep_forever()
        return None

    async with working({"q": endless}, tasks, drain_seconds=0.05):
        await begun.wait()
    assert tasks.reports == {"t1": ("returned", None)}


async def test_a_cancelled_worker_gives_its_tasks_back() -> None:
    tasks = Tasks()
    tasks.add("q", "t1")
    begun = trio.Event()

    async def endless(value: JSON) -> JSON:
        begun.set()
        await trio.sleep_forever()
        return None

    async with scripted_engine(PollTask=tasks.poll, ReturnTask=tasks.give_back) as engine:
        with trio.CancelScope() as scope:
            async with open_client(engine.url, "tok") as client, trio.open_nursery() as nursery:
                nursery.start_soon(Worker(client, {"q": endless}).run)
                await begun.wait()
                scope.cancel()
    assert tasks.reports == {"t1": ("returned", None)}


async def test_tasks_that_arrive_while_the_polls_end_are_run() -> None:
    tasks = Tasks()

    async def stop_polls(params: dict[str, Any]) -> object:
        tasks.add("q", "late", 1)
        return await tasks.stop_polls(params)

    async with working({"q": double}, tasks) as (worker, engine):
        engine.handlers["StopPolls"] = stop_polls
        await engine.until("PollTask")
        worker.stop()
        await tasks.reported("late")
    assert tasks.reports == {"late": ("done", 2)}
    assert engine.count("PollTask") == 1


async def test_tasks_that_arrive_while_stopping_are_given_back() -> None:
    """By a daemon that does not know how to end polls."""
    tasks = Tasks()
    tasks.ends_polls = False
    async with working({"q": double}, tasks) as (worker, engine):
        await engine.until("PollTask")
        worker.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        tasks.add("q", "late", 1)
        await tasks.reported("late")
    assert tasks.reports == {"late": ("returned", None)}


async def test_a_worker_that_may_not_poll_says_so() -> None:
    denied = Refused(ErrorStatus.PERMISSION_DENIED, 'PollTask needs the scope "work"')
    async with scripted_engine(PollTask=answers(denied)) as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(Refused, match="needs the scope"):
            await Worker(client, {"q": double}).run()


async def test_what_cannot_be_a_worker_is_refused_when_it_is_made() -> None:
    async with scripted_engine() as engine, open_client(engine.url, "tok") as client:
        with pytest.raises(ValueError, match="at least one"):
            Worker(client, {})
        with pytest.raises(ValueError, match="2 queues need as many slots"):
            Worker(client, {"a": double, "b": double}, concurrency=1)
        with pytest.raises(TypeError, match=r"must take \(input\) or \(input, task\)"):
            Worker(client, {"a": lambda: None})  # type: ignore[dict-item, misc]
        with pytest.raises(TypeError, match="cannot be called"):
            Worker(client, {"a": 3})  # type: ignore[dict-item]
