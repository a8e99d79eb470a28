"""The console on a real daemon: a process for all tests of this folder. A test that counts what is there is a tenant of
its own. Who presses the keys is in sitting.py.

The console's tests are plain functions, because what runs in them is asyncio (with Trio as its guest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.engine import RealDaemon

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
