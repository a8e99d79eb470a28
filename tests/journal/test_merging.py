"""Commits of several shards that are written as one: what is one's fault stays its own."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from daemon.journal.merging import MergedCommits
from daemon.stores.faults import BatchRefused, Fenced, StoreUnavailable
from daemon.stores.memory import MemoryStore
from daemon.stores.rows import Batch, NewExecution, RunWrite
from enginekit.messages.links import RunRef

SHARDS = 4


class Counted(MemoryStore):
    """`commits`: how many shards each had. It waits before the first until it is let go on."""

    def __init__(self) -> None:
        super().__init__(SHARDS, b"k" * 32, shared=True)
        self.commits: list[list[int]] = []
        self.go_on = trio.Event()

    async def commit(self, batch: Batch) -> None:
        self.commits.append(sorted({write.shard for write in batch.runs}))
        await self.go_on.wait()
        await super().commit(batch)


def started(shard: int, *, epoch: int = 1) -> Batch:
    run = RunRef("acme", f"order-{shard}", f"0198c0de-0000-7000-8000-00000000000{shard}")
    new = NewExecution(workflow=None, version=None, definition_hash="h", labels={}, request_id=None, started_at=1)
    write = RunWrite(shard=shard, epoch=epoch, run=run, created=new, first_event_id=1, events=[b"{}"], wake_at=None)
    return Batch(runs=[write])


async def written(batches: list[Batch], store: Counted) -> list[Exception | None]:
    """All that are given while the first is being written; what came of each, in their order."""
    outcomes: dict[int, Exception | None] = {}
    merged = MergedCommits(store)

    async def commit(number: int, batch: Batch) -> None:
        try:
            await merged.commit(batch)
        except (Fenced, BatchRefused, StoreUnavailable) as error:
            outcomes[number] = error
        else:
            outcomes[number] = None

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(merged.run)
            async with trio.open_nursery() as writing:
                for number, batch in enumerate(batches):
                    writing.start_soon(commit, number, batch)
                    await trio.testing.wait_all_tasks_blocked()
                store.go_on.set()
            nursery.cancel_scope.cancel()
    return [outcomes[number] for number in range(len(batches))]


@pytest.fixture
async def store() -> Counted:
    store = Counted()
    await store.attend("a", 1e9)
    await store.claim_shards("a", range(SHARDS))
    return store


async def test_what_gathers_while_one_is_written_goes_together(store: Counted) -> None:
    assert await written([started(shard) for shard in range(SHARDS)], store) == [None] * SHARDS
    assert store.commits == [[0], [1, 2, 3]]


async def test_a_shard_that_is_another_s_leaves_and_the_others_are_written(store: Counted) -> None:
    outcomes = await written([started(shard, epoch=0 if shard == 2 else 1) for shard in range(SHARDS)], store)
    assert store.commits == [[0], [1, 2, 3], [1, 3]]
    (lost,) = [each for each in outcomes if each is not None]
    assert isinstance(lost, Fenced)
    assert (outcomes.index(lost), lost.shards) == (2, [2])
    there = [await store.latest_run("acme", f"order-{shard}") is not None for shard in range(SHARDS)]
    assert there == [True, True, False, True]


async def test_what_is_refused_for_its_rows_is_refused_alone(store: Counted) -> None:
    store.go_on.set()
    await store.commit(started(2))
    store.go_on = trio.Event()
    outcomes = await written([started(shard) for shard in range(SHARDS)], store)
    assert [type(each) for each in outcomes] == [type(None), type(None), BatchRefused, type(None)]


async def test_whoever_was_written_with_a_store_that_was_lost_is_told_that_nobody_knows(store: Counted) -> None:
    store.fail_next_commit(after_write=True)
    outcomes = await written([started(shard) for shard in range(SHARDS)], store)
    assert [type(each) for each in outcomes] == [StoreUnavailable] + [type(None)] * 3
