"""What every exchange promises, inside a process and over Redis."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio
from both_sides import ME, Both
from msgspec import Raw

from daemon.links.interface import Caller, Link, Request
from daemon.links.redis.exchange import RedisExchange
from enginekit.messages import calls, schedules
from enginekit.messages.calls import Acknowledged, Hello
from enginekit.messages.events import TaskKind, Usage
from enginekit.messages.links import (
    ArmTimer,
    EndPolls,
    LookAtClock,
    OfferTask,
    Ping,
    Pong,
    QueuedTask,
    QueueKey,
    ReportAgain,
    RunRef,
    TaskExpired,
    TaskOutcome,
    TaskRef,
    TaskSpec,
    ToHistory,
    ToTimer,
    WakeRuns,
)
from enginekit.messages.status import ErrorStatus, Refused

RUN = RunRef("acme", "order-7", "0198c0de-0000-7000-8000-000000000007")


def wake(number: int) -> WakeRuns:
    return WakeRuns([RunRef("acme", f"order-{number}", f"run-{number}")])


async def receive_many(link: Link[ToHistory], count: int) -> list[ToHistory | Request]:
    got: list[ToHistory | Request] = []
    with trio.fail_after(60):
        while len(got) < count:
            got += await link.receive()
    return got


async def answer_all(link: Link[ToHistory]) -> None:
    while True:
        for item in await link.receive():
            assert isinstance(item, Request)
            item.answer(Pong())


def places(messages: Iterable[object]) -> list[str]:
    return [message.runs[0].run_id for message in messages if isinstance(message, WakeRuns)]


async def test_messages_come_in_their_order(exchanges: Both) -> None:
    for number in range(1000):
        assert exchanges.near.history(3).offer(wake(number))
    got = await receive_many(exchanges.far.history(3), 1000)
    assert places(got) == [f"run-{number}" for number in range(1000)]


async def test_an_inbox_gets_what_is_for_it_alone(exchanges: Both) -> None:
    assert exchanges.near.history(1).offer(wake(1))
    assert exchanges.near.history(2).offer(wake(2))
    assert exchanges.near.matching(1).offer(EndPolls(QueueKey("acme", TaskKind.ACTIVITY, "resize"), "w"))
    assert exchanges.near.worker("w").offer(ReportAgain())
    with trio.fail_after(60):
        assert places(await exchanges.far.history(2).receive()) == ["run-2"]
        assert places(await exchanges.far.history(1).receive()) == ["run-1"]
        (polls,) = await exchanges.far.matching(1).receive()
        assert isinstance(polls, EndPolls)
        assert await exchanges.far.worker("w").receive() == [ReportAgain()]


async def test_what_waits_longer_than_its_receiver_is_there(exchanges: Both) -> None:
    """Sent before anybody received there."""
    await exchanges.near.timer.send(ArmTimer(RUN, 17))
    with trio.fail_after(60):
        assert await exchanges.far.timer.receive() == [ArmTimer(RUN, 17)]


async def test_payloads_come_as_they_went(exchanges: Both) -> None:
    odd = Raw(b'{"a": 1.0,  "b":[1e2, "\\u00e9", null],"c":12345678901234567890123, "c": 2}')
    outcome = TaskOutcome(TaskRef(RUN, 7), "w", output=odd, ran_seconds=0.1, usage=Usage(requests=1))
    spec = TaskSpec(TaskRef(RUN, 7), "http", "Ship", "Ship[3]", odd, 2, 300.0, "key", destination="a:1")
    task = QueuedTask(TaskRef(RUN, 7), QueueKey("acme", TaskKind.NODE, "http"), 3, 99, "a:1")
    exchanges.near.history(0).offer(outcome)
    exchanges.near.matching(0).offer(OfferTask(task, spec))
    with trio.fail_after(60):
        assert await exchanges.far.history(0).receive() == [outcome]
        assert await exchanges.far.matching(0).receive() == [OfferTask(task, spec)]


async def test_a_request_is_answered(exchanges: Both, nursery: trio.Nursery) -> None:
    async def serve() -> None:
        (request,) = await exchanges.far.history(0).receive()
        assert isinstance(request, Request)
        assert request.awaited
        assert request.caller == Caller("acme", "me")
        assert request.call == calls.StartWorkflow(workflow="order", input=Raw(b'{"x": 1}'), labels={"a": "b"})
        request.answer(calls.StartWorkflowResult(workflow_id="order-1", run_id="run-1"))
        request.refuse(Refused(ErrorStatus.INTERNAL, "too late to say so"))

    nursery.start_soon(serve)
    started = await exchanges.near.history(0).request(
        ME,
        calls.StartWorkflow(workflow="order", input=Raw(b'{"x": 1}'), labels={"a": "b"}),
        calls.StartWorkflowResult,
        60.0,
    )
    assert started == calls.StartWorkflowResult(workflow_id="order-1", run_id="run-1")


async def test_a_refusal_travels_whole(exchanges: Both, nursery: trio.Nursery) -> None:
    async def serve() -> None:
        (request,) = await exchanges.far.history(0).receive()
        assert isinstance(request, Request)
        request.refuse(Refused(ErrorStatus.FAILED_PRECONDITION, "it’s over", {"reason": "CLOSED", "n": [1, 2.5, None]}))

    nursery.start_soon(serve)
    with pytest.raises(Refused) as refused:
        await exchanges.near.history(0).request(ME, schedules.ListSchedules(), schedules.ListSchedulesResult, 60.0)
    assert refused.value.status is ErrorStatus.FAILED_PRECONDITION
    assert refused.value.message == "it’s over"
    assert refused.value.data == {"reason": "CLOSED", "n": [1, 2.5, None]}


async def test_an_answer_of_another_type_is_an_error(exchanges: Both, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer_all, exchanges.far.history(0))
    with pytest.raises(TypeError, match="answered Hello with Pong, not Acknowledged"):
        await exchanges.near.history(0).request(ME, Hello(), Acknowledged, 60.0)


async def test_without_an_answer_a_request_is_unavailable(exchanges: Both) -> None:
    with pytest.raises(Refused, match=r"did not answer Ping within 0\.2 s") as refused:
        await exchanges.near.history(0).request(ME, Ping(), Pong, 0.2)
    assert refused.value.status is ErrorStatus.UNAVAILABLE


async def test_requests_past_their_deadline_are_left_out(exchanges: Both) -> None:
    began = trio.current_time()
    with pytest.raises(Refused):
        await exchanges.near.history(0).request(ME, Ping(), Pong, 0.1)
    # Over Redis it is wanted for as much longer as its way took.
    if isinstance(exchanges.near, RedisExchange):
        with trio.fail_after(60):
            while exchanges.near.counts().waiting:  # noqa: ASYNC110 - nobody tells of what has left
                await trio.sleep(0.01)
    await trio.sleep(trio.current_time() - began + 0.1)
    assert exchanges.near.history(0).offer(LookAtClock())
    with trio.fail_after(60):
        assert await exchanges.far.history(0).receive() == [LookAtClock()]


async def test_many_requests_at_once(exchanges: Both, nursery: trio.Nursery) -> None:
    nursery.start_soon(answer_all, exchanges.far.history(0))
    nursery.start_soon(answer_all, exchanges.far.history(1))
    answered = 0

    async def ask(number: int) -> None:
        nonlocal answered
        assert await exchanges.near.history(number % 2).request(ME, Ping(), Pong, 60.0) == Pong()
        answered += 1

    async with trio.open_nursery() as asking:
        for number in range(300):
            asking.start_soon(ask, number)
    assert answered == 300


async def test_two_timers_share_their_inbox(exchanges: Both) -> None:
    """Each message goes to one of them."""
    got: list[ToTimer | Request] = []
    by: set[int] = set()

    async def timer(number: int) -> None:
        exchange = (exchanges.near, exchanges.far)[number]
        while True:
            got.extend(await exchange.timer.receive(1))
            by.add(number)
            await trio.sleep(0.001)

    async with trio.open_nursery() as timers:
        timers.start_soon(timer, 0)
        timers.start_soon(timer, 1)
        with trio.fail_after(60):
            number = 0
            while len(by) < 2 or number < 50:
                assert exchanges.near.timer.offer(ArmTimer(RUN, number))
                number += 1
                await trio.sleep(0.005)
            while len(got) < number:  # noqa: ASYNC110
                await trio.sleep(0.005)
        timers.cancel_scope.cancel()
    assert sorted(each.wake_at for each in got if isinstance(each, ArmTimer)) == list(range(number))


async def test_a_receiver_that_looks_at_the_clock_in_between_loses_nothing(exchanges: Both) -> None:
    got: list[ToTimer | Request] = []

    async def timer() -> None:
        while True:
            with trio.move_on_after(0.003):
                got.extend(await exchanges.far.timer.receive(3))

    async with trio.open_nursery() as timers:
        timers.start_soon(timer)
        for number in range(200):
            await exchanges.near.timer.send(ArmTimer(RUN, number))
            if number % 10 == 0:
                await trio.sleep(0.002)
        with trio.fail_after(60):
            while len(got) < 200:  # noqa: ASYNC110
                await trio.sleep(0.005)
        timers.cancel_scope.cancel()
    assert [each.wake_at for each in got if isinstance(each, ArmTimer)] == list(range(200))


async def test_one_s_own_inbox(exchanges: Both) -> None:
    expired = TaskExpired(TaskRef(RUN, 1), 2.5)
    assert exchanges.near.history(5).offer(expired)
    with trio.fail_after(60):
        assert await exchanges.near.history(5).receive() == [expired]
