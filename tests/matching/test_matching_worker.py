"""Matching and the daemon's Worker: slots, fairness, incarnations, cancellation, and the payloads that ride along."""

from __future__ import annotations

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle, spec_of
from trio.testing import MockClock

from daemon.dispatch import known
from daemon.links.memory import MemoryLink
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    Announce,
    CancelTasks,
    ExpireTask,
    RetireTasks,
    RunTask,
    TaskExpired,
)


async def test_it_announces_itself_and_hands_out_what_is_offered(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    assert await bench.to_worker() == [Announce()]
    await bench.attach(slots=5)
    refs = await bench.schedule(3)
    assert await bench.handed() == refs
    view = (await bench.views())["echo"]
    assert (view.kind, view.depth, view.pollers, view.dispatched) == ("node", 0, 1, 3)


async def test_never_more_than_the_slots_are_taken(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=2)
    refs = await bench.schedule(5)
    assert await bench.handed() == refs[:2]
    await bench.finish(refs[1])
    assert await bench.handed() == refs[2:3]
    await bench.finish(refs[0], refs[2])
    assert await bench.handed() == refs[3:]
    assert (await bench.views())["echo"].depth == 0


async def test_priority_first_then_age(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    old = await bench.schedule(priority=0, scheduled_at=1000)
    older = await bench.schedule(priority=0, scheduled_at=500)
    urgent = await bench.schedule(priority=9, scheduled_at=2000)
    low = await bench.schedule(priority=-1, scheduled_at=1)
    await bench.attach(slots=10)
    assert await bench.handed() == urgent + older + old + low


async def test_queues_take_turns_so_that_no_tenant_starves_another(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    many = await bench.schedule(50, tenant="greedy")
    few = await bench.schedule(3, tenant="modest")
    await bench.attach(slots=8)
    handed = await bench.handed()
    assert handed == [many[0], few[0], many[1], few[1], many[2], few[2], many[3], many[4]]


async def test_only_resources_that_the_worker_runs_are_handed_to_it(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=10, resources=["echo"])
    http = await bench.schedule(name="http")
    activity = await bench.schedule(name="echo", kind=TaskKind.ACTIVITY)
    echo = await bench.schedule(name="echo")
    assert await bench.handed() == echo
    assert (await bench.views())["http"].pollers == 0
    await bench.attach(slots=10, resources=["echo", "http"])
    assert await bench.handed() == http
    assert await bench.poll("echo") == activity


async def test_a_repeated_offer_is_ignored_wherever_the_task_is(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=1)
    tasks = await bench.commit(2)
    refs = [task.task for task in tasks]
    for _ in range(3):
        bench.offer(tasks)
    await settle()
    assert await bench.handed() == refs[:1]
    await bench.finish(refs[0])
    bench.offer(tasks)
    assert await bench.handed() == refs[1:]
    await bench.finish(refs[1])
    bench.offer(tasks)
    await settle()
    assert await bench.handed() == []


async def test_a_retired_task_is_not_handed_out(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    refs = await bench.schedule(3)
    await bench.end(refs[1])
    await bench.attach(slots=10)
    assert await bench.handed() == [refs[0], refs[2]]


async def test_cancelling_a_running_task_tells_the_worker_and_frees_the_slot_when_it_ends(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=1)
    first, second = await bench.schedule(2)
    assert await bench.handed() == [first]
    await bench.end(first, cancel=True)
    assert await bench.to_worker() == [CancelTasks("daemon", [first])], "its slot is taken until it has stopped"
    await bench.finish(first)
    assert await bench.handed() == [second]


async def test_cancelling_a_task_that_waits_tells_nobody(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    (ref,) = await bench.schedule()
    await bench.to_worker()
    await bench.end(ref, cancel=True)
    await bench.attach(slots=1)
    assert await bench.to_worker() == []


async def test_a_cancelled_task_whose_end_is_never_reported_frees_its_slot_at_last(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=1)
    first, second = await bench.schedule(2)
    await bench.end(first, cancel=True)
    await bench.to_worker()
    await trio.sleep(60)
    assert await bench.handed() == [second]


async def test_a_recorded_outcome_frees_the_slot_even_if_the_worker_says_nothing(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=1)
    first, second = await bench.schedule(2)
    await bench.end(first)
    assert await bench.handed() == [first, second]
    await bench.finish(first)
    third = await bench.schedule()
    assert await bench.handed() == [], "the late report freed no second slot"
    await bench.finish(second)
    assert await bench.handed() == third


async def test_a_new_incarnation_gets_again_what_the_former_was_running(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=3, incarnation=1)
    refs = await bench.schedule(5)
    assert await bench.handed() == refs[:3]
    await bench.end(refs[1])
    assert await bench.handed() == refs[3:4]
    await bench.attach(slots=3, incarnation=2)
    assert await bench.handed() == [refs[0], refs[2], refs[3]], "from the front of the queue"
    await bench.finish(refs[0], incarnation=1)
    assert await bench.handed() == [], "the former incarnation has no say"
    await bench.attach(slots=5, incarnation=1)
    assert await bench.handed() == []
    await bench.finish(refs[0], incarnation=2)
    assert await bench.handed() == refs[4:]


async def test_attaching_again_keeps_what_runs(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=2)
    refs = await bench.schedule(5)
    assert await bench.handed() == refs[:2]
    await bench.attach(slots=3)
    assert await bench.handed() == refs[2:3]
    await bench.attach(slots=0)
    await bench.finish(*refs[:3])
    assert await bench.handed() == [], "a worker that drains gets nothing more"


async def test_a_finished_task_that_is_never_recorded_is_handed_out_again_if_it_still_waits(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=5)
    lost, recorded = await bench.schedule(2)
    await bench.finish(lost, recorded)
    await bench.remove(recorded)  # and the RetireTasks got lost
    await bench.to_worker()
    await trio.sleep(bench.settings.handout_seconds * 1.5)
    assert await bench.handed() == [lost]


async def test_a_full_worker_link_is_tried_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    bench.links = type(bench.links)(
        history=bench.links.history,
        matching=bench.links.matching,
        worker=MemoryLink("Worker", 2),
        timer=bench.links.timer,
    )
    while bench.links.worker.offer(Announce()):
        pass
    await bench.start(nursery)
    await bench.attach(slots=10)
    refs = await bench.schedule(4)
    assert len(await bench.to_worker()) == 2, "what was there before"
    seen = []
    for _ in range(4):
        await trio.sleep(1)
        seen += await bench.to_worker()
    assert seen == [Announce(), *(RunTask(ref) for ref in refs)]


async def test_specs_ride_along_until_they_take_too_much_memory(
    nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SPEC_BYTES", 10_000)
    await bench.start(nursery)
    tasks = await bench.commit(4)
    bench.offer(tasks, specs=True, input=b'"' + b"x" * 2500 + b'"')
    await settle()
    await bench.to_worker()
    await bench.attach(slots=4)
    runs = [m for m in await bench.to_worker() if isinstance(m, RunTask)]
    assert [m.task for m in runs] == [task.task for task in tasks]
    assert [m.spec is not None for m in runs] == [True, True, False, False]
    assert runs[0].spec == spec_of(tasks[0], b'"' + b"x" * 2500 + b'"')
    again = await bench.commit(1)
    await bench.finish(*(task.task for task in tasks))
    bench.offer(again, specs=True)
    await settle()
    (run,) = [m for m in await bench.to_worker() if isinstance(m, RunTask)]
    assert run.spec is not None, "what was handed out takes no memory any more"


async def test_expiry_of_a_task_that_waits_is_answered_and_of_one_that_runs_is_not(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=2)
    running, finished, waiting = await bench.schedule(3)
    unknown = (await bench.commit(1, kind=TaskKind.ACTIVITY))[0].task
    bench.tell(ExpireTask(running, 5.0, SOME_QUEUE))
    bench.tell(ExpireTask(waiting, 6.0, SOME_QUEUE))
    bench.tell(ExpireTask(unknown, 7.0, SOME_QUEUE))
    await settle()
    assert await bench.to_history() == [TaskExpired(waiting, 6.0), TaskExpired(unknown, 7.0)]
    await bench.to_worker()
    await bench.finish(finished)
    bench.tell(ExpireTask(finished, 8.0, SOME_QUEUE))
    await bench.finish(running)
    assert await bench.to_history() == []
    assert await bench.handed() == [], "the expired one is not handed out"


async def test_a_full_history_link_holds_matching_up_and_loses_no_expiry(nursery: trio.Nursery, bench: Bench) -> None:
    bench.links = type(bench.links)(
        history=MemoryLink("History", 2),
        matching=bench.links.matching,
        worker=bench.links.worker,
        timer=bench.links.timer,
    )
    await bench.start(nursery)
    refs = await bench.schedule(6)
    for ref in refs:
        bench.tell(ExpireTask(ref, 1.0, SOME_QUEUE))
    await settle()
    expired = []
    while len(expired) < 6:
        expired += await bench.to_history()
        await settle()
    assert expired == [TaskExpired(ref, 1.0) for ref in refs]


async def test_retirements_of_unknown_tasks_are_ignored(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=1)
    (task,) = await bench.commit()
    bench.tell(RetireTasks([task.task], cancel=True))
    bench.tell(RetireTasks([task.task]))
    await settle()
    assert await bench.to_worker() == [Announce()]
