"""The pytest plugin: the `engine` fixture, a whole daemon in a test.

    async def test_a_reminder_comes_after_thirty_days(engine):
        engine.activity("remind", lambda order: {"reminded": order["id"]})
        run = await engine.start(Path("reminder.asl.json"), {"id": 7})
        await engine.advance(days=29)
        assert engine.calls_of("remind") == []
        assert await run.result() == {"reminded": 7}

It needs pytest-trio (`pip install execution-plane[testing]`), whose mark a test with this fixture has by itself. Time
is Trio's mock clock: it stands still while anything happens and jumps when nothing does. The same `engine_seed` gives
the same run, event for event.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from trio.testing import MockClock

T = TypeVar("T")

if TYPE_CHECKING:
    from daemon.settings import Settings
    from daemon.testing import TestEngine


FIXTURE = "engine"


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test with the fixture runs under Trio and a clock that jumps."""
    if FIXTURE in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.trio(run=_run))


def _run(
    function: Callable[[], Awaitable[T]],
    *,
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    jumping = clock if clock is not None else MockClock(autojump_threshold=0)
    return trio.run(function, clock=jumping, instruments=instruments)


@pytest.fixture
def engine_seed() -> int:
    """What decides all that chance decides in the `engine` fixture. Override it, or parametrize it, for other runs."""
    return 0


@pytest.fixture
def engine_settings() -> Settings | None:
    """The daemon's settings (`daemon.settings.Settings`); None: its defaults. Override it for others."""
    return None


@pytest.fixture
def engine_determinism(engine_seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have Trio run its tasks in an order that the seed decides."""
    # Trio shuffles its run queue on purpose; these are what Hypothesis's own integration sets.
    internals = trio._core._run
    monkeypatch.setattr(internals, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    before = internals._r
    monkeypatch.setattr(internals, "_r", random.Random(engine_seed))
    yield
    assert internals._r is not before


try:
    from pytest_trio import trio_fixture
except ModuleNotFoundError:

    @pytest.fixture
    def engine() -> None:
        """Says what is missing."""
        pytest.fail("the `engine` fixture needs pytest-trio: pip install 'execution-plane[testing]'", pytrace=False)

else:

    @trio_fixture  # type: ignore[untyped-decorator]
    async def engine(
        engine_determinism: None,
        engine_seed: int,
        engine_settings: Settings | None,
        tmp_path: Path,
    ) -> AsyncIterator[TestEngine]:
        """A daemon on the memory store, with nobody who works but the fakes that the test names."""
        # The kit does without the daemon; this fixture is the one part of it that cannot.
        testing = importlib.import_module("daemon.testing")
        async with testing.running_engine(tmp_path / "engine", engine_seed, engine_settings) as running:
            yield running
