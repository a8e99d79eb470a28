"""Whole daemons, linked in memory, on a store that could be shared: one at a time."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from simulation import Simulation
from trio.testing import MockClock

from daemon.settings import Settings, SupervisorSettings
from daemon.stores.memory import MemoryStore
from daemon.supervisor import Unusable
from enginekit.messages.status import ExecutionStatus

STEPS = {
    "StartAt": "A",
    "States": {
        "A": {"Type": "Task", "Resource": "echo", "Next": "B"},
        "B": {"Type": "Wait", "Seconds": 30, "Next": "C"},
        "C": {"Type": "Task", "Resource": "echo", "End": True},
    },
}
SETTINGS = Settings(supervisor=SupervisorSettings(restarts=1000))
LEASE = SETTINGS.history.lease_seconds


@pytest.fixture
def daemon_on(tmp_path: Path) -> Callable[[MemoryStore], Simulation]:
    seeds = itertools.count(1)

    def make(store: MemoryStore) -> Simulation:
        daemon = Simulation(SETTINGS, Path(tempfile.mkdtemp(dir=tmp_path)), seed=next(seeds))
        daemon.memory = daemon._store = store
        return daemon

    return make


def run(scenario) -> None:
    async def main() -> None:
        await scenario(MemoryStore(4, b"k" * 32, shared=True))

    trio.run(main, clock=MockClock(autojump_threshold=0))


def shards_of(daemon: Simulation) -> list[int]:
    return [view.shard for view in daemon.describe().shards]


def test_it_has_all_shards_and_the_next_one_goes_on_at_once_where_it_has_left(daemon_on):
    async def scenario(store):
        first = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            assert shards_of(first) == [0, 1, 2, 3]
            started = await first.start(STEPS)
            await trio.sleep(5)
            first.drain()
        at = trio.current_time()
        second = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(second.run)
            assert trio.current_time() - at < 1
            assert (await second.closed(started)).status is ExecutionStatus.SUCCEEDED
            second.drain()

    run(scenario)


def test_after_one_that_was_killed_the_next_one_waits_for_its_lease(daemon_on):
    async def scenario(store):
        first = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            started = await first.start(STEPS)

            async def gone(owner: str) -> None:
                await trio.lowlevel.checkpoint()

            kept, store.leave = store.leave, gone  # what is killed says no good-bye
            nursery.cancel_scope.cancel()
        store.leave = kept
        at = trio.current_time()
        second = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(second.run)
            assert LEASE - 2 < trio.current_time() - at < LEASE + 2
            assert (await second.closed(started)).status is ExecutionStatus.SUCCEEDED
            second.drain()

    run(scenario)


def test_beside_one_that_lives_a_second_one_does_not_start_and_says_why(daemon_on):
    async def scenario(store):
        first = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            refused = pytest.RaisesExc(Unusable, match=r"another daemon has this store .*\[links\] url")
            with pytest.RaisesGroup(refused, flatten_subgroups=True):
                await daemon_on(store).run()
            started = await first.start(STEPS)
            assert (await first.closed(started)).status is ExecutionStatus.SUCCEEDED
            first.drain()

    run(scenario)


def test_a_commit_whose_outcome_nobody_knows_is_looked_up_at_a_new_epoch(daemon_on):
    async def scenario(store):
        daemon = daemon_on(store)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            epochs = [view.epoch for view in daemon.describe().shards]
            started = await daemon.start(STEPS)
            store.fail_next_commit(after_write=True)
            assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
            assert all(view.epoch > epoch for view, epoch in zip(daemon.describe().shards, epochs, strict=True))
            daemon.drain()

    run(scenario)
