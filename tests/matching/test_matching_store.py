"""Matching and the store: starting, overflowing, falling behind and catching up, the store's absence."""

from __future__ import annotations

import random

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle
from trio.testing import MockClock

from daemon.dispatch import pages
from enginekit.messages.events import TaskKind
from enginekit.messages.links import ExpireTask, RefillQueues, RetireTasks, TaskRef


async def test_it_starts_with_what_waits_in_the_store(nursery: trio.Nursery, bench: Bench) -> None:
    nodes = await bench.commit(3)
    activities = await bench.commit(2, kind=TaskKind.ACTIVITY, name="render", tenant="other")
    await bench.start(nursery)
    await bench.attach(slots=10)
    assert await bench.handed() == [task.task for task in nodes]
    assert await bench.poll(tenant="other", max_tasks=5) == [task.task for task in activities]


async def test_a_restart_loses_nothing_and_offers_again_what_is_in_flight(nursery: trio.Nursery, bench: Bench) -> None:
    first = await bench.start(nursery)
    await bench.attach(slots=2)
    refs = await bench.schedule(4)
    assert await bench.handed() == refs[:2]
    await bench.end(refs[0])
    assert await bench.handed() == refs[2:3]
    first.cancel()
    await settle()
    late = await bench.commit(1)
    bench.offer(late)
    await bench.start(nursery)
    await bench.attach(slots=10)
    assert set(await bench.handed()) == {*refs[1:], late[0].task}


async def test_what_finds_no_room_comes_from_the_store_later(nursery: trio.Nursery) -> None:
    bench = Bench(queue_tasks=10)
    await bench.start(nursery)
    refs = await bench.schedule(35)
    assert (await bench.views())["echo"].depth == 35
    await bench.attach(slots=1)
    done: list[TaskRef] = []
    while len(done) < 35:
        (ref,) = await bench.handed()
        done.append(ref)
        await bench.remove(ref)
        bench.tell(RetireTasks([ref]))
        await bench.finish(ref)
    assert done == refs
    assert await bench.handed() == []
    assert (await bench.views())["echo"].depth == 0


async def test_newcomers_do_not_overtake_what_was_left_to_the_store(nursery: trio.Nursery) -> None:
    bench = Bench(queue_tasks=10)
    await bench.start(nursery)
    await bench.attach(slots=1)
    first = await bench.schedule(30, scheduled_at=1000)
    order: list[TaskRef] = []
    added = 0
    while (handed := await bench.handed()) or added < 60:
        order += handed
        await bench.remove(*handed)
        bench.tell(RetireTasks(handed))
        await bench.finish(*handed)
        if added < 60:
            added += 2
            await bench.schedule(2, scheduled_at=2000 + added)
    assert len(order) == 90
    assert set(order[:30]) == set(first), "a steady stream of younger tasks has not kept an older one waiting"


async def test_an_urgent_task_is_taken_in_while_the_queue_is_behind_and_has_room(nursery: trio.Nursery) -> None:
    bench = Bench(queue_tasks=10)
    await bench.start(nursery)
    refs = await bench.schedule(30)
    await bench.attach(slots=3)
    await bench.handed()
    urgent = await bench.schedule(priority=5)
    await bench.finish(refs[0])
    assert await bench.handed() == urgent


async def test_retirements_during_a_pull_count(nursery: trio.Nursery, bench: Bench) -> None:
    tasks = await bench.commit(3)
    bench.store.hold = trio.Event()
    await bench.start(nursery)
    await bench.store.held.wait()
    await bench.end(tasks[1].task)
    bench.tell(ExpireTask(tasks[2].task, 1.0, SOME_QUEUE))
    await settle()
    bench.store.hold.set()
    await bench.attach(slots=5)
    assert await bench.handed() == [tasks[0].task]


async def test_offers_during_a_pull_are_not_doubled(nursery: trio.Nursery, bench: Bench) -> None:
    tasks = await bench.commit(3)
    bench.store.hold = trio.Event()
    await bench.start(nursery)
    await bench.store.held.wait()
    bench.offer(tasks)
    late = await bench.schedule()
    bench.store.hold.set()
    await bench.attach(slots=9)
    assert await bench.handed() == [*(task.task for task in tasks), *late]


@pytest.mark.parametrize("named", [True, False], ids=["named", "all"])
async def test_refill_pulls_what_was_never_offered(nursery: trio.Nursery, bench: Bench, named: bool) -> None:
    await bench.start(nursery)
    await bench.attach(slots=9)
    tasks = await bench.commit(3)
    assert await bench.handed() == []
    bench.tell(RefillQueues([tasks[0].queue] if named else None))
    await settle()
    assert await bench.handed() == [task.task for task in tasks]


