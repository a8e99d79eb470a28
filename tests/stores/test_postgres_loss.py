"""A PostgreSQL server that goes away and comes back: whoever waits goes on, and what was acknowledged is there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trio
from store_builders import append, batch, numbered, ref, start

from daemon.settings import StoreSettings
from daemon.stores.interface import StoreUnavailable
from daemon.stores.open import open_store
from daemon.stores.process import ProcessStore
from tests.servers.postgres import PostgresServer

WRITERS = 6


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    """One that may be taken down, and is on disk by what it acknowledges."""
    server = PostgresServer(durable=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def postgres_store(url: str, folder: Path) -> ProcessStore:
    store = open_store(StoreSettings(url=url, shards=4), folder)
    assert isinstance(store, ProcessStore)
    return store


class Load:
    """Runs that grow by one event at a time, from what the store says that they have."""

    def __init__(self, store: ProcessStore) -> None:
        self._store = store
        self.acknowledged = dict.fromkeys(range(1, WRITERS + 1), 0)
        self.unavailable = 0
        self.epoch = 1

    async def write(self, number: int) -> None:
        run = ref(number)
        while True:
            try:
                await self._store.wait_ready()
                execution = await self._store.execution("acme", run.run_id)
                last = 0 if execution is None else execution.last_event_id
                assert self.acknowledged[number] <= last, "an acknowledged event is not there"
                while True:
                    write = start(run) if last == 0 else append(run, last + 1)
                    await self._store.commit(batch(write))
                    last += 1
                    self.acknowledged[number] = last
            except StoreUnavailable:
                self.unavailable += 1
                await trio.sleep(0.01)

    async def grow(self, by: int) -> None:
        """Wait until every run has so many events more."""
        before = dict(self.acknowledged)
        with trio.fail_after(120):
            while any(self.acknowledged[number] < before[number] + by for number in before):  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_server_that_is_restarted_or_cuts_connections_loses_nothing(
    durable: PostgresServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    name = durable.new_database()
    store = postgres_store(durable.url(name), tmp_path)
    await nursery.start(store.run)
    await store.take_shards()
    load = Load(store)
    entropy = random.Random(7)
    async with trio.open_nursery() as writing:
        for number in range(1, WRITERS + 1):
            writing.start_soon(load.write, number)
        await load.grow(5)
        for _ in range(4):
            cut = entropy.choice(["engine write lane", "engine read lane", "engine write lane"])
            await trio.to_thread.run_sync(cut_connections, durable, name, cut)
            await load.grow(3)
        for how in ("fast", "immediate"):
            await trio.to_thread.run_sync(durable.down, how)
            await trio.to_thread.run_sync(durable.up)
            await load.grow(3)
        writing.cancel_scope.cancel()
    assert load.unavailable > 0
    assert store.restarts >= 3
    for number, acknowledged in load.acknowledged.items():
        run = ref(number)
        execution = await store.execution("acme", run.run_id)
        assert execution is not None
        events = await store.events("acme", run.run_id, 0, 100_000, 10**9)
        assert events == numbered(run, 1, len(events))
        # The last one may have been on its way when its writer was cancelled, and may land between these two reads.
        assert acknowledged <= execution.last_event_id <= len(events) <= acknowledged + 1
    nursery.cancel_scope.cancel()


def cut_connections(server: PostgresServer, database: str, application: str) -> None:
    with server.connect() as somebody:
        somebody.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = %s",
            (database, application),
        )


async def test_a_server_that_is_not_there_at_the_start_is_waited_for(
    durable: PostgresServer, tmp_path: Path, nursery: trio.Nursery
) -> None:
    name = durable.new_database()
    await trio.to_thread.run_sync(durable.down)
    settings = StoreSettings(url=durable.url(name), shards=4, lock_wait_seconds=0.3)
    store = open_store(settings, tmp_path)
    nursery.start_soon(store.run)
    await trio.sleep(1.0)  # Long enough for a driver or two to give up.
    assert not store.ready
    with pytest.raises(StoreUnavailable):
        await store.take_shards()
    await trio.to_thread.run_sync(durable.up)
    with trio.fail_after(60):
        await store.wait_ready()
    await store.take_shards()
    await store.commit(batch(start(ref(1))))
    nursery.cancel_scope.cancel()


async def test_a_store_that_is_closed_leaves_no_connection(durable: PostgresServer, tmp_path: Path) -> None:
    name = durable.new_database()
    store = postgres_store(durable.url(name), tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert sessions(durable, name) == 2
        nursery.cancel_scope.cancel()
    with trio.fail_after(60):
        while sessions(durable, name):  # noqa: ASYNC110
            await trio.sleep(0.01)


def sessions(server: PostgresServer, database: str) -> int:
    with server.connect() as somebody:
        row = somebody.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,)).fetchone()
    assert row is not None
    return int(row[0])


def test_the_server_keeps_what_it_acknowledges(durable: PostgresServer) -> None:
    with psycopg.connect(durable.url(), autocommit=True) as somebody:
        assert somebody.execute("SHOW fsync").fetchone() == ("on",)
