"""What only the memory store does: faults on demand, and data that belongs to nobody's task."""

from __future__ import annotations

import pytest
import trio
from store_builders import append, batch, loaded_run, new, numbered, ref, start

from daemon.stores.interface import StoreUnavailable
from daemon.stores.memory import MemoryStore

RUN = ref(1)


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore(4, b"key")
    await made.take_shards()
    return made


@pytest.mark.parametrize("after_write", [False, True])
async def test_a_commit_fails_once_before_or_after_it_is_written(store: MemoryStore, after_write: bool) -> None:
    store.fail_next_commit(after_write=after_write)
    with pytest.raises(StoreUnavailable):
        await store.commit(batch(start(RUN)))
    assert (await store.execution("acme", RUN.run_id) is not None) is after_write
    await store.commit(batch(append(RUN, 2) if after_write else start(RUN)))


async def test_a_commit_lets_others_run(store: MemoryStore) -> None:
    order: list[str] = []

    async def commit(number: int) -> None:
        order.append(f"asked {number}")
        await store.commit(batch(start(ref(number))))
        order.append(f"written {number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, 1)
        nursery.start_soon(commit, 2)
    assert {entry.split()[0] for entry in order[:2]} == {"asked"}


async def test_a_commit_cancelled_before_its_first_checkpoint_writes_nothing(store: MemoryStore) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.commit(batch(start(RUN)))
    assert await store.execution("acme", RUN.run_id) is None


async def test_what_was_read_or_written_can_be_changed_without_changing_the_store(store: MemoryStore) -> None:
    labels = {"a": "b"}
    write = start(RUN, created=new(labels=labels), events=2)
    await store.commit(batch(write))
    labels["a"] = "changed"
    write.events.clear()
    loaded = await loaded_run(store, RUN, "f")
    assert loaded is not None
    loaded.tail.clear()
    (await store.events("acme", RUN.run_id, 0, 10, 1000)).clear()
    assert await store.events("acme", RUN.run_id, 0, 10, 1000) == numbered(RUN, 1, 2)
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert execution.labels == {"a": "b"}


async def test_its_rows_outlive_whoever_runs_it(store: MemoryStore) -> None:
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            nursery.cancel_scope.cancel()
    await store.commit(batch(start(RUN)))
    assert await store.events("acme", RUN.run_id, 0, 10, 1000) == numbered(RUN, 1, 1)
