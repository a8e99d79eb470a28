"""Matching, breakers and chance: destinations fail and recover, messages are lost, everything crashes; in the end all
is well, and every task has been run. None is stuck behind a breaker."""

from __future__ import annotations

import random

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle
from trio.testing import MockClock

from daemon.settings import BreakerSettings
from enginekit.messages.links import DestinationReport, ExpireTask, RefillQueues, RetireTasks, TaskRef, TasksFinished

SETTINGS = BreakerSettings(window_seconds=20.0, minimum_calls=3, failure_rate=0.5, open_seconds=4.0, probes=2)
NAMES = [None, "a:80", "b:80", "c:80"]


@pytest.mark.parametrize("seed", range(8))
async def test_no_task_is_stuck(autojump_clock: MockClock, nursery: trio.Nursery, seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(queue_tasks=10, breakers=SETTINGS)
    bench.store.came_back.set()
    scope = await bench.start(nursery)
    await bench.attach(slots=4)
    incarnation, scheduled, done = 1, set[TaskRef](), set[TaskRef]()
    running: list[TaskRef] = []
    sick: set[str | None] = set()

    def finish(ref: TaskRef, reported: bool) -> None:
        name = bench.destinations.get(ref)
        reports = [DestinationReport(ref, name, name not in sick)] if name is not None and reported else []
        bench.tell(TasksFinished("daemon", incarnation, [ref], reports))

    for step in range(500):
        for ref in await bench.handed():
            if ref in done:
                finish(ref, reported=True)  # handed out once more, because nobody said that it is over
            elif ref not in running:
                running.append(ref)
        what = chance.random()
        if what < 0.25 and step < 350:
            tasks = await bench.commit(chance.randint(1, 8), tenant=chance.choice("ab"), name="http")
            name = chance.choice(NAMES)
            tasks = (
                await bench.commit(chance.randint(1, 8), tenant=chance.choice("ab"), name="http", destination=name)
                + tasks
            )
            scheduled |= {task.task for task in tasks}
            bench.offer([task for task in tasks if chance.random() < 0.8])
        elif what < 0.75 and running:
            ref = running.pop(chance.randrange(len(running)))
            done.add(ref)
            await bench.remove(ref)
            if chance.random() < 0.5:
                bench.tell(RetireTasks([ref]))
            finish(ref, reported=chance.random() < 0.8)
        elif what < 0.78 and running:
            ref = running.pop()
            done.add(ref)
            await bench.remove(ref)
            bench.tell(RetireTasks([ref], cancel=True))
            bench.tell(TasksFinished("daemon", incarnation, [ref]))
        elif what < 0.82 and scheduled - done:
            ref = chance.choice(sorted(scheduled - done, key=lambda ref: (ref.run.run_id, ref.event_id)))
            if ref not in running:
                bench.tell(ExpireTask(ref, 1.0, SOME_QUEUE))
                await settle()
                if [expired.task for expired in await bench.to_history()] == [ref]:
                    done.add(ref)
                    await bench.remove(ref)
        elif what < 0.86:
            sick ^= {chance.choice(NAMES)}
        elif what < 0.88:
            incarnation, running = incarnation + 1, []
            await bench.attach(slots=4, incarnation=incarnation)
        elif what < 0.9:
            scope.cancel()
            await settle()
            scope = await bench.start(nursery)
            await bench.attach(slots=4, incarnation=incarnation)
        elif what < 0.92:
            bench.store.away = not bench.store.away
        await trio.sleep(chance.choice([0.0, 0.1, 0.5, 3.0]))
    sick.clear()
    bench.store.away = False
    bench.tell(RefillQueues())
    for _ in range(600):
        handed = [ref for ref in await bench.handed() if ref not in running] + running
        running = []
        for ref in handed:
            if ref not in done:
                done.add(ref)
                await bench.remove(ref)
            finish(ref, reported=True)
            bench.tell(RetireTasks([ref]))
        await settle()
        await trio.sleep(1)
    assert done == scheduled
    assert await bench.store.queue_backlogs() == []
    assert {view.depth for tenant in "ab" for view in (await bench.views(tenant)).values()} <= {0}
    assert bench.in_memory() == 0
    await trio.sleep(60)
    assert [view for tenant in "ab" for view in await bench.breakers_seen(tenant)] == []
