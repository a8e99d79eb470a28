"""A real engine, and workers in processes of their own, started by `engine worker`.

Examples' stage is what starts them; `ledger_app` is what they run.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from click.testing import CliRunner

from daemon.cli.main import engine as command_line
from enginekit.client import Client, open_client
from enginekit.local import LocalDaemon
from examples.orders.stage import Program, open_engine

ENGINE = str(Path(sysconfig.get_path("scripts")) / "engine")
SHORT_LEASES = "\n[tasks]\nlease_seconds = 1.0\nreturns = 50\n"


class Site:
    """The engine, a client of it, and the workers that were started."""

    def __init__(self, folder: Path, local: LocalDaemon, client: Client, engine: Program | None = None) -> None:
        """Ledgers and logs are in `folder`. `engine` is there where it is the test's own."""
        self.folder = folder
        self._engine = engine
        self.local = local
        self.client = client
        self._workers = 0

    @property
    def engine(self) -> Program:
        assert self._engine is not None, "this engine is other tests' as well"
        return self._engine

    @engine.setter
    def engine(self, engine: Program) -> None:
        self._engine = engine

    def environ(self) -> dict[str, str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ENGINE_")}
        environ |= {"ENGINE_DATA_DIR": str(self.local.folder), "LEDGER": str(self.folder)}
        # With an engine of one's own, a worker finds it again on another port and makes its tokens itself.
        return environ if self._engine else environ | {"ENGINE_TOKEN": self.local.token()}

    @asynccontextmanager
    async def worker(self, *options: str, app: str = "ledger_app:app") -> AsyncIterator[Program]:
        """`engine worker`, once it works. Killed at the end of the block if it is still there."""
        self._workers += 1
        log = self.folder / f"worker-{self._workers}.log"
        command = [ENGINE, "worker", app, "--log-format", "json", *options]
        with log.open("wb") as output:
            process = await trio.lowlevel.open_process(
                command, env=self.environ(), cwd=Path(__file__).parent, stdout=output, stderr=output
            )
        program = Program("the worker", process, log)
        try:
            await logged(program, "working for engine")
            yield program
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                    await process.wait()

    async def run(self, *arguments: str, status: int = 0, stderr: bool = False) -> str:
        """A command's stdout, or its stderr. In a thread of this process, which is faster."""
        done = await trio.to_thread.run_sync(partial(CliRunner().invoke, command_line, arguments, env=self.environ()))
        assert done.exit_code == status, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if stderr else done.stdout

    def ledger(self, name: str) -> list[dict]:
        """What workers wrote down, in order."""
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in whole_lines(path)] if path.exists() else []

    async def noted(self, name: str, count: int = 1) -> list[dict]:
        """The same, once there is so much."""
        await until(lambda: len(self.ledger(name)) >= count)
        return self.ledger(name)


async def until(true: Callable[[], bool]) -> None:
    """Return once it is. For what other processes do, in which there is no clock of ours."""
    with trio.fail_after(120):
        while True:
            if true():
                return
            await trio.sleep(0.02)


def lines(program: Program) -> list[dict]:
    """A worker's log."""
    return [json.loads(line) for line in whole_lines(program.log) if line.startswith("{")]


def whole_lines(path: Path) -> list[str]:
    """Without one that is being written right now."""
    return path.read_text().rpartition("\n")[0].splitlines()


async def logged(program: Program, text: str) -> dict:
    """The first line of a worker's log that says so, once it is there."""
    with trio.move_on_after(120):
        while True:
            for line in lines(program):
                if text in line["event"]:
                    return line
            assert program.process.returncode is None, program.failure(f"ended before it said {text!r}")
            await trio.sleep(0.02)  # another process, and no clock of ours in it
    raise program.failure(f"has not said {text!r}")


@asynccontextmanager
async def open_site(folder: Path, more: str = SHORT_LEASES) -> AsyncIterator[Site]:
    """With an engine of its own."""
    async with (
        open_engine(folder, more) as (engine, local),
        open_client(local.url, local.token, timeout_seconds=60) as client,
    ):
        yield Site(folder, local, client, engine)
