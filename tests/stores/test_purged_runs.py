"""Runs that are purged go with all their rows, and those that have to stay are passed over: the same in every store."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import msgspec
import pytest
import trio
from store_builders import NOW, append, batch, closed, effect, loaded_run, new, number_of, numbered, queued, ref, start

from daemon.journal.identity import uuid_of
from daemon.settings import StoreSettings
from daemon.stores.interface import Fenced, Store, StoreUnavailable
from daemon.stores.open import open_store
from daemon.stores.process import ProcessStore
from daemon.stores.rows import (
    Batch,
    ExecutionFilter,
    LetterFilter,
    LetterRow,
    MapResult,
    Purge,
    RunWrite,
    Snapshot,
    StartCheck,
)

RUN = ref(1)
CLOSED_AT = NOW + 1000
"""When `closed()` says."""
LATER = CLOSED_AT + 1
UNTIL = str(uuid_of(NOW + 500, 0, 0))


def purge(*numbers: int, before: int = LATER, epoch: int = 1) -> Batch:
    return Batch(purges=[Purge(shard=0, epoch=epoch, run=ref(number), closed_before=before) for number in numbers])


def ended(number: int, *, parent: int | None = None, **fields: object) -> RunWrite:
    above = None if parent is None else ref(parent).run_id
    write = start(ref(number), created=new(parent=above), closing=closed())
    return msgspec.structs.replace(write, **fields)


def letter() -> LetterRow:
    return LetterRow(event_id=1, workflow="order", node="Ship", error="Boom", at=NOW, data=b"{}")


async def kept(store: Store, *numbers: int) -> list[int]:
    return [number for number in numbers if await store.execution("acme", ref(number).run_id) is not None]


async def expired(store: Store, before: int = LATER) -> list[int]:
    return [number_of(each.run) for each in (await store.expired_runs(before, UNTIL, 100)).runs]


async def test_all_of_a_run_goes_and_its_names_are_free_again(store: Store) -> None:
    whole = start(
        RUN,
        created=new(labels={"a": "b", 'quoted "\\u0000"': "\0"}, request_id="r"),
        events=3,
        closing=closed(),
        tasks=[queued(RUN, 1), queued(RUN, 2)],
    )
    whole = msgspec.structs.replace(
        whole,
        tasks_started=[2],
        snapshot=Snapshot(event_id=2, fingerprint="f", data=b"state"),
        results_added=[MapResult(map_id=1, number=1, status="SUCCEEDED", data=b"{}")],
    )
    await store.commit(batch(whole, start(ref(2), created=new(labels={"a": "b"}, request_id="s"), closing=closed())))
    await store.commit(batch(append_events(3)))
    await store.commit(purge(1))
    assert await store.execution("acme", RUN.run_id) is None
    assert await loaded_run(store, RUN, "f") is None
    assert await store.events("acme", RUN.run_id, 0, 10, 10**6) == []
    assert await store.start_check("acme", RUN.workflow_id, "r") == StartCheck(latest=None, requested=None)
    assert await store.map_results("acme", RUN.run_id, 1, "SUCCEEDED", 0, 1000) == []
    assert await store.queue_backlogs() == []
    for label in (None, ("a", "b")):
        page = await store.list_executions(ExecutionFilter(tenant="acme", limit=10, label=label))
        assert [number_of(each.run) for each in page] == ([3, 2] if label is None else [2])
    # Nothing of it is left that would be in the way of another one, or be taken for that one's.
    await store.commit(batch(start(RUN, created=new(request_id="r", labels={"a": "b"}), tasks=[queued(RUN, 1)])))
    stored = await loaded_run(store, RUN, "f")
    assert stored is not None
    assert (stored.snapshot, stored.tail) == (None, numbered(RUN, 1, 1))
    assert await store.map_results("acme", RUN.run_id, 1, "SUCCEEDED", 0, 1000) == []
    assert len(await store.list_executions(ExecutionFilter(tenant="acme", limit=10, label=("a", "b")))) == 2


def append_events(number: int) -> RunWrite:
    return start(ref(number), created=new(), events=2, closing=closed())


async def test_what_has_to_stay_is_passed_over(store: Store) -> None:
    await store.commit(
        batch(
            start(ref(1), wake_at=NOW),
            ended(2, letters_added=[letter()]),
            ended(3, effects_added=[effect(1)]),
            start(ref(4)),
            ended(5, parent=4),
            ended(6),
            start(ref(7), created=new(parent=ref(6).run_id)),
            ended(8, closing=msgspec.structs.replace(closed(), closed_at=LATER)),
            ended(9, parent=8),
            ended(10, parent=2),
            ended(11),
            ended(12, parent=99),
        )
    )
    assert await expired(store) == [11, 12]
    everything = range(1, 13)
    await store.commit(purge(*everything))
    assert await kept(store, *everything) == list(range(1, 11))
    await store.commit(purge(11, 99))
    for number in range(1, 11):
        assert await store.events("acme", ref(number).run_id, 0, 10, 1000) == numbered(ref(number), 1, 1)
    # What held them has ended.
    await store.commit(
        batch(
            append(ref(4), 2, closing=closed()),
            append(ref(7), 2, closing=closed()),
            RunWrite(shard=0, epoch=1, run=ref(2), first_event_id=2, events=[], wake_at=None, letters_removed=[1]),
            RunWrite(shard=0, epoch=1, run=ref(3), first_event_id=2, events=[], wake_at=None, effects_removed=[1]),
        )
    )
    assert await expired(store) == [3, 5, 7, 10]
    # All of a batch are judged before any of it goes: parents follow their children.
    await store.commit(purge(*everything))
    assert await kept(store, *everything) == [1, 2, 4, 6, 8, 9]
    assert await expired(store) == [2, 4, 6]
    await store.commit(purge(*everything))
    assert await kept(store, *everything) == [1, 8, 9]
    assert await expired(store, LATER + 1) == [9]


async def test_a_run_is_purged_by_its_age_and_its_whole_name(store: Store) -> None:
    await store.commit(batch(ended(1), ended(2)))
    await store.commit(purge(1, before=CLOSED_AT))
    wrong = [msgspec.structs.replace(RUN, workflow_id="another"), msgspec.structs.replace(RUN, tenant="another")]
    await store.commit(Batch(purges=[Purge(shard=0, epoch=1, run=run, closed_before=LATER) for run in wrong]))
    await store.commit(Batch(purges=[*purge(1).purges * 2], runs=[start(ref(3))]))
    assert await kept(store, 1, 2, 3) == [2, 3]


async def test_one_that_is_opened_again_in_the_same_batch_stays(store: Store) -> None:
    await store.commit(batch(ended(1)))
    again = msgspec.structs.replace(append(RUN, 2), reopened=True)
    await store.commit(Batch(runs=[again], purges=purge(1).purges))
    assert await store.events("acme", RUN.run_id, 0, 10, 1000) == numbered(RUN, 1, 2)


async def test_a_former_owner_purges_nothing(store: Store) -> None:
    await store.commit(batch(ended(1)))
    await store.take_shards()
    with pytest.raises(Fenced):
        await store.commit(purge(1))
    assert await kept(store, 1) == [1]
    await store.commit(purge(1, epoch=2))
    assert await kept(store, 1) == []


async def test_expired_runs_come_in_pages_of_what_was_looked_at(store: Store) -> None:
    await store.commit(batch(*(start(ref(n)) if n % 3 else ended(n, shard=n % 2) for n in range(1, 10))))
    page = await store.expired_runs(LATER, UNTIL, 4)
    assert [number_of(each.run) for each in page.runs] == [3]
    assert page.after == ref(4).run_id
    page = await store.expired_runs(LATER, UNTIL, 4, page.after)
    assert [number_of(each.run) for each in page.runs] == [6]
    last = await store.expired_runs(LATER, UNTIL, 4, page.after)
    assert [number_of(each.run) for each in last.runs] == [9]
    assert last.after is None
    before_nine = await store.expired_runs(LATER, ref(9).run_id, 100, ref(3).run_id)
    assert [number_of(each.run) for each in before_nine.runs] == [6]
    if (await store.info()).kind != "sqlite":
        some = await store.expired_runs(LATER, UNTIL, 100, None, [1, 3])
        assert [number_of(each.run) for each in some.runs] == [3, 9]


async def test_a_page_begins_behind_a_run_that_has_gone(store: Store) -> None:
    await store.commit(batch(*(ended(number) for number in range(1, 7))))
    wanted = ExecutionFilter(tenant="acme", limit=2)
    page = await store.list_executions(wanted)
    await store.commit(purge(5, 4))
    page = await store.list_executions(msgspec.structs.replace(wanted, before_run_id=page[-1].run.run_id))
    assert [number_of(each.run) for each in page] == [3, 2]
    assert await store.dead_letters(LetterFilter(tenant="acme", limit=10)) == []


@pytest.mark.parametrize("round_number", range(4))
async def test_a_driver_that_is_killed_while_it_purges_leaves_whole_runs(
    tmp_path: Path, nursery: trio.Nursery, round_number: int
) -> None:
    """By `kill -9`, after another time each: a run is there with all of its events, or nothing of it is."""
    store = open_store(StoreSettings(), tmp_path)
    assert isinstance(store, ProcessStore)
    await nursery.start(store.run)
    await store.take_shards()
    numbers = range(1, 201)
    for first in numbers[::50]:
        some = [
            start(ref(n), created=new(labels={"a": "b"}), events=30, closing=closed()) for n in numbers[first - 1 :]
        ]
        await store.commit(batch(*some[:50]))
    answered: list[int] = []

    async def purge_all() -> None:
        for first in numbers[::20]:
            try:
                await store.commit(purge(*range(first, first + 20)))
            except StoreUnavailable:
                return
            answered.append(first)

    pid = store.driver_pid
    assert pid is not None
    async with trio.open_nursery() as purging:
        purging.start_soon(purge_all)
        await trio.sleep(0.003 * round_number)
        os.kill(pid, signal.SIGKILL)
    with trio.fail_after(120):
        while store.driver_pid in (None, pid):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
    left = await kept(store, *numbers)
    labeled = await store.list_executions(ExecutionFilter(tenant="acme", limit=1000, label=("a", "b")))
    assert sorted(number_of(each.run) for each in labeled) == left
    for number in numbers:
        events = await store.events("acme", ref(number).run_id, 0, 100, 10**6)
        assert events == (numbered(ref(number), 1, 30) if number in left else [])
    assert not any(first <= number < first + 20 for first in answered for number in left)
    await store.take_shards()
    await store.commit(purge(*numbers, epoch=2))
    assert await kept(store, *numbers) == []
    raw = sqlite3.connect(tmp_path / "engine.db")
    for table in ("events", "labels", "executions"):
        assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    raw.close()
    nursery.cancel_scope.cancel()
