"""Schedules in every store."""

from __future__ import annotations

import msgspec
import pytest
from store_builders import NOW, append, batch, closed, ref, schedule, start

from daemon.stores.interface import BatchRefused, Fenced, Store
from daemon.stores.rows import Batch, DueSchedule, ScheduleWrite, StoredSchedule
from enginekit.messages.links import ScheduleRef


def scheduled(*schedules: ScheduleWrite) -> Batch:
    return Batch(schedules=list(schedules))


async def names(store: Store, tenant: str = "acme", after: str | None = None, max_bytes: int = 10_000) -> list[str]:
    return [row.schedule.schedule_id for row in await store.list_schedules(tenant, 3, after, max_bytes)]


async def test_one_is_read_as_it_was_written_last(store: Store) -> None:
    await store.commit(scheduled(schedule("a", next_at=NOW, data=b"one")))
    expected = StoredSchedule(schedule=ScheduleRef("acme", "a"), revision=1, next_at=NOW, waiting=False, data=b"one")
    assert await store.schedule("acme", "a") == expected
    await store.commit(scheduled(schedule("a", 2, waiting=True, data=b"two")))
    changed = msgspec.structs.replace(expected, revision=2, next_at=None, waiting=True, data=b"two")
    assert await store.schedule("acme", "a") == changed
    await store.commit(scheduled(schedule("a", 3, data=None)))
    assert await store.schedule("acme", "a") is None
    await store.commit(scheduled(schedule("a", next_at=NOW, data=b"one")))
    assert await store.schedule("acme", "a") == expected
    assert await store.schedule("other", "a") is None


@pytest.mark.parametrize(
    "wrong",
    [
        schedule("a", 1),
        schedule("a", 3),
        schedule("a", 1, data=None),
        schedule("b", 2),
        schedule("b", 2, data=None),
    ],
)
async def test_a_write_that_does_not_follow_the_last_is_refused_with_its_batch(
    store: Store, wrong: ScheduleWrite
) -> None:
    await store.commit(scheduled(schedule("a")))
    with pytest.raises(BatchRefused):
        await store.commit(Batch(runs=[start(ref(1))], schedules=[schedule("c"), wrong]))
    assert await names(store) == ["a"]
    assert await store.execution("acme", ref(1).run_id) is None


async def test_a_former_owner_changes_no_schedule(store: Store) -> None:
    await store.take_shards()
    with pytest.raises(Fenced):
        await store.commit(scheduled(schedule("a", shard=2, epoch=1)))
    assert await store.schedule("acme", "a") is None


async def test_a_schedule_moves_on_with_the_run_it_starts_or_not_at_all(store: Store) -> None:
    await store.commit(scheduled(schedule("a", next_at=NOW)))
    first = msgspec.structs.replace(start(ref(1)), schedule=schedule("a", 2, next_at=NOW + 60))
    await store.commit(batch(first))
    again = start(ref(2, workflow_id="order-1"))
    with pytest.raises(BatchRefused):
        await store.commit(batch(msgspec.structs.replace(again, schedule=schedule("a", 3, next_at=NOW + 120))))
    assert await store.due_schedules(NOW + 1000, 10) == [
        DueSchedule(schedule=ScheduleRef("acme", "a"), next_at=NOW + 60)
    ]
    ended = append(ref(1), 2, closing=closed())
    await store.commit(batch(msgspec.structs.replace(ended, schedule=schedule("a", 3, next_at=NOW + 180))))
    (due,) = await store.due_schedules(NOW + 1000, 10)
    assert due.next_at == NOW + 180


async def test_one_write_a_schedule_and_of_the_runs_own_tenant(store: Store) -> None:
    with pytest.raises(BatchRefused, match="twice"):
        await store.commit(scheduled(schedule("a"), schedule("a", 2)))
    twice = msgspec.structs.replace(start(ref(1)), schedule=schedule("a"))
    with pytest.raises(BatchRefused, match="twice"):
        await store.commit(Batch(runs=[twice], schedules=[schedule("a")]))
    foreign = msgspec.structs.replace(start(ref(1)), schedule=schedule("a", tenant="other"))
    with pytest.raises(BatchRefused, match="another tenant"):
        await store.commit(batch(foreign))


async def test_they_are_listed_by_tenant_in_pages_of_bounded_bytes(store: Store) -> None:
    await store.commit(scheduled(*(schedule(name, data=b"x" * 100) for name in "dbca")))
    await store.commit(scheduled(schedule("other", tenant="umbrella")))
    assert await names(store) == ["a", "b", "c"]
    assert await names(store, after="c") == ["d"]
    assert await names(store, after="d") == []
    assert await names(store, max_bytes=250) == ["a", "b"]
    assert await names(store, max_bytes=1) == ["a"]
    assert await names(store, "umbrella") == ["other"]


async def test_those_that_are_due_come_in_the_order_of_their_times(store: Store) -> None:
    rows = [("late", NOW + 9), ("b", NOW + 1), ("a", NOW + 1), ("first", NOW), ("never", None)]
    await store.commit(scheduled(*(schedule(name, next_at=at) for name, at in rows)))
    await store.commit(scheduled(schedule("a", tenant="zoo", next_at=NOW + 1)))
    due = await store.due_schedules(NOW + 9, 10)
    assert [(row.schedule.tenant, row.schedule.schedule_id) for row in due] == [
        ("acme", "first"),
        ("acme", "a"),
        ("acme", "b"),
        ("zoo", "a"),
    ]
    pages = [(await store.due_schedules(NOW + 9, 1, last))[0] for last in (None, *due[:-1])]
    assert pages == due
    assert await store.due_schedules(NOW + 9, 10, due[-1]) == []
    await store.commit(scheduled(schedule("first", 2), schedule("a", 2, data=None)))
    assert [row.schedule.schedule_id for row in await store.due_schedules(NOW + 9, 10)] == ["b", "a"]


async def test_those_that_wait_for_an_execution_are_found(store: Store) -> None:
    await store.commit(scheduled(*(schedule(name, waiting=name != "b") for name in "cba")))
    found = await store.waiting_schedules(1)
    found += await store.waiting_schedules(5, found[-1])
    assert found == [ScheduleRef("acme", "a"), ScheduleRef("acme", "c")]
    await store.commit(scheduled(schedule("a", 2)))
    assert await store.waiting_schedules(5) == [ScheduleRef("acme", "c")]
