"""What goes to which inbox, when shards and partitions have owners of their own."""

from __future__ import annotations

import random

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.execution import tokens
from daemon.journal.identity import RunIds, child_id
from daemon.links.exchange import MemoryExchange
from daemon.links.interface import Caller, Request
from daemon.links.routing import HistoryRouter, MatchingRouter, WorkerRouter
from daemon.links.sharding import owner_of, partition_of, shard_of, shard_of_run, shard_of_schedule
from enginekit.messages import calls
from enginekit.messages.dead_letters import RedriveDeadLetter
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    CancelTasks,
    EndPolls,
    GiveBackTasks,
    LookAtClock,
    MatchTasks,
    MatchTasksResult,
    OfferTask,
    OutcomesRecorded,
    QueuedTask,
    QueueKey,
    RefillQueues,
    RenewTasks,
    ReportAgain,
    RetireTasks,
    RunRef,
    ScheduleRef,
    StartedNode,
    StartNodes,
    StartNodesResult,
    StartTasks,
    TaskRef,
    TaskSpec,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.schedules import CreateSchedule, TriggerSchedule
from enginekit.messages.status import ErrorStatus, Refused

SHARDS = 8
ME = Caller(tenant="acme", subject="me")
RUNS = [RunRef("acme", f"order-{number}", f"run-{number}") for number in range(40)]


async def everything(exchange: MemoryExchange) -> dict[int, list[object]]:
    """What waits, by shard."""
    found: dict[int, list[object]] = {}
    for shard in range(SHARDS):
        with trio.move_on_after(0.1):
            found[shard] = list(await exchange.history(shard).receive())
    return found


@given(st.integers(1, 1024), st.randoms(use_true_random=False), st.data())
def test_a_run_id_tells_its_shard(shards: int, entropy: random.Random, data: st.DataObject) -> None:
    ids = RunIds(entropy, shards)
    shard = data.draw(st.integers(0, shards - 1))
    made = [ids.make(1_700_000_000_000, shard) for _ in range(3)]
    assert made == sorted(set(made))
    for run_id in made:
        assert shard_of_run(run_id, shards) == shard
        assert shard_of("acme", run_id, shards) == shard, "a run that is named by its run_id is in the same one"
        assert shard_of("acme", child_id(shard, run_id, 7, 0), shards) == shard


def test_names_spread_over_all_shards() -> None:
    assert {shard_of("acme", run.workflow_id, SHARDS) for run in RUNS} == set(range(SHARDS))
    assert shard_of("acme", "0198c0de-0000-7000-8000-00000000zzzz", SHARDS) in range(SHARDS)


async def test_wake_ups_are_cut_up_by_shard(autojump_clock: trio.testing.MockClock) -> None:
    exchange = MemoryExchange()
    router = HistoryRouter(exchange, SHARDS, random.Random(1))
    schedules = [ScheduleRef("acme", f"nightly-{number}") for number in range(20)]
    await router.send(WakeRuns(RUNS))
    await router.send(WakeSchedules(schedules))
    assert router.offer(LookAtClock())
    found = await everything(exchange)
    woken: list[RunRef] = []
    for shard, messages in found.items():
        assert messages[-1] == LookAtClock()
        for message in messages[:-1]:
            if isinstance(message, WakeRuns):
                assert {shard_of("acme", run.workflow_id, SHARDS) for run in message.runs} == {shard}
                woken += message.runs
            else:
                assert isinstance(message, WakeSchedules)
                assert {shard_of_schedule(ref, SHARDS) for ref in message.schedules} == {shard}
    assert sorted(woken, key=lambda run: run.run_id) == sorted(RUNS, key=lambda run: run.run_id)


