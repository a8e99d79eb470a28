"""The link inside one process: order, bounds, deadlines, and what is left when either end is cancelled."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.links.interface import Caller, Link, Request
from daemon.links.memory import MemoryLink
from daemon.links.table import memory_links
from enginekit.messages.calls import Acknowledged, Hello, ListQueues, ListQueuesResult
from enginekit.messages.links import Announce, ReportAgain, ToWorker
from enginekit.messages.status import ErrorStatus, Refused

ME = Caller(tenant="acme", subject="me")


def link(capacity: int = 100) -> MemoryLink[int]:
    return MemoryLink("Matching", capacity)


async def receive_one(here: Link[int]) -> int | Request:
    (item,) = await here.receive(1)
    return item


async def test_messages_come_in_batches_in_their_order() -> None:
    here = link()
    for number in range(10):
        assert here.offer(number)
    assert await here.receive(4) == [0, 1, 2, 3]
    assert await here.receive() == [4, 5, 6, 7, 8, 9]


async def test_a_receiver_waits_for_the_first() -> None:
    here = link()
    got: list[int | Request] = []

    async def receiver() -> None:
        got.extend(await here.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        await wait_all_tasks_blocked()
        assert got == []
        here.offer(1)
        here.offer(2)
    assert got == [1, 2]


async def test_a_full_link_says_no_and_keeps_what_it_has() -> None:
    here = link(2)
    assert [here.offer(n) for n in range(4)] == [True, True, False, False]
    assert await here.receive() == [0, 1]
    assert here.offer(5)
    assert await here.receive() == [5]


async def test_senders_wait_for_room_and_get_it_in_their_order() -> None:
    here = link(2)
    sent: list[int] = []

    async def send(number: int) -> None:
        await here.send(number)
        sent.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(send, number)
            await wait_all_tasks_blocked()
        assert sent == [0, 1]
        assert await here.receive(1) == [0]
        assert not here.offer(99), "those who wait come first"
        await wait_all_tasks_blocked()
        assert sent == [0, 1, 2]
        assert await here.receive() == [1, 2]
        assert await here.receive() == [3, 4]


async def test_a_cancelled_send_sent_nothing() -> None:
    here = link(1)
    here.offer(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await here.receive() == [0]
    with trio.CancelScope() as scope:
        scope.cancel()
        await here.send(2)
    assert scope.cancelled_caught
    assert len(here) == 0


async def test_a_cancelled_receive_took_nothing() -> None:
    here = link()
    with trio.CancelScope() as scope:
        scope.cancel()
        here.offer(1)
        await here.receive()
    assert scope.cancelled_caught
    assert await here.receive() == [1]


async def test_a_receive_cancelled_while_it_is_being_woken_took_nothing_or_returned_it() -> None:
    here = link()
    got: list[int | Request] = []

    async def receiver(scope: trio.CancelScope) -> None:
        with scope:
            got.extend(await here.receive())

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver, scope)
        await wait_all_tasks_blocked()
        here.offer(1)
        scope.cancel()
    with trio.move_on_after(0):
        got.extend(await here.receive())
    assert got == [1]


async def test_messages_survive_a_receiver_that_crashes() -> None:
    here = link()

    async def crash() -> None:
        await here.receive(1)
        raise ValueError

    here.offer(0)
    here.offer(1)
    with pytest.RaisesGroup(ValueError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
    assert await here.receive() == [1]


async def test_a_request_is_answered_in_its_turn() -> None:
    here = link()
    here.offer(1)
    answers: list[ListQueuesResult] = []

    async def ask() -> None:
        answers.append(await here.request(ME, ListQueues(), ListQueuesResult, timeout=5))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        here.offer(2)
        first, request, last = await here.receive()
        assert (first, last) == (1, 2)
        assert isinstance(request, Request)
        assert request.caller == ME
        assert request.call == ListQueues()
        assert request.awaited
        request.answer(ListQueuesResult(queues=[]))
        assert not request.awaited
        request.refuse(Refused(ErrorStatus.INTERNAL, "too late to change it"))
    assert answers == [ListQueuesResult(queues=[])]


async def test_a_refusal_is_raised() -> None:
    here = link()

    async def refuse() -> None:
        request = await receive_one(here)
        assert isinstance(request, Request)
        request.refuse(Refused(ErrorStatus.NOT_FOUND, "no such thing", {"reason": "CLOSED"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(Refused, match="no such thing") as refused:
            await here.request(ME, Hello(), Acknowledged, timeout=5)
        assert refused.value.status is ErrorStatus.NOT_FOUND
        assert refused.value.data == {"reason": "CLOSED"}


async def test_an_answer_of_another_type_is_a_defect_and_said_so() -> None:
    here = link()

    async def answer() -> None:
        request = await receive_one(here)
        assert isinstance(request, Request)
        request.answer(Acknowledged())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(TypeError, match="answered ListQueues with Acknowledged, not ListQueuesResult"):
            await here.request(ME, ListQueues(), ListQueuesResult, timeout=5)


async def test_a_request_to_a_service_that_is_down_ends_at_its_deadline(autojump_clock: MockClock) -> None:
    here = link()
    begun = trio.current_time()
    with pytest.raises(Refused, match=r"Matching did not answer Hello within 2\.5 s") as refused:
        await here.request(ME, Hello(), Acknowledged, timeout=2.5)
    assert refused.value.status is ErrorStatus.UNAVAILABLE
    assert trio.current_time() - begun == pytest.approx(2.5)
    here.offer(7)
    assert await here.receive() == [7], "nobody waits for the request any more"


async def test_an_answer_after_the_deadline_changes_nothing(autojump_clock: MockClock) -> None:
    here = link()

    async def answer_late() -> None:
        request = await receive_one(here)
        assert isinstance(request, Request)
        await trio.sleep(2)
        assert not request.awaited
        request.answer(Acknowledged())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_late)
        with pytest.raises(Refused):
            await here.request(ME, Hello(), Acknowledged, timeout=1)


async def test_a_cancelled_request_is_not_received() -> None:
    here = link()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.request, ME, Hello(), Acknowledged, 5)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    here.offer(1)
    assert await here.receive() == [1]


async def test_a_receiver_that_is_woken_by_an_abandoned_request_goes_on_waiting() -> None:
    here = link()
    got: list[int | Request] = []

    async def receiver() -> None:
        got.extend(await here.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await here.request(ME, Hello(), Acknowledged, 5)
        await wait_all_tasks_blocked()
        assert got == []
        here.offer(1)
    assert got == [1]


async def test_requests_take_places_in_the_same_bound(autojump_clock: MockClock) -> None:
    here = link(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.request, ME, Hello(), Acknowledged, 5)
        await wait_all_tasks_blocked()
        assert here.offer(1)
        assert not here.offer(2)
        with pytest.raises(Refused) as refused:
            await here.request(ME, Hello(), Acknowledged, timeout=5)
        assert refused.value.status is ErrorStatus.RESOURCE_EXHAUSTED
        assert isinstance(refused.value.data["retry_after_seconds"], float)
        nursery.cancel_scope.cancel()


async def test_abandoned_requests_make_room_in_a_full_link(autojump_clock: MockClock) -> None:
    here = link(2)
    for _ in range(2):
        with pytest.raises(Refused, match="UNAVAILABLE"):
            await here.request(ME, Hello(), Acknowledged, timeout=1)
    assert len(here) == 2
    assert here.offer(1)
    assert await here.receive() == [1]


async def test_two_receivers_share_the_work_and_neither_starves() -> None:
    here = link()
    got: list[int | Request] = []

    async def receiver() -> None:
        got.extend(await here.receive(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        nursery.start_soon(receiver)
        await wait_all_tasks_blocked()
        here.offer(1)
        here.offer(2)
    assert sorted(n for n in got if isinstance(n, int)) == [1, 2]


def test_a_link_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="Matching needs room for at least one"):
        link(0)


async def test_the_table_has_a_link_into_each_service() -> None:
    links = memory_links()
    assert links.worker.offer(Announce())
    assert links.worker.offer(ReportAgain())
    received: list[ToWorker | Request] = await links.worker.receive()
    assert received == [Announce(), ReportAgain()]
    assert len({id(x) for x in (links.history, links.matching, links.worker, links.timer)}) == 4


@given(
    capacity=st.integers(1, 5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.just(0)),
            st.tuples(st.just("send"), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 9)),
            st.tuples(st.just("receive"), st.integers(1, 4)),
        ),
        max_size=40,
    ),
)
def test_nothing_is_lost_doubled_or_reordered(capacity: int, steps: list[tuple[str, int]]) -> None:
    """Against a model: a queue of what was accepted, and the senders that wait behind it."""

    async def scenario() -> None:
        here = link(capacity)
        queue: list[int] = []
        waiting: dict[int, trio.CancelScope] = {}
        number = 0

        async def send(n: int) -> None:
            scope = trio.CancelScope()
            waiting[n] = scope
            with scope:
                await here.send(n)
            waiting.pop(n, None)

        async with trio.open_nursery() as nursery:
            for what, argument in steps:
                number += 1
                if what == "offer":
                    accepted = here.offer(number)
                    assert accepted == (len(queue) < capacity)
                    if accepted:
                        queue.append(number)
                elif what == "send":
                    nursery.start_soon(send, number)
                    await wait_all_tasks_blocked()
                    if number not in waiting:
                        queue.append(number)
                    assert (number in waiting) == (len(queue) >= capacity and number not in queue)
                elif what == "cancel" and argument < len(waiting):
                    list(waiting.values())[argument].cancel()
                    await wait_all_tasks_blocked()
                elif what == "receive" and queue:
                    behind = sorted(waiting)
                    taken = await here.receive(argument)
                    assert taken == queue[:argument]
                    del queue[:argument]
                    await wait_all_tasks_blocked()
                    admitted = behind[: capacity - len(queue)]
                    assert [n for n in behind if n not in waiting] == admitted
                    queue += admitted
                assert len(here) == len(queue)
            nursery.cancel_scope.cancel()

    trio.run(scenario)
