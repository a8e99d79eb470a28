"""Matching and Workers in other processes: who is given what, what is handed back, and the circuit breakers."""

from __future__ import annotations

import random

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle
from trio.testing import MockClock

from daemon.dispatch.waiting_tasks import PartitionTasks
from daemon.links.sharding import partition_of
from daemon.settings import BreakerSettings
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    DestinationReport,
    EndNodePolls,
    ExpireTask,
    HandBackTasks,
    QueueKey,
    RetireTasks,
    TaskExpired,
    TaskRef,
    TasksFinished,
)
from enginekit.messages.status import BreakerState

DEAD, WELL = "dead:80", "well:80"
SETTINGS = BreakerSettings(window_seconds=60.0, minimum_calls=4, failure_rate=0.5, open_seconds=10.0, probes=2)


@pytest.fixture
def bench() -> Bench:
    return Bench(breakers=SETTINGS)


async def opened(nursery: trio.Nursery, bench: Bench) -> None:
    """A Matching with the breaker of DEAD open, nothing running."""
    await bench.start(nursery)
    refs = await bench.schedule(4, name="http", destination=DEAD)
    assert await bench.poll_nodes(10) == refs
    await bench.begun(*refs)
    await bench.ended(*refs, healthy=False)
    assert (await bench.breaker(DEAD)).state is BreakerState.OPEN


