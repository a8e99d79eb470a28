"""Matching and the circuit breakers: who waits, who goes on, what is probed, and what memory and store are asked."""

from __future__ import annotations

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle
from trio.testing import MockClock

from daemon.settings import BreakerSettings
from enginekit.messages.calls import BreakerView
from enginekit.messages.links import ExpireTask, TaskExpired, TaskRef
from enginekit.messages.status import BreakerState

DEAD, WELL = "dead:80", "well:80"
SETTINGS = BreakerSettings(window_seconds=60.0, minimum_calls=4, failure_rate=0.5, open_seconds=10.0, probes=2)


@pytest.fixture
def bench() -> Bench:
    return Bench(breakers=SETTINGS)


async def opened(nursery: trio.Nursery, bench: Bench, slots: int = 10) -> None:
    """A Matching with a Worker, and the breaker of DEAD open, nothing running."""
    await bench.start(nursery)
    await bench.attach(slots)
    refs = await bench.schedule(4, name="http", destination=DEAD)
    assert await bench.handed() == refs
    await bench.failed(*refs)
    assert (await bench.breaker(DEAD)).state is BreakerState.OPEN


async def test_its_tasks_wait_and_those_of_others_in_the_same_queue_go_on(nursery: trio.Nursery, bench: Bench) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(5, name="http", destination=DEAD)
    others = await bench.schedule(3, name="http", destination=WELL)
    none = await bench.schedule(name="http")
    foreign = await bench.schedule(name="http", destination=DEAD, tenant="other")
    assert set(await bench.handed()) == {*others, *none, *foreign}
    assert (await bench.views())["http"].depth == len(waiting)
    assert (await bench.breaker(DEAD)).waiting == len(waiting)


