"""The stores under test: each one that `open_store` can make, opened for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
from inline_store import InlineStore

from daemon.settings import StoreSettings
from daemon.stores.interface import Store
from daemon.stores.open import open_store
from daemon.stores.postgres.database import PostgresDriver, open_driver
from tests.servers.postgres import PostgresServer

SHARDS = 4

_EMPTY = """
SET session_replication_role = replica;
TRUNCATE engine.members, engine.definitions, engine.registrations, engine.executions, engine.open_runs, engine.labels,
    engine.events, engine.snapshots, engine.tasks, engine.effects, engine.map_results, engine.schedules,
    engine.dead_letters;
UPDATE engine.shards SET epoch = 0, owner = NULL
"""


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """A database with the engine's tables in it, to be copied."""
    name = postgres.new_database()
    open_driver(postgres.url(name), SHARDS, 10.0, 30.0).close()
    return name


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """An empty store in a database of its own."""
    name = postgres.new_database(postgres_template)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def postgres_driver(postgres: PostgresServer, postgres_template: str) -> Iterator[PostgresDriver]:
    name = postgres.new_database(postgres_template)
    driver = open_driver(postgres.url(name), SHARDS, 10.0, 30.0)
    yield driver
    driver.close()


@pytest.fixture
def empty(postgres: PostgresServer, postgres_driver: PostgresDriver) -> Iterator[Callable[[], PostgresDriver]]:
    """One driver for all tests, emptied: by somebody who may put off the triggers that keep events."""
    with postgres.connect(postgres_driver.writer._connection.info.dbname) as connection:

        def emptied() -> PostgresDriver:
            connection.execute(_EMPTY)
            return postgres_driver

        yield emptied


@pytest.fixture
def empty_driver(empty: Callable[[], PostgresDriver]) -> PostgresDriver:
    return empty()


@pytest.fixture(params=["memory:", "sqlite:///", "postgresql:"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Store]:
    """An empty store of four shards, taken once: epoch 1."""
    opened: Store
    if request.param == "postgresql:":
        opened = InlineStore(request.getfixturevalue("empty_driver"))
    else:
        opened = open_store(StoreSettings(url=request.param), tmp_path)
    await nursery.start(opened.run)
    await opened.take_shards()
    yield opened
    nursery.cancel_scope.cancel()
