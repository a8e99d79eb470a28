"""The real daemon under a notify socket of the test's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from notify_socket import CONFIG, Unit


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Callable[..., Unit]]:
    """`unit()`: `engine serve` under a notify socket; `unit(command)`: another program that serves."""
    made: list[Unit] = []

    def start(command: list[str] | None = None, address: str | None = None, config: str = CONFIG) -> Unit:
        serve = [sys.executable, "-m", "daemon.cli", "serve"]
        serve += ["--config", str(tmp_path / "engine.toml"), "--data-dir", str(tmp_path / "data")]
        made.append(Unit(serve if command is None else command, tmp_path, address, config))
        return made[-1]

    yield start
    for each in made:
        each.end()
