"""Servers for engines of many processes: a PostgreSQL that keeps what it was told, whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def database(durable_postgres: PostgresServer) -> str:
    """The URL of an empty one."""
    return durable_postgres.url(durable_postgres.new_database())


@pytest.fixture
def thorough(request: pytest.FixtureRequest) -> None:
    """For tests that take their time: skipped but under `make chaos-split`."""
    if not request.config.getoption("--chaos-minutes"):
        pytest.skip("takes its time: with --chaos-minutes (make chaos-split)")