async def test_queues_take_turns_so_that_no_tenant_starves_another(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    many = await bench.schedule(50, tenant="greedy")
    few = await bench.schedule(3, tenant="modest")
    other = await bench.schedule(2, tenant="modest", name="http")
    assert await bench.poll_nodes(4) == [many[0], other[0], few[0], other[1]]
    assert bench.more
    assert await bench.poll_nodes(4) == [many[1], few[1], many[2], few[2]]
    assert await bench.poll_nodes(100) == many[3:]
    assert not bench.more
    view = (await bench.views("greedy"))["echo"]
    assert (view.kind, view.depth, view.dispatched) == ("node", 0, 50)


async def test_priority_first_then_age(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    old = await bench.schedule(scheduled_at=1000)
    older = await bench.schedule(scheduled_at=500)
    urgent = await bench.schedule(priority=9, scheduled_at=2000)
    assert await bench.poll_nodes(3) == urgent + older + old


async def test_whoever_waits_is_given_what_comes_and_who_waited_longest_first(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    given: dict[str, list[TaskRef]] = {}

    async def wait(worker_id: str, resources: list[str]) -> None:
        given[worker_id] = await bench.poll_nodes(1, resources=resources, worker_id=worker_id)

    for worker_id, resources in (("h", ["http"]), ("one", ["echo", "http"]), ("two", ["echo"])):
        nursery.start_soon(wait, worker_id, resources)
        await settle()
    assert (await bench.views()) == {}
    echoes = await bench.schedule(3)
    await settle()
    assert given == {"one": echoes[:1], "two": echoes[1:2]}
    view = (await bench.views())["echo"]
    assert (view.depth, view.pollers) == (1, 0)
    assert await bench.schedule(name="http") == given["h"]


async def test_a_poll_ends_when_its_time_is_up(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    assert await bench.poll_nodes(5, wait_seconds=7.0) == []
    assert trio.current_time() == pytest.approx(7)
    assert await bench.poll_nodes(5, wait_seconds=0.0) == []
    refs = await bench.schedule(3, name="ai:openai")
    assert await bench.poll_nodes(5, wait_seconds=3.0) == [], "it runs no such thing"
    assert await bench.poll_nodes(5, resources=["ai:openai"]) == refs


async def test_a_worker_that_is_lost_or_takes_no_more_is_given_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    given: list[list[TaskRef]] = []

    async def wait() -> None:
        given.append(await bench.poll_nodes(worker_id="gone"))

    nursery.start_soon(wait)
    await settle()
    bench.tell(EndNodePolls("another"))
    await settle()
    assert given == []
    bench.tell(EndNodePolls("gone"))
    await settle()
    assert given == [[]]
    refs = await bench.schedule()
    assert await bench.poll_nodes() == refs


async def test_polls_of_a_matching_that_ends_are_asked_again_of_the_next(nursery: trio.Nursery, bench: Bench) -> None:
    scope = await bench.start(nursery)
    given: list[list[TaskRef]] = []

    async def wait() -> None:
        given.append(await bench.poll_nodes())

    async def wait_for_an_activity() -> None:
        given.append(await bench.poll())

    nursery.start_soon(wait)
    nursery.start_soon(wait_for_an_activity)
    await settle()
    scope.cancel()
    await settle()
    assert given == [[], []]


async def test_what_is_handed_back_waits_again_in_its_place(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    refs = await bench.schedule(4)
    assert await bench.poll_nodes(3) == refs[:3]
    await bench.begun(refs[0])
    bench.tell(HandBackTasks(refs[:2]))
    assert await bench.poll_nodes(3) == [refs[1], refs[3]], "what was begun stays where it is"


async def test_a_start_that_is_never_recorded_is_noticed(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    refs = await bench.schedule(2)
    assert await bench.poll_nodes(2) == refs
    await bench.begun(refs[0])
    assert await bench.poll_nodes(2) == refs[1:], "by the store"
    assert 10 <= trio.current_time() < 11


async def test_its_time_to_start_may_pass_while_it_is_being_started(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    refs = await bench.schedule(2)
    assert await bench.poll_nodes(1) == refs[:1]
    for ref in refs:
        bench.tell(ExpireTask(ref, 9.0, SOME_QUEUE))
    await settle()
    # History knows whether the first was started meanwhile.
    assert await bench.to_history() == [TaskExpired(ref, 9.0) for ref in refs]


async def test_a_partition_looks_at_its_own_queues_only(nursery: trio.Nursery, bench: Bench) -> None:
    for number in range(20):
        await bench.commit(2, tenant=f"t{number}")
    whole = bench.store
    parts = [PartitionTasks(whole, partition, 4) for partition in range(4)]
    seen = [{backlog.queue for backlog in await part.queue_backlogs()} for part in parts]
    assert sum(map(len, seen)) == 20
    assert min(map(len, seen)) > 0
    for tenant in ("t1", "t2", "t3"):
        key = QueueKey(tenant, TaskKind.NODE, "echo")
        own = partition_of(key, 4)
        found = [len(await part.waiting_tasks(key, 10)) for part in parts]
        assert found == [2 if partition == own else 0 for partition in range(4)]
        counted = [len(await part.destination_backlogs(tenant)) for part in parts]
        assert counted == [1 if partition == own else 0 for partition in range(4)]


# --- breakers --------------------------------------------------------------------------------------------------------


async def test_while_a_breaker_is_open_its_tasks_wait_and_those_of_others_go_on(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(5, name="http", destination=DEAD)
    others = await bench.schedule(3, name="http", destination=WELL)
    foreign = await bench.schedule(name="http", destination=DEAD, tenant="other")
    assert set(await bench.poll_nodes(20)) == {*others, *foreign}
    assert (await bench.views())["http"].depth == len(waiting)
    assert (await bench.breaker(DEAD)).waiting == len(waiting)


async def test_half_open_a_few_probe_and_when_they_go_well_all_follow(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(7, name="http", destination=DEAD)
    probes = await bench.poll_nodes(20)
    assert probes == waiting[:2], "the poll has waited for it"
    assert await bench.poll_nodes(20, wait_seconds=1.0) == []
    await bench.begun(*probes)
    await bench.ended(*probes, healthy=True)
    assert await bench.poll_nodes(20) == waiting[2:]


async def test_the_first_probe_that_fails_opens_it_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(7, name="http", destination=DEAD)
    probes = await bench.poll_nodes(20)
    await bench.begun(*probes)
    await bench.ended(probes[0], healthy=False)
    assert (await bench.breaker(DEAD)).state is BreakerState.OPEN
    began = trio.current_time()
    assert await bench.poll_nodes(20) == waiting[2:4]
    assert trio.current_time() - began == pytest.approx(10, abs=0.1)


async def test_what_began_before_it_opened_says_nothing_of_the_present(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    early = await bench.schedule(8, name="http", destination=DEAD)
    assert await bench.poll_nodes(8) == early
    await bench.begun(*early)
    await bench.ended(*early[:4], healthy=False)
    later = await bench.schedule(6, name="http", destination=DEAD)
    probes = await bench.poll_nodes(20)
    await bench.ended(*probes, healthy=True)
    assert await bench.poll_nodes(20) == later[2:]
    await bench.ended(*early[4:], healthy=False)
    assert await bench.breakers_seen() == [], "they began before it closed"


@pytest.mark.parametrize(
    "how", ["handed back", "never begun", "unreported", "canceled", "returned", "start lost", "silent"]
)
async def test_a_probe_that_vanishes_is_followed_by_another(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, how: str
) -> None:
    await opened(nursery, bench)
    waiting = await bench.commit(6, name="http", destination=DEAD)
    bench.offer(waiting)
    refs = [task.task for task in waiting]
    probes = await bench.poll_nodes(20)
    assert probes == refs[:2]
    expected = refs[2:4]
    match how:
        case "handed back":
            bench.tell(HandBackTasks(probes))
            expected = probes
        case "never begun":
            bench.tell(RetireTasks(probes))
            bench.tell(TasksFinished("w-1", 0, probes))
        case "unreported":
            await bench.begun(*probes)
            await bench.ended(*probes)
        case "canceled":
            await bench.begun(*probes)
            await bench.end(*probes, cancel=True)
        case "returned":
            await bench.begun(*probes)
            bench.offer(waiting[:2])
        case "start lost":
            pass
        case _:
            await bench.begun(*probes)
    began = trio.current_time()
    assert await bench.poll_nodes(20) == expected
    at_once = how not in ("start lost", "silent")
    assert trio.current_time() - began == pytest.approx(0 if at_once else 10, abs=0.2)


@pytest.mark.parametrize("seed", range(6))
async def test_no_task_is_stuck_whatever_is_lost(autojump_clock: MockClock, nursery: trio.Nursery, seed: int) -> None:
    """Destinations fail and recover, messages are lost, Matching starts again: every task is run, once at a time."""
    chance = random.Random(seed)
    bench = Bench(
        queue_tasks=10, breakers=BreakerSettings(window_seconds=20, minimum_calls=3, open_seconds=4, probes=2)
    )
    bench.store.came_back.set()
    scope = await bench.start(nursery)
    names = [None, "a:80", "b:80"]
    scheduled, running, done = set[TaskRef](), list[TaskRef](), set[TaskRef]()
    sick: set[str | None] = set()
    tasks = {}

    async def end(ref: TaskRef, lossy: float) -> None:
        done.add(ref)
        await bench.remove(ref)
        if chance.random() >= lossy:
            bench.tell(RetireTasks([ref]))
        name = bench.destinations.get(ref)
        reports = [DestinationReport(ref, name, name not in sick)] if name is not None else []
        if chance.random() >= lossy:
            bench.tell(TasksFinished("w-1", 0, [ref], reports))

    for step in range(400):
        what = chance.random()
        if what < 0.25 and step < 250:
            new = await bench.commit(
                chance.randint(1, 8), tenant=chance.choice("ab"), name="http", destination=chance.choice(names)
            )
            tasks |= {task.task: task for task in new}
            scheduled |= {task.task for task in new}
            bench.offer([task for task in new if chance.random() < 0.8])
        elif what < 0.6:
            for ref in await bench.poll_nodes(chance.randint(1, 5), wait_seconds=0.0):
                lot = chance.random()
                if ref in done or ref in running or lot < 0.1:
                    # Over, somebody else's, or the answer was lost: History says that it is retired, or nothing.
                    if lot >= 0.1:
                        bench.tell(RetireTasks([ref]))
                elif lot < 0.2:
                    bench.tell(HandBackTasks([ref]))
                else:
                    running.append(ref)
                    await bench.remove(ref, started=True)
                    if chance.random() < 0.9:
                        bench.tell(RetireTasks([ref]))
        elif what < 0.85 and running:
            await end(running.pop(chance.randrange(len(running))), lossy=0.2)
        elif what < 0.9 and running:
            ref = running.pop()
            await bench.store.commit(bench.returned(ref))
            if chance.random() < 0.7:
                bench.offer([tasks[ref]])
        elif what < 0.93:
            sick ^= {chance.choice(names)}
        elif what < 0.95:
            scope.cancel()
            await settle()
            scope = await bench.start(nursery)
        else:
            await trio.sleep(chance.random() * 5)
    sick.clear()
    for ref in running:
        await end(ref, lossy=0.0)
    scope.cancel()
    await settle()
    await bench.start(nursery)
    for _ in range(200):
        for ref in await bench.poll_nodes(5, wait_seconds=5.0):
            assert ref not in done
            await end(ref, lossy=0.0)
        if done == scheduled:
            break
    assert done == scheduled