async def answer(exchange: MemoryExchange, shard: int, seen: list[tuple[int, calls.Call]]) -> None:
    while True:
        for message in await exchange.history(shard).receive():
            assert isinstance(message, Request)
            seen.append((shard, message.call))
            match message.call:
                case StartTasks(tasks=tasks):
                    if shard == 3:
                        message.refuse(Refused(ErrorStatus.UNAVAILABLE, "shard 3 moves"))
                    else:
                        message.answer(calls.PollTaskResult(tasks=[_task(task) for task in tasks]))
                case StartNodes(tasks=tasks):
                    if shard == 3:
                        message.refuse(Refused(ErrorStatus.UNAVAILABLE, "shard 3 moves"))
                    else:
                        nodes = [StartedNode(_spec(task), 0, 9.0) for task in tasks[1:]]
                        message.answer(StartNodesResult(tasks=nodes, rest=tasks[:1]))
                case calls.CompleteTasks(tasks=tasks):
                    if shard == 3:
                        message.refuse(Refused(ErrorStatus.UNAVAILABLE, "shard 3 moves"))
                    else:
                        result = calls.CompletionResult(reason=str(shard))
                        message.answer(calls.CompleteTasksResult(results=[result for _ in tasks]))
                case _:
                    message.answer(calls.Acknowledged())


def _task(ref: TaskRef) -> calls.WorkerTask:
    return calls.WorkerTask(
        token=ref.run.workflow_id,
        workflow_id=ref.run.workflow_id,
        run_id=ref.run.run_id,
        node="N",
        path="N",
        input=calls.EMPTY_OBJECT,
        attempt=1,
        timeout_seconds=1.0,
        idempotency_key="k",
        lease_seconds=1.0,
    )


def _spec(ref: TaskRef) -> TaskSpec:
    return TaskSpec(
        task=ref,
        resource="echo",
        node="N",
        path="N",
        input=calls.EMPTY_OBJECT,
        attempt=1,
        timeout_seconds=1.0,
        idempotency_key="k",
    )


async def test_a_call_goes_to_the_owner_of_what_it_names(nursery: trio.Nursery) -> None:
    exchange, seen = MemoryExchange(), []
    for shard in range(SHARDS):
        nursery.start_soon(answer, exchange, shard, seen)
    router = HistoryRouter(exchange, SHARDS, random.Random(1))
    run_id = RunIds(random.Random(1), SHARDS).make(1_700_000_000_000, 5)
    token = tokens.mint(b"k" * 32, RUNS[1], 4, 0)
    asked = [
        (calls.CancelWorkflow(workflow_id="order-7", request_id="r-0"), shard_of("acme", "order-7", SHARDS)),
        (calls.DescribeWorkflow(workflow_id=run_id), 5),
        (calls.FailTask(token=token, error="E"), shard_of("acme", RUNS[1].workflow_id, SHARDS)),
    ]
    for call, shard in asked:
        await router.request(ME, call, calls.Acknowledged, 5)
        assert seen.pop() == (shard, call)
    same = calls.StartWorkflow(workflow="w", request_id="r-1")
    for _ in range(2):
        await router.request(ME, same, calls.Acknowledged, 5)
    assert seen[0][0] == seen[1][0]


@pytest.mark.parametrize(
    "call",
    [
        calls.StartWorkflow(workflow="w"),
        calls.StartWorkflow(workflow="w", workflow_id="order-7"),
        calls.SignalWorkflow(workflow_id="order-7", name="go"),
        calls.CancelWorkflow(workflow_id="order-7"),
        calls.TerminateWorkflow(workflow_id="order-7"),
        calls.RedriveWorkflow(workflow_id="order-7"),
        RedriveDeadLetter(id=f"{RunIds(random.Random(1), SHARDS).make(1_700_000_000_000, 5)}/4"),
        CreateSchedule(schedule_id="s", cron="* * * * *", workflow="w"),
        TriggerSchedule(schedule_id="s"),
    ],
    ids=lambda call: type(call).__name__,
)
async def test_what_changes_something_leaves_with_a_request_id(nursery: trio.Nursery, call: calls.Call) -> None:
    """The owner that has carried it out may die before it says so, and the next one gets it again."""
    exchange, seen = MemoryExchange(), []
    for shard in range(SHARDS):
        nursery.start_soon(answer, exchange, shard, seen)
    router = HistoryRouter(exchange, SHARDS, random.Random(1))
    for _ in range(2):
        await router.request(ME, call, calls.Acknowledged, 5)
    ids = {sent.request_id for _, sent in seen}
    assert None not in ids
    assert len(ids) == 2, "two calls are not one that was repeated"
    for _, sent in seen:
        assert msgspec.structs.replace(sent, request_id=None) == call


