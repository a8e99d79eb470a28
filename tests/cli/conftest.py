"""A scripted engine in a thread of its own, for commands that run a loop of theirs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "enginekit"))

from scripted_engine import Handler, ScriptedEngine, scripted_engine

from daemon.cli.main import engine as engine_command

Run = Callable[..., Result]


class EngineThread:
    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.engine: ScriptedEngine
        self._handlers = handlers
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stop = trio.Event()
        async with scripted_engine(**self._handlers) as self.engine:
            self._up.set()
            await self._stop.wait()

    def __enter__(self) -> ScriptedEngine:
        self._thread.start()
        assert self._up.wait(60)
        return self.engine

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedEngine]]:
    """`serving(Method=handler, …)`: an engine that ENGINE_URL points at until the test ends."""
    threads: list[EngineThread] = []

    def start(**handlers: Handler) -> ScriptedEngine:
        thread = EngineThread(handlers)
        engine = thread.__enter__()
        threads.append(thread)
        monkeypatch.setenv("ENGINE_URL", engine.url)
        monkeypatch.setenv("ENGINE_TOKEN", "a-token")
        return engine

    yield start
    for thread in threads:
        thread.__exit__()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `engine` with arguments, in an environment that knows no daemon unless `serving` says so."""
    monkeypatch.setenv("ENGINE_DATA_DIR", str(tmp_path / "state"))
    for name in ("ENGINE_URL", "ENGINE_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(engine_command, list(arguments), input=stdin)
        assert "Traceback" not in result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return invoke
