"""The whole daemon in one thread: memory store, memory links, the mock clock, one seed.

`simulate` runs a scenario against a daemon without sockets and returns what it returns. The seed decides everything
that chance decides, the order in which Trio runs its tasks included.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from simulation import OWNER, Simulation
from trio.testing import MockClock

from daemon.api.auth import Principal
from daemon.settings import Settings
from daemon.supervisor import ServiceName
from enginekit.node import Node

T = TypeVar("T")


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., object]:
    def run(
        scenario: Callable[[Simulation], Awaitable[T]],
        seed: int = 1,
        settings: Settings | None = None,
        always_raises: ServiceName | None = None,
        made: Mapping[str, Node] | None = None,
    ) -> T:
        trio._core._run._r.seed(seed)
        outcome: list[T] = []

        async def main() -> None:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            daemon = Simulation(settings or Settings(), folder, seed, always_raises, made)
            async with trio.open_nursery() as nursery:
                await nursery.start(daemon.run)
                outcome.append(await scenario(daemon))
                daemon.drain()

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return outcome[0]

    return run


@pytest.fixture
def owner() -> Principal:
    return OWNER


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)
