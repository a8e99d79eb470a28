"""Options of the suite as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog

from daemon.stores.sqlite.database import open_reader

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

pytest_plugins = ["redis_server"]


def pytest_configure() -> None:
    # How long an example takes depends on what else the machine does.
    hypothesis.settings.register_profile("plain", deadline=None)
    hypothesis.settings.load_profile("plain")
    # The default renderer draws every traceback with its locals, which takes longer than most tests.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the chaos tests kill the daemon or its store")
    parser.addoption("--chaos-minutes", type=float, default=0.0, help="how long a split engine's processes are killed")
    parser.addoption("--systemd-machine", action="store_true", help="boot a systemd and try docs/systemd.md on it")
    parser.addoption("--chaos-seed", type=int, default=None, help="when and whom; printed by every run")


@pytest.fixture
def stored_events() -> Callable[[Path], bytes]:
    """All events of the one store in a folder; its file's bytes say nothing to somebody who searches them."""

    def read(folder: Path) -> bytes:
        (path,) = folder.rglob("engine.db")
        reader = open_reader(path)
        try:
            runs = reader._connection.execute("SELECT tenant, run_id FROM readable_executions").fetchall()
            histories = [reader.events(tenant, run_id, 0, 250_000, 2**30) for tenant, run_id in runs]
        finally:
            reader.close()
        assert any(histories)
        return b"\n".join(event for history in histories for event in history)

    return read


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