async def test_what_was_queued_already_waits_as_well(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.attach(slots=4)
    refs = await bench.schedule(9, name="http", destination=DEAD)
    others = await bench.schedule(2, name="http", destination=WELL)
    assert await bench.handed() == refs[:4]
    await bench.failed(*refs[:4])
    assert await bench.handed() == others
    assert (await bench.breaker(DEAD)).waiting == 5


async def test_half_open_a_few_probe_and_when_they_go_well_all_follow(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(7, name="http", destination=DEAD)
    await trio.sleep(9.9)
    assert await bench.handed() == []
    await trio.sleep(0.2)
    probes = await bench.handed()
    assert probes == waiting[:2]
    await bench.went_well(probes[0])
    assert await bench.handed() == [], "the second probe decides"
    assert (await bench.breaker(DEAD)).state is BreakerState.HALF_OPEN
    await bench.went_well(probes[1])
    assert await bench.handed() == waiting[2:]
    assert await bench.breakers_seen() == []


async def test_a_probe_that_fails_opens_it_for_as_long_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(9, name="http", destination=DEAD)
    calls: list[TaskRef] = []
    for _ in range(3):
        await trio.sleep(10.1)
        probes = await bench.handed()
        assert len(probes) == 2
        calls += probes
        await bench.failed(*probes)
        await trio.sleep(9.5)
        assert await bench.handed() == []
    assert calls == waiting[:6]


async def test_calls_from_before_it_closed_do_not_open_it_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.attach(slots=10)
    early = await bench.schedule(10, name="http", destination=DEAD)
    await bench.failed(*early[:4])
    await bench.handed()
    later = await bench.schedule(3, name="http", destination=DEAD)
    await trio.sleep(10.1)
    await bench.went_well(*await bench.handed())
    assert await bench.handed() == later[2:]
    await bench.failed(*early[4:])
    assert await bench.breakers_seen() == []


async def test_an_offer_while_it_is_half_open_is_the_probe(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    await trio.sleep(11)
    assert await bench.schedule(name="http", destination=DEAD) == await bench.handed()
    assert await bench.schedule(name="http", destination=DEAD) == await bench.handed()
    await bench.schedule(name="http", destination=DEAD)
    assert await bench.handed() == []


@pytest.mark.parametrize("how", ["unreported", "over", "canceled", "worker lost", "silent"])
async def test_a_probe_that_vanishes_is_followed_by_another(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, how: str
) -> None:
    await opened(nursery, bench)
    waiting = await bench.schedule(6, name="http", destination=DEAD)
    await trio.sleep(10.1)
    probes = await bench.handed()
    assert probes == waiting[:2]
    match how:
        case "unreported":
            await bench.finish(*probes)
        case "over":
            await bench.end(*probes)  # what the Worker says of them may still come
            assert await bench.handed() == []
            await trio.sleep(10.1)
        case "canceled":
            await bench.end(*probes, cancel=True)
        case "worker lost":
            await bench.attach(slots=10, incarnation=2)
            assert await bench.handed() == probes, "the same tasks again"
            await bench.end(*probes, cancel=True)
        case _:
            await trio.sleep(10.1)
    assert await bench.handed() == waiting[2:4]
    if how == "silent":
        await bench.went_well(*probes)
        assert await bench.handed() == waiting[4:], "they counted after all"


async def test_a_candidate_that_expires_is_followed_by_another(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    busy = await bench.schedule(10, name="echo")
    waiting = await bench.schedule(6, name="http", destination=DEAD)
    assert await bench.handed() == busy
    await trio.sleep(10.1)
    for ref in waiting[:2]:
        bench.tell(ExpireTask(ref, 10.1, SOME_QUEUE))
    await bench.remove(*waiting[:2])
    await bench.end(*busy)
    await bench.finish(*busy)
    assert await bench.handed() == waiting[2:4]


async def test_the_time_to_start_ends_tasks_that_wait_for_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(queue_tasks=10, breakers=SETTINGS)
    await opened(nursery, bench)
    waiting = await bench.schedule(30, name="http", destination=DEAD)
    for ref in waiting:
        bench.tell(ExpireTask(ref, 60.0, SOME_QUEUE))
    await settle()
    assert await bench.to_history() == [TaskExpired(ref, 60.0) for ref in waiting]
    await bench.remove(*waiting)
    assert (await bench.views())["http"].depth == 0
    assert (await bench.breaker(DEAD)).waiting == 0


async def test_retries_come_to_the_queue_and_wait_there(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    retries = await bench.schedule(4, name="http", destination=DEAD)
    await trio.sleep(5)
    assert await bench.handed() == []
    await trio.sleep(5.1)
    assert await bench.handed() == retries[:2]


async def test_a_restart_forgets_and_learns_anew(nursery: trio.Nursery, bench: Bench) -> None:
    first = await bench.start(nursery)
    await bench.attach(slots=4)
    refs = await bench.schedule(12, name="http", destination=DEAD)
    assert await bench.handed() == refs[:4]
    await bench.failed(*refs[:4])
    first.cancel()
    await settle()
    await bench.start(nursery)
    assert await bench.breakers_seen() == []
    assert bench.gauge(BreakerState.OPEN) == 0
    await bench.attach(slots=4)
    assert await bench.handed() == refs[4:8]
    await bench.failed(*refs[4:8])
    assert await bench.handed() == []
    assert (await bench.breaker(DEAD)).waiting == 4


# --- many ------------------------------------------------------------------------------------------------------------


async def test_a_hundred_thousand_tasks_in_front_neither_starve_nor_fill_memory(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """They are in the store before Matching starts; healthy ones stand behind them, and come after."""
    bench = Bench(queue_tasks=100, breakers=SETTINGS)
    front = [task.task for task in await bench.commit(100_000, name="http", destination=DEAD, scheduled_at=1)]
    behind = [task.task for task in await bench.commit(300, name="http", destination=WELL, scheduled_at=2)]
    await bench.start(nursery)
    await bench.attach(slots=10)
    first = await bench.handed()
    assert first == front[:10]
    await bench.failed(*first)
    done = await bench.work_off(lambda ref: True)
    assert done == behind
    later = await bench.schedule(250, name="http", destination=WELL)
    assert await bench.work_off(lambda ref: True) == later
    assert bench.in_memory() <= 2 * 100 + 10
    assert bench.store.read_tasks < 100 + 500 * 3 + 300 + 250 + 100, "the dead were read in passing, once"
    assert (await bench.views())["http"].depth == 100_000 - 10
    assert (await bench.breaker(DEAD)).waiting == 100_000 - 10
    bench.store.away = True
    assert (await bench.views())["http"].depth == 100_000 - 10, "about as many, for all that memory knows"
    bench.store.away = False
    reads = bench.store.reads
    await trio.sleep(9)
    await bench.schedule(50, name="http", destination=DEAD)
    assert await bench.handed() == []
    assert bench.store.reads == reads, "while they wait nobody asks for them"
    assert bench.in_memory() <= 2 * 100 + 10


async def test_when_it_is_well_again_all_that_was_left_to_the_store_comes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(queue_tasks=20, breakers=SETTINGS)
    await bench.start(nursery)
    await bench.attach(slots=4)
    refs = await bench.schedule(500, name="http", destination=DEAD)
    others = await bench.schedule(60, name="http", destination=WELL)
    await bench.failed(*await bench.handed())
    assert set(await bench.work_off(lambda ref: True)) == set(others)
    await trio.sleep(10.1)
    assert set(await bench.work_off(lambda ref: True)) == set(refs[4:])
    assert (await bench.views())["http"].depth == 0
    assert await bench.store.queue_backlogs() == []


async def test_probes_go_on_though_memory_has_run_out_of_them(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Far more rounds of probes than tasks fit into memory; every one is brought from the store in the end."""
    bench = Bench(queue_tasks=10, breakers=SETTINGS)
    await opened(nursery, bench)
    refs = await bench.schedule(60, name="http", destination=DEAD)
    probed: list[TaskRef] = []
    for _ in range(30):
        await trio.sleep(10.1)
        probes = await bench.handed()
        assert len(probes) == 2
        probed += probes
        await bench.failed(*probes)
    assert set(probed) == set(refs)


async def test_many_dead_destinations_share_the_room_and_each_keeps_its_probes(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(queue_tasks=50, breakers=SETTINGS)
    names = [f"dead{number}:80" for number in range(40)]
    await bench.start(nursery)
    await bench.attach(slots=200)
    for name in names:
        await bench.schedule(4, name="http", destination=name)
        await bench.failed(*await bench.handed())
    for _ in range(5):
        for name in names:
            await bench.schedule(3, name="http", destination=name)
    well = await bench.schedule(120, name="http", destination=WELL)
    assert await bench.work_off(lambda ref: True) == well
    assert bench.in_memory() <= 50 + 40 * 2
    assert (await bench.views())["http"].depth == 40 * 15
    assert {view.waiting for view in await bench.breakers_seen()} == {15}
    await trio.sleep(10.1)
    probes = await bench.handed()
    assert len(probes) == 40 * 2


async def test_the_store_may_be_away_when_it_is_asked_how_many_wait(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(queue_tasks=10, breakers=SETTINGS)
    await opened(nursery, bench)
    await bench.schedule(30, name="http", destination=DEAD)
    assert (await bench.breaker(DEAD)).waiting == 30
    bench.store.away = True
    assert (await bench.breaker(DEAD)).waiting == 10
    assert (await bench.views())["http"].depth == 30


async def test_a_store_that_takes_long_to_count_is_not_asked_all_the_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(queue_tasks=10, breakers=SETTINGS)
    await opened(nursery, bench)
    waiting = await bench.schedule(30, name="http", destination=DEAD)
    bench.store.counting_seconds = 0.1
    assert (await bench.breaker(DEAD)).waiting == 30
    await bench.end(waiting[0])
    for _ in range(19):
        assert (await bench.breaker(DEAD)).waiting == 30
        assert (await bench.views())["http"].depth == 30
        await trio.sleep(0.1)
    assert bench.store.counted == 1
    await trio.sleep(0.2)
    assert (await bench.breaker(DEAD)).waiting == 29


# --- what is shown ---------------------------------------------------------------------------------------------------


async def test_breakers_are_shown_to_their_tenant_with_what_there_is_to_know(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await opened(nursery, bench)
    since = bench.clock.now()
    some = await bench.schedule(4, name="http", destination=WELL)
    await bench.handed()
    await bench.failed(some[0])
    await bench.went_well(*some[1:])
    await trio.sleep(3)
    assert await bench.breakers_seen(tenant="other") == []
    dead, well = await bench.breakers_seen()
    assert isinstance(dead, BreakerView)
    assert (dead.destination, dead.failure_rate, dead.waiting) == (DEAD, 1.0, 0)
    assert dead.since.timestamp() * 1000 == since
    assert dead.next_probe_at is not None
    assert (dead.next_probe_at - dead.since).total_seconds() == 10.0
    assert (well.destination, well.state, well.failure_rate) == (WELL, BreakerState.CLOSED, 0.25)
    assert (bench.gauge(BreakerState.OPEN), bench.gauge(BreakerState.HALF_OPEN)) == (1, 0)
    await trio.sleep(8)
    assert (bench.gauge(BreakerState.OPEN), bench.gauge(BreakerState.HALF_OPEN)) == (0, 1)
    assert (await bench.breaker(DEAD)).next_probe_at is None
    await trio.sleep(200)
    assert await bench.breakers_seen() == [], "a window without news, and nothing waits: it is forgotten"
    assert bench.gauge(BreakerState.HALF_OPEN) == 0


async def test_switched_off_there_are_none(nursery: trio.Nursery) -> None:
    bench = Bench(breakers=BreakerSettings(enabled=False, minimum_calls=1))
    await bench.start(nursery)
    await bench.attach(slots=100)
    await bench.failed(*await bench.schedule(50, name="http", destination=DEAD))
    await bench.handed()
    more = await bench.schedule(5, name="http", destination=DEAD)
    assert await bench.handed() == more
    assert await bench.breakers_seen() == []