async def test_a_refill_during_a_pull_is_not_forgotten(nursery: trio.Nursery, bench: Bench) -> None:
    tasks = await bench.commit(1)
    bench.store.hold = trio.Event()
    await bench.start(nursery)
    await bench.attach(slots=9)
    await bench.store.held.wait()
    late = await bench.commit(1)
    bench.tell(RefillQueues([tasks[0].queue]))
    await settle()
    bench.store.hold.set()
    await settle()
    assert set(await bench.handed()) == {tasks[0].task, late[0].task}


async def test_a_store_that_is_away_is_waited_for(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    tasks = await bench.commit(3)
    bench.store.away = True
    await bench.start(nursery)
    await bench.attach(slots=9)
    await trio.sleep(100)
    assert await bench.handed() == []
    bench.store.came_back.set()
    await trio.sleep(10)
    bench.store.away = False
    await trio.sleep(10)
    assert await bench.handed() == [task.task for task in tasks]


async def test_a_store_that_goes_away_between_pages_is_read_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_TASKS", 2)
    bench.store.came_back.set()
    tasks = await bench.commit(7)
    bench.store.hold = trio.Event()
    await bench.start(nursery)
    await bench.attach(slots=9)
    await bench.store.held.wait()
    bench.store.away = True
    bench.store.hold.set()
    await trio.sleep(10)
    assert len(await bench.handed()) == 2
    bench.store.away = False
    await trio.sleep(10)
    assert await bench.handed() == [task.task for task in tasks[2:]]


async def test_a_queue_of_many_pages_is_read_to_its_end(
    nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE_TASKS", 7)
    tasks = []
    for priority in (3, 1, 3, 2, 1):
        tasks += await bench.commit(9, priority=priority, scheduled_at=1000 - len(tasks))
    await bench.start(nursery)
    await bench.attach(slots=100)
    wanted = sorted(tasks, key=lambda t: (-t.priority, t.scheduled_at, t.task.run.run_id, t.task.event_id))
    assert await bench.handed() == [task.task for task in wanted]
    reads = bench.store.reads
    await bench.schedule(5)
    assert bench.store.reads == reads, "what is complete is not read again"


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_lost_every_task_is_done_in_the_end(
    autojump_clock: MockClock, nursery: trio.Nursery, seed: int
) -> None:
    """History's messages get lost, workers and Matching crash; a final refill, and the store is empty."""
    chance = random.Random(seed)
    bench = Bench(queue_tasks=10)
    bench.store.came_back.set()
    scope = await bench.start(nursery)
    await bench.attach(slots=4)
    incarnation, running, scheduled, done = 1, [], set(), set()
    for step in range(300):
        running += [ref for ref in await bench.handed() if ref not in running and ref not in done]
        what = chance.random()
        if what < 0.3 and step < 200:
            tasks = await bench.commit(chance.randint(1, 8), tenant=chance.choice("ab"), priority=chance.randint(0, 2))
            scheduled |= {task.task for task in tasks}
            bench.offer([task for task in tasks if chance.random() < 0.8])
        elif what < 0.8 and running:
            ref = running.pop(chance.randrange(len(running)))
            done.add(ref)
            await bench.remove(ref)
            if chance.random() < 0.8:
                bench.tell(RetireTasks([ref]))
            await bench.finish(ref, incarnation=incarnation)
        elif what < 0.83:
            incarnation, running = incarnation + 1, []
            await bench.attach(slots=4, incarnation=incarnation)
        elif what < 0.86:
            scope.cancel()
            await settle()
            scope = await bench.start(nursery)
            await bench.attach(slots=4, incarnation=incarnation)
        elif what < 0.9:
            bench.store.away = not bench.store.away
        await trio.sleep(chance.random())
    bench.store.away = False
    bench.tell(RefillQueues())
    for _ in range(400):
        handed = [ref for ref in await bench.handed() if ref not in running] + running
        running = []
        for ref in handed:
            if ref not in done:
                done.add(ref)
                await bench.remove(ref)
            bench.tell(RetireTasks([ref]))
        await bench.finish(*handed, incarnation=incarnation)
        await trio.sleep(1)
    assert done == scheduled
    assert await bench.store.queue_backlogs() == []
    assert {view.depth for tenant in "ab" for view in (await bench.views(tenant)).values()} <= {0}
