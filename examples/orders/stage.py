"""The two programs of the example as child processes: the shop and the engine, on free ports and in a folder of theirs.

Starting, waiting until they answer, stopping, killing. What is done with them is the demo's, or a test's.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import trio

from enginekit.errors import Unreachable
from enginekit.local import LocalDaemon
from examples.orders.verdict import ShopReport

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
"""Of a machine that does much else besides."""
STOP_SECONDS = 120.0
KILL_SECONDS = 30.0
LOG_LINES = 20

ENGINE_TOML = """\
[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"

[http]
# The shop is on this machine, where calls may not go unless it is said.
allow = ["127.0.0.0/8"]
"""


class StageError(Exception):
    """A program did not start, or did not stop as it should. The message ends with the last lines of its log."""


class Program:
    """A child process with its log file."""

    def __init__(self, name: str, process: trio.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def failure(self, problem: str) -> StageError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return StageError("\n".join([f"{self.name} {problem}; its log ends:", *lines]))

    async def stop(self) -> None:
        """Ask it to end, and wait. Raises StageError when it does not, or not with status 0."""
        self.process.terminate()
        with trio.move_on_after(STOP_SECONDS) as patience:
            await self.process.wait()
        if patience.cancelled_caught:
            raise self.failure(f"has not ended {STOP_SECONDS:g} s after SIGTERM")
        if self.process.returncode != 0:
            raise self.failure(f"ended with status {self.process.returncode} after SIGTERM")


@asynccontextmanager
async def running(name: str, command: list[str], log: Path) -> AsyncIterator[Program]:
    """Run it for the block; at the end it is killed if it is still there."""
    with log.open("ab") as output:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
    try:
        yield Program(name, process, log)
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS):
                await process.wait()


@asynccontextmanager
async def open_shop(
    folder: Path, *, port: int = 0, seed: int = 1, slow: float = 1.0
) -> AsyncIterator[tuple[Program, str]]:
    """The shop and its URL. Its ledger lies in `folder`. Raises StageError."""
    log = folder / "shop.log"
    known = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "examples.orders.shop", "--ledger", str(folder / "shop.jsonl")]
    command += ["--port", str(port), "--seed", str(seed), "--slow", str(slow)]
    async with running("the shop", command, log) as program:
        url: str | None = None
        with trio.move_on_after(START_SECONDS):
            while url is None and program.process.returncode is None:
                await trio.sleep(0.02)
                url = _announced(log.read_bytes()[known:])
        if url is None:
            raise program.failure("did not start")
        yield program, url


def _announced(output: bytes) -> str | None:
    line, end, _ = output.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=dict[str, str])["url"] if end else None
    except (msgspec.MsgspecError, KeyError):
        return None


@asynccontextmanager
async def open_engine(folder: Path, more: str = "") -> AsyncIterator[tuple[Program, LocalDaemon]]:
    """The engine on its embedded store in `folder`, once it says where it listens. `more` is added to its engine.toml.
    Raises StageError."""
    config = folder / "engine.toml"
    config.write_text(ENGINE_TOML + more)
    data = folder / "data"
    command = [str(Path(sysconfig.get_path("scripts")) / "engine"), "serve"]
    command += ["--config", str(config), "--data-dir", str(data)]
    daemon = LocalDaemon(data)
    async with running("the engine", command, folder / "engine.log") as program:
        with trio.move_on_after(START_SECONDS) as patience:
            while not _listens(daemon, program.process.pid):
                if program.process.returncode is not None:
                    raise program.failure(f"did not start: it ended with status {program.process.returncode}")
                await trio.sleep(0.05)
        if patience.cancelled_caught:
            raise program.failure(f"has not started after {START_SECONDS:g} s")
        yield program, daemon


def _listens(daemon: LocalDaemon, pid: int) -> bool:
    try:
        return daemon.file().pid == pid  # a file that another process has left says nothing
    except Unreachable:
        return False


async def shop_report(url: str) -> ShopReport:
    """What the shop has performed. Raises httpx2.HTTPError."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{url}/ledger")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=ShopReport)
