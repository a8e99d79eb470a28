"""A real daemon in a process of its own, one for all tests of a module, spoken to frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.engine import RealDaemon


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[[str], RealDaemon]]:
    """A daemon of the test's own, with settings of its own."""
    started: list[RealDaemon] = []

    def start(more: str = "") -> RealDaemon:
        started.append(RealDaemon(tmp_path, more))
        return started[-1]

    yield start
    for daemon in started:
        daemon.stop()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    daemon = RealDaemon(tmp_path_factory.mktemp("real"))
    yield daemon
    daemon.stop()
