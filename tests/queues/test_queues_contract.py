"""What everybody who shares queues may count on, in memory and in Redis alike."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.queues.interface import Ask, Demand, Numbers, PartitionQueues, Report, Terms, Told
from daemon.queues.redis.script import queue_key, queue_name
from enginekit.messages.links import EndPolls, QueuedTask, QueueKey, RunRef, TaskKind, TaskRef

SHORT = Terms(tasks=20, lease_seconds=0.5, delay_seconds=0.5)
ORDERS = QueueKey("acme", TaskKind.ACTIVITY, "orders")
T0 = 1_764_000_000_000


def ref(number: int, tenant: str = "acme") -> TaskRef:
    return TaskRef(RunRef(tenant, f"order-{number}", f"0190f0e0-0000-7000-8000-{number:012d}"), 3)


def task(
    number: int,
    queue: QueueKey = ORDERS,
    priority: int = 0,
    at: int | None = None,
    destination: str | None = None,
) -> QueuedTask:
    scheduled = T0 + (number if at is None else at)
    return QueuedTask(ref(number, queue.tenant), queue, priority, scheduled, destination)


def node(tenant: str, resource: str = "http") -> QueueKey:
    return QueueKey(tenant, TaskKind.NODE, resource)


async def offer(queues: PartitionQueues, *tasks: QueuedTask) -> Told:
    return await queues.turn(Ask(offered=list(tasks)))


async def claim(queues: PartitionQueues, tasks: int = 100, queue: QueueKey = ORDERS) -> list[int]:
    told = await queues.turn(Ask(demands=[Demand(tasks=tasks, queue=queue)]))
    return [number(each) for each in told.claims[0].tasks]


def number(task: QueuedTask) -> int:
    return int(task.task.run.run_id[-12:])


async def depth(queues: PartitionQueues, queue: QueueKey = ORDERS) -> int:
    return sum(each.depth for each in await queues.depths() if each.queue == queue)


# --- order -----------------------------------------------------------------------------------------------------------


async def test_by_priority_then_age_then_name(sides) -> None:
    one, other = await sides.two()
    await offer(one, task(1, at=5), task(2, at=3), task(3, priority=7), task(4, priority=-1, at=0))
    await offer(other, task(6, at=3), task(5, at=3), task(7, priority=2**31 - 1), task(8, priority=-(2**31)))
    assert await claim(one) == [7, 3, 2, 5, 6, 1, 4, 8]


async def test_a_task_comes_as_it_was_offered(sides) -> None:
    queue = node("Müller & Co|x", "aws-sdk:s3:getObject")
    one, other = await sides.two()
    sent = QueuedTask(TaskRef(RunRef(queue.tenant, "w/1", ref(1).run.run_id), 12), queue, 3, T0, "https://api:443")
    await offer(one, sent)
    told = await other.turn(Ask(demands=[Demand(tasks=5, resources=["http", queue.name])]))
    assert told.claims[0].tasks == [sent]
    assert [each.queue for each in await one.depths()] == [queue]


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(TaskKind))
def test_a_queues_name_says_which_it_is(tenant: str, name: str, kind: TaskKind) -> None:
    key = QueueKey(tenant, kind, name)
    assert queue_key(queue_name(key)) == key


async def test_each_task_goes_to_one(sides) -> None:
    one, other = await sides.two()
    await offer(one, *(task(each) for each in range(20)))
    got: list[int] = []

    async def take(queues: PartitionQueues) -> None:
        while some := await claim(queues, 3):
            got.extend(some)

    async with trio.open_nursery() as both:
        both.start_soon(take, one)
        both.start_soon(take, other)
    assert sorted(got) == list(range(20))


async def test_a_task_that_is_known_is_not_taken_in_again(sides) -> None:
    one, other = await sides.two()
    await offer(one, task(1), task(1))
    await offer(other, task(1))
    assert await claim(one) == [1]
    await offer(other, task(1))
    assert await claim(other) == []
    assert await depth(one) == 1


async def test_the_same_ask_twice_is_as_once(sides) -> None:
    one, _ = await sides.two()
    ask = Ask(offered=[task(1), task(2)], dropped=[ref(2)], released=[ref(1)], delayed=[ref(9)], renewed=[ref(9)])
    await one.turn(ask)
    await one.turn(ask)
    assert await claim(one) == [1]
    assert await depth(one) == 1


# --- leases, delays --------------------------------------------------------------------------------------------------


async def test_a_lease_that_lapses_makes_its_task_ready(sides) -> None:
    one, other = await sides.two(SHORT)
    await offer(one, task(1), task(2))
    told = await one.turn(Ask(demands=[Demand(tasks=1, queue=ORDERS)]))
    assert told.next_in is not None
    assert 0 < told.next_in <= SHORT.lease_seconds
    assert (await claim(other))[-1] == 2  # and the first one, where this has taken longer than the lease
    await trio.sleep(SHORT.lease_seconds + 0.05)
    assert await claim(other) == [1, 2], "at their places"


async def test_a_lease_that_is_renewed_does_not_lapse(sides) -> None:
    one, other = await sides.two(SHORT)
    await offer(one, task(1))
    with trio.fail_after(60):
        while not await kept(one, other):
            await one.turn(Ask(released=[ref(1)]))
    await one.turn(Ask(dropped=[ref(1)]))
    await one.turn(Ask(renewed=[ref(1)]))
    assert await depth(one) == 0


async def kept(one: PartitionQueues, other: PartitionQueues) -> bool:
    """Claim it, and keep it for longer than a lease. False: a renewal came too late."""
    renewed = trio.current_time()
    assert await claim(one) == [1]
    for _ in range(6):
        await trio.sleep(SHORT.lease_seconds / 4)
        began = trio.current_time()
        await one.turn(Ask(renewed=[ref(1)]))
        if trio.current_time() - renewed >= SHORT.lease_seconds:
            return False
        taken = await claim(other)
        if trio.current_time() - began >= SHORT.lease_seconds:
            return False
        assert taken == []
        renewed = began
    return True


async def test_what_is_released_is_ready_at_once(sides) -> None:
    one, other = await sides.two()
    await offer(one, task(1), task(2))
    assert await claim(one, 1) == [1]
    await one.turn(Ask(released=[ref(1)]))
    assert await claim(other) == [1, 2]


async def test_what_is_delayed_comes_back_when_its_time_is_over(sides) -> None:
    one, other = await sides.two(SHORT)
    await offer(one, task(1))
    assert await claim(one) == [1]
    began = trio.current_time()
    told = await one.turn(Ask(delayed=[ref(1)]))
    assert told.next_in is not None
    early = await claim(other)
    assert not early or trio.current_time() - began >= SHORT.delay_seconds
    await trio.sleep(SHORT.delay_seconds + 0.05)
    assert await claim(other) == [1]


async def test_what_is_dropped_is_gone_wherever_it_was(sides) -> None:
    one, other = await sides.two()
    await offer(one, task(1), task(2), task(3), task(4))
    assert await claim(one, 2) == [1, 2]
    await one.turn(Ask(delayed=[ref(2)]))
    await other.turn(Ask(dropped=[ref(1), ref(2), ref(3)]))
    assert await depth(one) == 1
    assert await claim(other) == [4]
    assert (await other.turn(Ask(dropped=[ref(4)]))).next_in is None


async def test_a_task_that_was_given_back_before_its_start_was_told_waits_anew(sides) -> None:
    """Messages into a partition go to whoever has time: the offer may overtake the retirement before it."""
    one, other = await sides.two()
    await offer(one, task(1))
    assert await claim(one) == [1]
    await offer(other, task(1))
    await one.turn(Ask(dropped=[ref(1)]))
    assert await claim(other) == [1]
    await one.turn(Ask(dropped=[ref(1)]))
    assert await depth(one) == 0


async def test_a_task_that_is_brought_from_the_store_while_it_is_leased_is_no_other(sides) -> None:
    one, other = await sides.two()
    await offer(one, task(1))
    assert await claim(one) == [1]
    await other.turn(Ask(brought=[task(1), task(2)]))
    await one.turn(Ask(dropped=[ref(1)]))
    assert await claim(other) == [2]


# --- several queues --------------------------------------------------------------------------------------------------


async def test_nodes_of_all_tenants_are_given_in_turn(sides) -> None:
    one, other = await sides.two()
    for tenant in ("a", "b"):
        await offer(one, *(task(each + 10 * "ab".index(tenant), node(tenant)) for each in range(1, 4)))
    await offer(one, task(30, node("a", "echo")), task(40, node("a", "ai:openai")))
    told = await other.turn(Ask(demands=[Demand(tasks=4, resources=["echo", "http"])]))
    assert [number(each) for each in told.claims[0].tasks] == [1, 11, 30, 2]
    assert told.claims[0].more
    told = await one.turn(Ask(demands=[Demand(tasks=9, resources=["echo", "http"])]))
    assert [number(each) for each in told.claims[0].tasks] == [12, 3, 13]
    assert not told.claims[0].more


async def test_tasks_of_a_destination_that_is_not_to_be_called_are_put_off(sides) -> None:
    one, other = await sides.two(SHORT)
    key = node("acme")
    await offer(one, task(1, key, destination="dead"), task(2, key, destination="well"), task(3, key))
    await offer(one, task(4, node("other"), destination="dead"))
    demand = Demand(tasks=9, resources=["http"], without=[("acme", "dead")])
    told = await other.turn(Ask(demands=[demand]))
    assert sorted(number(each) for each in told.claims[0].tasks) == [2, 3, 4], "another tenant's is let through"
    await one.turn(Ask(dropped=[ref(2), ref(3), ref(4, "other")]))
    await trio.sleep(SHORT.delay_seconds + 0.05)
    told = await one.turn(Ask(demands=[Demand(tasks=9, resources=["http"])]))
    assert [number(each) for each in told.claims[0].tasks] == [1]


async def test_demands_are_served_in_their_order(sides) -> None:
    one, _ = await sides.two()
    other_queue = QueueKey("acme", TaskKind.ACTIVITY, "letters")
    told = await one.turn(
        Ask(
            offered=[task(1), task(2), task(3, other_queue)],
            demands=[Demand(tasks=1, queue=other_queue), Demand(tasks=1, queue=ORDERS), Demand(tasks=5, queue=ORDERS)],
        )
    )
    assert [[number(each) for each in claim.tasks] for claim in told.claims] == [[3], [1], [2]]
    assert [claim.more for claim in told.claims] == [False, True, False]


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_what_finds_no_room_is_left_to_the_store_and_fetched_later(sides) -> None:
    one, other = await sides.two()
    everything = [task(each) for each in range(1, 31)]
    told = await offer(one, *everything)
    assert told.turned_away == [ORDERS]
    assert await claim(one, 5) == [1, 2, 3, 4, 5]
    await one.turn(Ask(dropped=[ref(each) for each in range(1, 6)]))
    assert (await offer(other, task(31))).turned_away == [ORDERS], "it would overtake those that were turned away"
    assert (await offer(other, task(32, priority=1))).turned_away == [], "it comes before what is here"
    assert (await claim(other))[:2] == [32, 6]
    gone = [ref(32), *(ref(each) for each in range(6, 21))]
    assert (await other.turn(Ask(dropped=gone))).to_fill == [ORDERS]
    assert (await other.turn(Ask(dropped=gone, demands=[Demand(tasks=1, queue=ORDERS)]))).to_fill == [], "told once"
    await other.turn(Ask(fills=[ORDERS]))
    assert (await offer(other, *(task(each) for each in range(21, 32)))).turned_away == []
    await other.turn(Ask(filled=[ORDERS]))
    assert (await offer(one, task(33))).turned_away == []
    assert await claim(one) == [*range(21, 32), 33]


async def test_a_queue_that_was_filled_while_offers_found_no_room_is_not_complete(sides) -> None:
    one, other = await sides.two()
    await offer(one, *(task(each) for each in range(1, 22)))
    await one.turn(Ask(fills=[ORDERS]))
    assert (await offer(other, task(40))).turned_away == [ORDERS]
    await one.turn(Ask(filled=[ORDERS]))
    assert await claim(one, 11) == list(range(1, 12))
    assert (await offer(one, task(41))).turned_away == [ORDERS]
    assert (await one.turn(Ask(dropped=[ref(each) for each in range(1, 12)]))).to_fill == [ORDERS]


async def test_what_is_new_is_said_once(sides) -> None:
    one, other = await sides.two()
    assert (await one.turn(Ask())).anew
    assert not (await one.turn(Ask())).anew
    assert not (await other.turn(Ask())).anew


async def test_it_is_one_ones_turn_to_compare(sides) -> None:
    one, other = await sides.two()
    began = trio.current_time()
    scans = [(await queues.turn(Ask(scan_seconds=0.2))).scan for queues in (one, other, one)]
    assert scans == [True, False, False] or trio.current_time() - began >= 0.2
    await trio.sleep(0.25)
    assert [(await queues.turn(Ask(scan_seconds=60))).scan for queues in (other, one)] == [True, False]


async def test_depth_and_age(sides) -> None:
    one, other = await sides.two()
    assert await one.depths() == []
    await offer(one, task(1, at=50), task(2, at=20, priority=-4), task(3, at=90, priority=4))
    (seen,) = await other.depths()
    assert (seen.queue, seen.depth, seen.oldest) == (ORDERS, 3, T0 + 20)


# --- waking ----------------------------------------------------------------------------------------------------------


async def heard_queues(queues: PartitionQueues) -> list[QueueKey]:
    """What it wakes for, beyond what it hears at its start."""
    while True:
        heard = await queues.hear()
        if heard.woken:
            return heard.woken


async def test_who_waits_is_told_when_there_is_something(sides) -> None:
    one, other = await sides.two(SHORT)
    with trio.fail_after(60):
        async with trio.open_nursery() as both:
            for queues in (one, other):
                both.start_soon(heard_queues, queues)
            await trio.sleep(0.1)
            await offer(one, task(1))
        assert await claim(other) == [1]
        async with trio.open_nursery() as both:
            both.start_soon(heard_queues, one)
            await trio.sleep(SHORT.lease_seconds + 0.05)
            # It has lapsed: whoever comes first moves it.
            await other.turn(Ask())


async def test_what_is_claimed_in_the_same_turn_wakes_nobody(sides) -> None:
    one, other = await sides.two()
    with trio.move_on_after(2) as settled:
        await other.hear()
        await other.hear()
        settled.cancel()
    await one.turn(Ask(offered=[task(1)], demands=[Demand(tasks=1, queue=ORDERS)]))
    with trio.move_on_after(0.3) as nothing:
        await heard_queues(other)
    assert nothing.cancelled_caught


async def test_notices_reach_all(sides) -> None:
    one, other = await sides.two()
    notices = [
        EndPolls(ORDERS, "w1"),
        Report(member="m", numbers=[Numbers(queue=ORDERS, pollers=1, dispatched=2, rate=0.5)]),
    ]

    async def hear(queues: PartitionQueues) -> None:
        found: list[object] = []
        while found != notices:
            found += (await queues.hear()).notices

    with trio.fail_after(60):
        async with trio.open_nursery() as both:
            both.start_soon(hear, one)
            both.start_soon(hear, other)
            await trio.sleep(0.1)
            await one.turn(Ask(notices=list(notices)))
