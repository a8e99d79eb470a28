"""Matching and those who poll: order, waits, hand-outs that lead to nothing, bounds."""

from __future__ import annotations

import pytest
import trio
from matching_bench import SOME_QUEUE, Bench, settle
from trio.testing import MockClock

from daemon.dispatch import activity_polls, known
from daemon.links.interface import Caller
from enginekit.messages.calls import Acknowledged, Hello
from enginekit.messages.events import TaskKind
from enginekit.messages.links import (
    ExpireTask,
    MatchTasks,
    MatchTasksResult,
    QueueKey,
    RetireTasks,
    TaskExpired,
    TaskRef,
)
from enginekit.messages.status import ErrorStatus, Refused

ACTIVITY = {"kind": TaskKind.ACTIVITY, "name": "render"}


async def test_a_poll_takes_what_waits_up_to_what_it_asked_for(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    refs = await bench.schedule(5, **ACTIVITY)
    assert await bench.poll(max_tasks=2) == refs[:2]
    assert await bench.poll(max_tasks=10) == refs[2:]
    view = (await bench.views())["render"]
    assert (view.kind, view.depth, view.pollers, view.dispatched) == ("activity", 0, 0, 5)


async def test_a_poll_waits_for_the_first_task(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    got: list[TaskRef] = []

    async def poll() -> None:
        got.extend(await bench.poll(wait_seconds=30, max_tasks=5))

    async with trio.open_nursery() as inner:
        inner.start_soon(poll)
        await trio.sleep(20)
        assert (await bench.views())["render"].pollers == 1
        refs = await bench.schedule(2, **ACTIVITY)
    assert got == refs


async def test_a_poll_for_nothing_is_answered_with_nothing_when_its_wait_ends(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    begun = trio.current_time()
    assert await bench.poll(wait_seconds=0) == []
    assert trio.current_time() == begun
    assert await bench.poll(wait_seconds=12) == []
    assert trio.current_time() - begun == pytest.approx(12)
    assert (await bench.views())["render"].pollers == 0


async def test_a_poll_is_answered_before_its_own_request_ends(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    key = QueueKey(tenant="acme", kind=TaskKind.ACTIVITY, name="render")
    call = MatchTasks(queue=key, worker_id="w", max_tasks=1, wait_seconds=60)
    result = await bench.links.matching.request(Caller("acme", "w"), call, MatchTasksResult, timeout=10)
    assert result.tasks == []


async def test_pollers_are_served_in_the_order_in_which_they_came(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    got: dict[str, list[TaskRef]] = {}

    async def poll(who: str, wait_seconds: float) -> None:
        got[who] = await bench.poll(wait_seconds=wait_seconds)

    for who, wait_seconds in (("first", 100), ("impatient", 1), ("second", 50), ("third", 70)):
        nursery.start_soon(poll, who, wait_seconds)
        await settle()
    await trio.sleep(5)
    refs = await bench.schedule(2, **ACTIVITY)
    assert got == {"impatient": [], "first": refs[:1], "second": refs[1:]}


async def test_a_poller_that_has_gone_away_gets_nothing(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    async with trio.open_nursery() as inner:
        inner.start_soon(bench.poll)
        await settle()
        inner.cancel_scope.cancel()
    assert (await bench.views())["render"].pollers == 0
    refs = await bench.schedule(**ACTIVITY)
    assert await bench.poll() == refs


async def test_a_task_handed_to_a_poller_is_offered_again_unless_its_start_is_recorded(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    lost, started = await bench.schedule(2, **ACTIVITY)
    assert await bench.poll(max_tasks=2) == [lost, started]
    await bench.remove(started, started=True)
    bench.tell(RetireTasks([started]))
    assert await bench.poll(wait_seconds=bench.settings.handout_seconds * 0.9) == []
    assert await bench.poll(wait_seconds=bench.settings.handout_seconds) == [lost]


async def test_a_start_that_is_recorded_but_not_reported_is_not_offered_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    (ref,) = await bench.schedule(**ACTIVITY)
    assert await bench.poll() == [ref]
    await bench.remove(ref, started=True)
    assert await bench.poll(wait_seconds=100) == []


async def test_a_returned_task_is_matched_again(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    tasks = await bench.commit(**ACTIVITY)
    for _ in range(3):
        bench.offer(tasks)
        assert await bench.poll() == [tasks[0].task]
        bench.tell(RetireTasks([tasks[0].task]))


async def test_expiry_of_a_task_given_to_a_poller_is_left_to_history_to_judge(
    nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    (ref,) = await bench.schedule(**ACTIVITY)
    assert await bench.poll() == [ref]
    bench.tell(ExpireTask(ref, 9.0, SOME_QUEUE))
    await settle()
    assert await bench.to_history() == [TaskExpired(ref, 9.0)]


async def test_tenants_do_not_see_one_another(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.schedule(2, **ACTIVITY)
    assert await bench.poll(tenant="other", wait_seconds=0) == []
    assert "render" in await bench.views("acme")
    assert (await bench.views("other"))["render"].depth == 0
    key = QueueKey(tenant="acme", kind=TaskKind.ACTIVITY, name="render")
    call = MatchTasks(queue=key, worker_id="w", max_tasks=1, wait_seconds=0)
    with pytest.raises(Refused) as refused:
        await bench.links.matching.request(Caller("other", "w"), call, MatchTasksResult, timeout=5)
    assert refused.value.status is ErrorStatus.PERMISSION_DENIED


async def test_what_it_does_not_answer_is_refused(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    key = QueueKey(tenant="acme", kind=TaskKind.NODE, name="echo")
    call = MatchTasks(queue=key, worker_id="w", max_tasks=1, wait_seconds=0)
    with pytest.raises(Refused, match="daemon's own worker"):
        await bench.links.matching.request(Caller("acme", "w"), call, MatchTasksResult, timeout=5)
    with pytest.raises(Refused, match="Matching does not answer Hello"):
        await bench.links.matching.request(Caller("acme", "w"), Hello(), Acknowledged, timeout=5)


async def test_pollers_are_bounded_and_those_gone_make_room(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_polls, "POLLERS", 3)
    await bench.start(nursery)
    async with trio.open_nursery() as inner:
        for _ in range(3):
            inner.start_soon(bench.poll)
        await settle()
        with pytest.raises(Refused, match="3 polls wait for queue render") as refused:
            await bench.poll()
        assert refused.value.status is ErrorStatus.RESOURCE_EXHAUSTED
        assert refused.value.data == {"retry_after_seconds": 1.0}
        inner.cancel_scope.cancel()
    assert await bench.poll(wait_seconds=1) == []


async def test_many_short_polls_leave_nothing_behind(nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    for _ in range(300):
        (ref,) = await bench.schedule(**ACTIVITY)
        assert await bench.poll(wait_seconds=100) == [ref]
        await bench.end(ref)
    assert (await bench.views())["render"].pollers == 0


async def test_a_queues_view(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.schedule(20, **ACTIVITY)
    await trio.sleep(7)
    await bench.poll(max_tasks=15)
    view = (await bench.views())["render"]
    assert (view.depth, view.dispatched, view.rate) == (5, 15, 1.5)
    assert view.oldest_seconds == pytest.approx(7, abs=0.01)
    await trio.sleep(11)
    assert (await bench.views())["render"].rate == 0


async def test_queues_that_nobody_uses_are_forgotten_when_there_are_many(
    nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "QUEUES", 10)
    await bench.start(nursery)
    (kept,) = await bench.schedule(**ACTIVITY)
    for number in range(50):
        await bench.poll(f"q{number}", wait_seconds=0)
    assert len(await bench.views()) <= 10
    assert await bench.poll() == [kept]
