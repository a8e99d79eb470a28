"""What stands between a Worker in a process of its own and the others; the test plays the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing
from msgspec import Raw
from trio.testing import MockClock

from daemon.dispatch.remote import RemoteSlots
from daemon.links.exchange import MemoryExchange
from daemon.links.interface import Link, Request
from daemon.links.memory import MemoryLink
from enginekit.messages.json import encode
from enginekit.messages.links import (
    Announce,
    AttachWorker,
    CancelTasks,
    DestinationReport,
    EndNodePolls,
    GiveBackTasks,
    HandBackTasks,
    MatchNodes,
    MatchNodesResult,
    OutcomesRecorded,
    Pong,
    RenewTasks,
    RunRef,
    RunTask,
    StartedNode,
    StartNodes,
    StartNodesResult,
    TaskOutcome,
    TaskRef,
    TasksFinished,
    TaskSpec,
    ToHistory,
    ToWorker,
)
from enginekit.messages.status import ErrorStatus, Refused

LEASE = 9.0
AWAY = Refused(ErrorStatus.UNAVAILABLE, "away")


def task(number: int) -> TaskRef:
    return TaskRef(RunRef("acme", f"order-{number}", f"run-{number}"), 3)


def started(ref: TaskRef, returns: int = 0, destination: str | None = None) -> StartedNode:
    spec = TaskSpec(
        task=ref,
        resource="echo",
        node="N",
        path="N",
        input=Raw(b"{}"),
        attempt=1,
        timeout_seconds=60.0,
        idempotency_key="k",
        destination=destination,
    )
    return StartedNode(spec, returns, LEASE)


class Bench:
    def __init__(self, nursery: trio.Nursery, partitions: int) -> None:
        self.exchange = MemoryExchange()
        self.slots = RemoteSlots(self.exchange, self.exchange.history(0), partitions, "w")
        self.partitions = partitions
        self.asked: list[list[Request]] = [[] for _ in range(partitions)]
        self.told: list[list[object]] = [[] for _ in range(partitions)]
        self._nursery = nursery

    async def start(self, slots: int) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await self.slots.run(task_status=task_status)

        await self._nursery.start(run)
        if slots:
            await self.attach(slots)
        return scope

    async def attach(self, slots: int, incarnation: int = 1) -> None:
        assert self.slots.links.matching.offer(AttachWorker("w", incarnation, ["echo", "http"], slots))
        await self.settle()

    async def settle(self) -> None:
        """Until nothing happens any more; what partitions are asked and told is noted."""
        await trio.testing.wait_all_tasks_blocked()
        for partition in range(self.partitions):
            for message in await waiting(self.exchange.matching(partition)):
                if isinstance(message, Request):
                    self.asked[partition].append(message)
                else:
                    self.told[partition].append(message)

    def polls(self) -> dict[int, list[tuple[int, float]]]:
        """How many tasks each partition is asked for, and how long it may wait, unanswered yet."""
        found: dict[int, list[tuple[int, float]]] = {}
        for partition, requests in enumerate(self.asked):
            for request in requests:
                assert isinstance(request.call, MatchNodes)
                assert request.call.resources == ["echo", "http"]
                found.setdefault(partition, []).append((request.call.max_tasks, request.call.wait_seconds))
        return found

    async def give(self, partition: int, *refs: TaskRef, more: bool = False) -> None:
        """Answer the first poll at a partition."""
        self.asked[partition].pop(0).answer(MatchNodesResult(tasks=list(refs), more=more))
        await self.settle()

    async def nothing_anywhere(self) -> None:
        """Every partition has nothing, and is left with a poll that waits."""
        while any(wait == 0 for polls in self.polls().values() for _, wait in polls):
            for partition in range(self.partitions):
                if self.asked[partition] and self.polls()[partition][0][1] == 0:
                    await self.give(partition)

    async def history(self) -> list[ToHistory | Request]:
        await self.settle()
        return await waiting(self.exchange.history(0))

    async def starts(self) -> Request:
        """The one request for starts that History has."""
        (request,) = [message for message in await self.history() if isinstance(message, Request)]
        assert isinstance(request.call, StartNodes)
        return request

    async def grant(self, returns: int = 0, destination: str | None = None) -> list[TaskRef]:
        """Record the starts that are asked for."""
        request = await self.starts()
        assert isinstance(request.call, StartNodes)
        nodes = [started(ref, returns, destination) for ref in request.call.tasks]
        request.answer(StartNodesResult(tasks=nodes))
        await self.settle()
        return request.call.tasks

    async def worker(self) -> list[ToWorker]:
        await self.settle()
        messages = await waiting(self.slots.links.worker)
        return [message for message in messages if not isinstance(message, Request | Announce)]

    async def running(self, *refs: TaskRef, **how: object) -> None:
        """Have these run by the Worker, from partition 0."""
        await self.nothing_anywhere()
        for ref in refs:
            await self.give(0, ref)
            await self.grant(**how)  # type: ignore[arg-type]
        assert {message.task for message in await self.worker() if isinstance(message, RunTask)} == set(refs)

    async def finish(self, *refs: TaskRef, incarnation: int = 1, reports: Sequence[DestinationReport] = ()) -> None:
        assert self.slots.links.matching.offer(TasksFinished("w", incarnation, list(refs), list(reports)))
        await self.settle()

    def report(self, ref: TaskRef) -> None:
        assert self.slots.links.history.offer(TaskOutcome(ref, "w", encode(1)))

    async def tell_worker(self, message: ToWorker) -> None:
        assert self.exchange.worker("w").offer(message)
        await self.settle()


async def waiting(link: Link[object]) -> list[object]:
    assert isinstance(link, MemoryLink)
    return await link.receive() if len(link) else []


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery, 4)


# --- how slots are shared out ----------------------------------------------------------------------------------------


async def test_nothing_is_asked_for_before_there_are_slots(bench: Bench) -> None:
    await bench.start(slots=0)
    assert bench.polls() == {}
    await bench.attach(9)
    assert bench.polls() == {0: [(2, 0.0)], 1: [(2, 0.0)], 2: [(2, 0.0)], 3: [(3, 0.0)]}


async def test_where_there_is_more_all_that_is_free_is_asked_for(bench: Bench) -> None:
    await bench.start(slots=20)
    await bench.nothing_anywhere()
    assert bench.polls() == {partition: [(1, 5.0)] for partition in range(4)}
    await bench.give(2, task(1), more=True)
    assert bench.polls()[2] == [(19, 0.0)]
    assert await bench.grant() == [task(1)]
    assert await bench.worker() == [RunTask(task(1), started(task(1)).spec)]


async def test_few_slots_go_round_the_partitions(nursery: trio.Nursery) -> None:
    bench = Bench(nursery, 4)
    await bench.start(slots=1)
    for partition in range(4):
        asked = bench.polls()
        assert asked[partition] == [(1, 0.0)], "one after the other"
        assert [p for p, polls in asked.items() if (1, 0.0) in polls] == [partition]
        await bench.give(partition)
    assert bench.polls() == {partition: [(1, 5.0)] for partition in range(4)}


async def test_what_comes_when_all_slots_are_taken_is_handed_back_unstarted(nursery: trio.Nursery) -> None:
    bench = Bench(nursery, 4)
    await bench.start(slots=1)
    await bench.nothing_anywhere()
    await bench.give(3, task(1), more=True)
    await bench.give(1, task(2))
    assert bench.told[1] == [HandBackTasks([task(2)])]
    assert await bench.grant() == [task(1)]
    assert set(bench.polls()) == {0, 2}, "the others are asked when there is a slot"
    bench.report(task(1))
    await bench.finish(task(1))
    assert [polls for partition, polls in bench.polls().items() if partition in (1, 3)] == [[(1, 0.0)]]


async def test_every_partition_has_its_turn_while_there_is_more_everywhere(nursery: trio.Nursery) -> None:
    bench = Bench(nursery, 3)
    await bench.start(slots=1)
    turns = []
    for number in range(9):
        (partition,) = bench.polls()
        turns.append(partition)
        await bench.give(partition, task(number), more=True)
        assert bench.polls() == {}
        await bench.grant()
        bench.report(task(number))
        await bench.finish(task(number))
    assert turns == [0, 1, 2] * 3


async def test_a_partition_that_does_not_answer_holds_up_nobody(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(nursery, 2)
    await bench.start(slots=8)
    await bench.give(0, *[task(number) for number in range(4)], more=True)
    assert bench.polls() == {1: [(4, 0.0)]}
    await bench.grant()
    await trio.sleep(3)
    await bench.settle()
    assert bench.polls()[0] == [(4, 0.0)], "what the other was to have is free again"


# --- starts ----------------------------------------------------------------------------------------------------------


async def test_a_start_whose_answer_is_lost_is_asked_for_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(slots=8)
    await bench.nothing_anywhere()
    await bench.give(0, task(1))
    (await bench.starts()).refuse(AWAY)
    await trio.sleep(0.5)
    await bench.starts()  # not answered at all
    await trio.sleep(2.5)
    assert await bench.grant() == [task(1)]
    assert [message.task for message in await bench.worker() if isinstance(message, RunTask)] == [task(1)]
    assert bench.slots.running == 1


async def test_one_that_cannot_be_started_is_left_to_the_partition(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(slots=1)
    await bench.nothing_anywhere()
    await bench.give(0, task(1))
    for _ in range(60):
        for message in await bench.history():
            if isinstance(message, Request):
                message.refuse(AWAY)
        await trio.sleep(0.2)
    await bench.settle()
    assert bench.told[0] == [TasksFinished("w", 0, [task(1)])]
    assert bench.polls()[0][-1] == (1, 5.0), "its slot is free again"


async def test_what_is_over_frees_its_slot_and_what_was_left_over_is_asked_for_again(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.nothing_anywhere()
    bench.asked[0].pop(0).answer(MatchNodesResult(tasks=[task(1)], more=True))
    await bench.settle()
    await bench.grant()
    await bench.give(0, task(2), task(3), task(4))
    request = await bench.starts()
    request.answer(StartNodesResult(tasks=[started(task(2))], rest=[task(4)]))
    assert bench.slots.running == 1
    assert await bench.grant() == [task(4)]
    assert bench.told[0] == [TasksFinished("w", 0, [task(3)])]
    assert bench.slots.running == 3


async def test_one_that_was_called_off_while_it_was_being_started_is_not_run(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.nothing_anywhere()
    await bench.give(0, task(1))
    await bench.tell_worker(CancelTasks("w", [task(1)]))
    await bench.grant()
    assert [message for message in await bench.worker() if isinstance(message, RunTask)] == []
    assert bench.slots.running == 0


# --- what is held ----------------------------------------------------------------------------------------------------


async def test_leases_are_renewed_three_times_in_each_until_the_outcome_is_recorded(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(slots=8)
    await bench.running(task(1), task(2))
    began, renewals = trio.current_time(), 0
    while renewals < 6:
        await trio.sleep(0.5)
        renewals += sum(message == RenewTasks("w", [task(1), task(2)]) for message in await bench.history())
    assert trio.current_time() - began == pytest.approx(6 * LEASE / 3, abs=1)
    bench.report(task(1))
    await bench.finish(task(1))
    await trio.sleep(3)
    assert RenewTasks("w", [task(1), task(2)]) in await bench.history(), "its outcome may be lost"
    await bench.tell_worker(OutcomesRecorded("w", [task(1)]))
    await bench.tell_worker(CancelTasks("w", [task(2)]))
    await trio.sleep(10)
    assert await bench.history() == []


async def test_an_outcome_goes_with_the_number_of_its_start(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.running(task(1), returns=4)
    bench.report(task(1))
    (outcome,) = await bench.history()
    assert isinstance(outcome, TaskOutcome)
    assert (outcome.task, outcome.returns) == (task(1), 4)
    bench.report(task(7))
    assert await bench.history() == []
    assert await bench.worker() == [OutcomesRecorded("w", [task(7)])], "it was taken from this worker long ago"


async def test_a_task_that_comes_back_while_it_still_runs_is_gone_on_with(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.running(task(1))
    await bench.give(0, task(1))
    await bench.grant(returns=1)
    assert await bench.worker() == []
    assert bench.slots.running == 1
    bench.report(task(1))
    (outcome,) = await bench.history()
    assert isinstance(outcome, TaskOutcome)
    assert outcome.returns == 1
    await bench.finish(task(1))
    await bench.tell_worker(OutcomesRecorded("w", [task(1)]))
    assert bench.slots.running == 0


async def test_one_that_comes_back_after_its_outcome_was_sent_does_not_stay_with_nobody(bench: Bench) -> None:
    """The Worker does not run it again while it waits for the word about its report; that report counts for nothing."""
    await bench.start(slots=8)
    await bench.running(task(1))
    bench.report(task(1))
    await bench.finish(task(1))
    await bench.history()
    await bench.give(0, task(1))
    await bench.grant(returns=1)
    await bench.tell_worker(OutcomesRecorded("w", [task(1)]))
    await bench.finish(task(1))
    assert await bench.history() == [GiveBackTasks("w", [task(1)], "its worker did not run it")]
    assert bench.slots.running == 0


async def test_what_the_worker_lets_go_without_an_outcome_is_given_back_unless_nobody_wants_it(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.running(task(1), task(2))
    await bench.tell_worker(CancelTasks("w", [task(2)]))
    await bench.finish(task(1), task(2))
    assert await bench.history() == [GiveBackTasks("w", [task(1)], "its worker did not run it")]
    assert bench.slots.running == 0


async def test_what_a_worker_had_that_has_started_again_is_given_back(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.running(task(1), task(2))
    bench.report(task(2))
    await bench.history()
    await bench.attach(8, incarnation=2)
    assert await bench.history() == [GiveBackTasks("w", [task(1)], "its worker has started again")]
    await bench.attach(0, incarnation=1)
    await bench.finish(task(1), incarnation=1)
    assert bench.slots.running == 0
    await bench.running(task(3))


async def test_destinations_are_reported_to_the_partition_that_gave_the_task(bench: Bench) -> None:
    await bench.start(slots=8)
    await bench.running(task(1), destination="shop:443")
    await bench.running(task(2))
    report = DestinationReport(task(1), "shop:443", True)
    for ref in (task(1), task(2)):
        bench.report(ref)
    await bench.finish(task(1), task(2), reports=[report])
    assert bench.told[0] == [TasksFinished("w", 0, [task(1)], [report])]
    assert bench.told[1] == bench.told[2] == bench.told[3] == []


# --- ends and restarts -----------------------------------------------------------------------------------------------


async def test_when_it_fails_and_runs_again_the_worker_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    scope = await bench.start(slots=8)
    await bench.running(task(1))
    scope.cancel()
    await bench.settle()
    assert await bench.history() == []
    for requests in bench.asked:
        requests.clear()
    await bench.start(slots=0)
    assert Announce() in await waiting(bench.slots.links.worker)
    await bench.attach(8)
    assert bench.slots.running == 1
    assert sum(max_tasks for polls in bench.polls().values() for max_tasks, _ in polls) == 7
    await trio.sleep(4)
    assert await bench.history() == [RenewTasks("w", [task(1)])]


async def test_a_drain_takes_no_more_and_the_end_gives_back_what_still_runs(
    bench: Bench, nursery: trio.Nursery
) -> None:
    scope = await bench.start(slots=3)
    await bench.running(task(1))
    await bench.give(2, task(2))
    drained = trio.Event()

    async def drain() -> None:
        await bench.slots.drain()
        drained.set()

    nursery.start_soon(drain)
    await bench.settle()
    for partition in range(4):
        assert EndNodePolls("w") in bench.told[partition]
        while bench.asked[partition]:
            await bench.give(partition, task(10 + partition))
            assert bench.told[partition][-1] == HandBackTasks([task(10 + partition)])
    assert not drained.is_set(), "a start is being recorded"
    assert await bench.grant() == [task(2)]
    run, ping = await waiting(bench.slots.links.worker)
    assert run == RunTask(task(2), started(task(2)).spec)
    assert not drained.is_set(), "the Worker has not taken it in"
    assert isinstance(ping, Request)
    ping.answer(Pong())
    await bench.settle()
    assert drained.is_set()
    bench.report(task(1))
    await bench.finish(task(1))
    assert all(polls == [] for polls in bench.asked)
    await bench.history()
    scope.cancel()
    await bench.settle()
    assert await bench.history() == [GiveBackTasks("w", [task(2)], "its worker was stopped")]


async def test_a_drain_does_not_wait_for_a_worker_that_is_gone(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.start(slots=3)
    await bench.slots.drain()
    assert trio.current_time() < 11