async def test_a_call_about_tasks_of_several_shards_is_answered_as_one(nursery: trio.Nursery) -> None:
    exchange, seen = MemoryExchange(), []
    for shard in range(SHARDS):
        nursery.start_soon(answer, exchange, shard, seen)
    router = HistoryRouter(exchange, SHARDS, random.Random(1))
    tasks = [TaskRef(run, 4) for run in RUNS]
    started = await router.request(ME, StartTasks(tasks=tasks, worker_id="w"), calls.PollTaskResult, 5)
    there = {task.workflow_id for task in started.tasks}
    assert there == {run.workflow_id for run in RUNS if shard_of("acme", run.workflow_id, SHARDS) != 3}
    completions = [calls.TaskCompletion(token=tokens.mint(b"k" * 32, run, 4, 0)) for run in RUNS]
    done = await router.request(ME, calls.CompleteTasks(tasks=completions), calls.CompleteTasksResult, 5)
    for run, result in zip(RUNS, done.results, strict=True):
        shard = shard_of("acme", run.workflow_id, SHARDS)
        assert (result.status, result.reason) == (("UNAVAILABLE", None) if shard == 3 else (None, str(shard)))
    lost = [run for run in RUNS if shard_of("acme", run.workflow_id, SHARDS) == 3]
    with pytest.raises(Refused, match="shard 3 moves"):
        await router.request(
            ME, StartTasks(tasks=[TaskRef(run, 4) for run in lost], worker_id="w"), calls.PollTaskResult, 5
        )


async def test_what_could_not_be_asked_of_a_shard_is_to_be_asked_again(nursery: trio.Nursery) -> None:
    exchange, seen = MemoryExchange(), []
    for shard in range(SHARDS):
        nursery.start_soon(answer, exchange, shard, seen)
    tasks = [TaskRef(run, 4) for run in RUNS]
    started = await HistoryRouter(exchange, SHARDS, random.Random(1)).request(
        ME, StartNodes(tasks=tasks, worker_id="w"), StartNodesResult, 5
    )
    there = {each.spec.task for each in started.tasks}
    assert there.isdisjoint(started.rest)
    assert there.union(started.rest) == set(tasks)
    assert len(started.rest) == SHARDS - 1 + sum(shard_of("acme", run.workflow_id, SHARDS) == 3 for run in RUNS)


async def test_what_a_worker_says_of_its_tasks_is_cut_up_by_shard(autojump_clock: trio.testing.MockClock) -> None:
    exchange = MemoryExchange()
    router = HistoryRouter(exchange, SHARDS, random.Random(1))
    tasks = [TaskRef(run, 4) for run in RUNS]
    assert router.offer(RenewTasks("w", tasks))
    assert router.offer(GiveBackTasks("w", tasks, "stopped"))
    for shard, (renewed, given_back) in (await everything(exchange)).items():
        own = [task for task in tasks if shard_of("acme", task.run.workflow_id, SHARDS) == shard]
        assert (renewed, given_back) == (RenewTasks("w", own), GiveBackTasks("w", own, "stopped"))


def test_one_who_comes_or_goes_moves_no_more_than_it_must() -> None:
    few, more = ["a", "b", "c"], ["a", "b", "c", "d"]
    before = {slot: owner_of(slot, few) for slot in range(200)}
    after = {slot: owner_of(slot, list(reversed(more))) for slot in range(200)}
    assert set(before.values()) == set(few)
    moved = [slot for slot in before if before[slot] != after[slot]]
    assert {after[slot] for slot in moved} == {"d"}
    assert 20 < len(moved) < 90


