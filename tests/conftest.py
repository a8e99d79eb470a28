"""Options of the suite as a whole."""

from __future__ import annotations

import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
import trio

from daemon.stores.sqlite.database import open_reader
from tests import hypothesis_profiles  # noqa: F401 - loads the profile of the suite

if TYPE_CHECKING:
    from tests.servers.postgres import PostgresServer

pytest_plugins = ["redis_server"]

HERE = Path(__file__).parent
LONGEST = frozenset({"chaos", "console", "readme", "split", "systemd", "workers"})
MANY_KILLS = 20
ID_LENGTH = 80

# A process compiles the whole engine where no bytecode is kept, and the suite starts hundreds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure() -> None:
    # The default renderer draws every traceback with its locals, which takes longer than most tests.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Workers that share the suite begin with what takes longest: then they end at about the same time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.relative_to(HERE).parts[0] not in LONGEST)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Of a value of size its beginning: nobody reads a megabyte in a report, and workers tell each other all names."""
    return ascii(val[:ID_LENGTH])[1:-1] if isinstance(val, str | bytes) and len(val) > ID_LENGTH else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the chaos tests kill the daemon or its store")
    parser.addoption("--chaos-minutes", type=float, default=0.0, help="how long a split engine's processes are killed")
    parser.addoption("--systemd-machine", action="store_true", help="boot a systemd and try docs/systemd.md on it")
    parser.addoption("--order-seed", type=int, default=0, help="decides in what order Trio runs what is ready at once")
    parser.addoption("--chaos-seed", type=int, default=None, help="decides when and whom; else another one each time")


@pytest.fixture(autouse=True)
def seeded_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test whose clock jumps has tasks that wake at the same instant, and Trio runs them in an order that chance
    decides: the same one whenever the test runs, and with another `--order-seed` another one."""
    # Hypothesis's integration, which Trio brings, has switched it to an order that its own generator decides.
    seed = zlib.crc32(request.node.nodeid.encode()) + request.config.getoption("--order-seed")
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    trio._core._run._r.seed(seed)


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


@pytest.fixture
def many_kills(request: pytest.FixtureRequest) -> bool:
    """Whether to kill often and under much work, as `make chaos` does, or as seldom as shows that it can be done."""
    kills: int = request.config.getoption("--kills")
    return kills >= MANY_KILLS


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> int:
    """Decides when and whom a test kills. It is said at once, and once more in the report of a failure: workers that
    share the suite show nothing before."""
    asked: int | None = request.config.getoption("--chaos-seed")
    seed = random.SystemRandom().randrange(2**32) if asked is None else asked
    with capsys.disabled():
        print(f"\n  chaos seed {seed} ", end="")
    print(f"chaos seed {seed}")
    return seed


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
