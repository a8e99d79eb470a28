"""The console on a real daemon: a process for all tests of this folder, and the pilot that presses its keys. A test
that counts what is there is a tenant of its own.

The console's tests are plain functions, because what runs in them is asyncio (with Trio as its guest).
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
from textual.pilot import Pilot

from console.app import ConsoleApp
from console.connection import Connection
from enginekit.client import Client, open_client
from enginekit.local import TENANT, Access, LocalDaemon

_path = Path(__file__).parents[1] / "real" / "conftest.py"
_spec = importlib.util.spec_from_file_location("real_daemon", _path)
assert _spec is not None
assert _spec.loader is not None
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)
RealDaemon = _real.RealDaemon

PATIENCE_SECONDS = 20.0


SETTINGS = """
[auth]
leeway_seconds = 0

[http]
allow = ["127.0.0.0/8"]
"""


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    daemon = RealDaemon(tmp_path_factory.mktemp("console"), SETTINGS)
    yield daemon
    daemon.stop()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[[str], RealDaemon]]:
    started: list[RealDaemon] = []

    def start(more: str = "") -> RealDaemon:
        started.append(RealDaemon(tmp_path, more))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


def access(daemon: RealDaemon, tenant: str = TENANT) -> Access:
    local = LocalDaemon(daemon.data, tenant)
    return Access(local.url, local.token)


def prepared(daemon: RealDaemon, prepare: Callable[[Client], Awaitable[object]], tenant: str = TENANT) -> None:
    """Do this to the daemon, before the console looks."""

    async def run() -> None:
        found = access(daemon, tenant)
        async with open_client(found.url, found.token) as client:
            await prepare(client)

    trio.run(run)


class Sitting:
    """Somebody before the console: reads the screen and presses keys."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    def text(self) -> str:
        """What is on the screen, line by line."""
        width, height = self.app.size
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).ljust(width) for strip in lines[:height])

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def sees(self, *texts: str, without: str | None = None) -> str:
        """Wait until all of them are on the screen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = self.text()
            if all(text in seen for text in texts) and (without is None or without not in seen):
                return seen
            assert time.monotonic() < deadline, f"{texts} never came; there is\n{seen}"
            await asyncio.sleep(0.05)  # the daemon is another process


def sit(found: Access, do: Callable[[Sitting], Awaitable[None]], size: tuple[int, int] = (100, 30)) -> None:
    """Open the console, do this, and leave it."""

    async def run() -> None:
        connection = Connection(found)
        app = ConsoleApp(connection)
        async with connection.attached(app.exit), app.run_test(size=size, notifications=True) as pilot:
            await do(Sitting(app, pilot))

    asyncio.run(run())
