"""Options of the suite as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

pytest_plugins = ["redis_server"]


def pytest_configure() -> None:
    # The default renderer draws every traceback with its locals, which takes longer than most tests.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the chaos tests kill the daemon or its store")
    parser.addoption("--chaos-minutes", type=float, default=0.0, help="how long a split engine's processes are killed")
    parser.addoption("--chaos-seed", type=int, default=None, help="when and whom; printed by every run")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that does without fsync: a machine that loses its power is nothing that a test could show."""
    from tests.servers.postgres import PostgresServer

    server = PostgresServer(durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop()