async def test_queues_are_kept_by_one_partition_each() -> None:
    exchange = MemoryExchange()
    router = MatchingRouter(exchange, 4)
    queue = QueueKey("acme", TaskKind.ACTIVITY, "resize")
    own = exchange.matching(partition_of(queue, 4))
    assert router.offer(EndPolls(queue, "w"))
    assert await own.receive() == [EndPolls(queue, "w")]
    assert router.offer(RetireTasks([TaskRef(RUNS[0], 4)], queue=queue))
    assert await own.receive() == [RetireTasks([TaskRef(RUNS[0], 4)], queue=queue)]
    assert router.offer(RetireTasks([TaskRef(RUNS[0], 4)]))
    for partition in range(4):
        assert await exchange.matching(partition).receive() == [RetireTasks([TaskRef(RUNS[0], 4)])]
    async with trio.open_nursery() as nursery:

        async def give() -> None:
            (request,) = await own.receive()
            assert isinstance(request, Request)
            request.answer(MatchTasksResult(tasks=[TaskRef(RUNS[0], 4)]))

        nursery.start_soon(give)
        poll = MatchTasks(queue=queue, worker_id="w", max_tasks=1, wait_seconds=1)
        assert len((await router.request(ME, poll, MatchTasksResult, 5)).tasks) == 1


async def test_what_is_about_queues_goes_to_their_partitions_and_specs_stay_behind() -> None:
    exchange = MemoryExchange()
    router = MatchingRouter(exchange, 4)
    queues = [QueueKey(f"tenant-{number}", TaskKind.NODE, "echo") for number in range(20)]
    assert router.offer(RefillQueues(queues))
    assert router.offer(RefillQueues())
    for partition in range(4):
        own = [queue for queue in queues if partition_of(queue, 4) == partition]
        assert await exchange.matching(partition).receive() == [RefillQueues(own), RefillQueues()]
    queued = QueuedTask(TaskRef(RUNS[0], 4), queues[0], 0, 0)
    assert router.offer(OfferTask(queued, _spec(queued.task)))
    assert await exchange.matching(partition_of(queues[0], 4)).receive() == [OfferTask(queued)]


async def test_a_long_poll_moves_with_its_partition(autojump_clock: trio.testing.MockClock) -> None:
    exchange = MemoryExchange()
    queue = QueueKey("acme", TaskKind.ACTIVITY, "resize")
    inbox = exchange.matching(partition_of(queue, 4))
    ref = TaskRef(RUNS[0], 4)

    async def owners() -> None:
        await inbox.receive()  # by one that is killed with the poll in its hands
        (request,) = await inbox.receive()
        assert isinstance(request, Request)
        await trio.sleep(2)
        request.answer(MatchTasksResult(tasks=[ref]))

    poll = MatchTasks(queue=queue, worker_id="w", max_tasks=1, wait_seconds=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(owners)
        found = await MatchingRouter(exchange, 4).request(ME, poll, MatchTasksResult, 65)
    assert found.tasks == [ref]
    assert trio.current_time() < 10
    began = trio.current_time()
    with pytest.raises(Refused, match="did not answer"):
        await MatchingRouter(exchange, 4).request(ME, poll, MatchTasksResult, 65)
    assert 60 <= trio.current_time() - began <= 65


async def test_what_is_recorded_is_told_to_whoever_reported_it() -> None:
    exchange = MemoryExchange()
    router = WorkerRouter(exchange)
    message = OutcomesRecorded("w-2", [TaskRef(RUNS[0], 4)])
    assert router.offer(message)
    canceled = CancelTasks("w-2", [TaskRef(RUNS[1], 4)])
    assert router.offer(canceled)
    assert router.offer(ReportAgain())
    assert await exchange.worker("w-2").receive() == [message, canceled]
