"""What the console costs: `make console-load`.

A daemon with 10,000 executions; a load of 500 changes a second (starts and ends); the real `engine console` in a
pseudo-terminal of 160×50 on its list of executions. Measured: its processor time, how long a key takes until its answer
is on the terminal, and what it costs the daemon: the processor time that the daemon's loop spends more under the same
changes, as a part of the core that it has, alone and beside the console in turns. Beside that, the tasks a second of a
load that never rests, alone and with the console. Exit status 1 where a limit is not kept, or the
machine did not make that many changes.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import statistics
import struct
import sys
import tempfile
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from benchmarks.idle import WAITING, fill
from benchmarks.throughput import TASKS, cpu_seconds, definition, load
from enginekit.client import Client, open_client
from enginekit.local import LocalDaemon
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import JSON, encode
from examples.orders.stage import open_engine

WIDTH, HEIGHT = 160, 50
CORE_LIMIT = 0.25
KEY_LIMIT_SECONDS = 0.1
COST_LIMIT = 0.05
BRIEF: dict[str, JSON] = {"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": True}}}
PAGES = ((b"2", b"pollers"), (b"3", b"took"))
"""A key, and what is on its page alone."""


class Terminal:
    """The console in a pseudo-terminal, and whoever sits before it."""

    def __init__(self, stream: trio.lowlevel.FdStream, pid: int) -> None:
        self.pid = pid
        self._stream = stream
        self._seen = bytearray()
        self._changed = trio.Event()

    async def read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(65536)
            except trio.BrokenResourceError:
                return  # it has left
            if not data:
                return
            self._seen += data
            del self._seen[:-200_000]
            self._changed.set()
            self._changed = trio.Event()

    async def press(self, key: bytes, expected: bytes) -> float:
        """Seconds until `expected` is on the terminal after a key."""
        self._seen.clear()
        begun = time.perf_counter()
        await self._stream.send_all(key)
        with trio.fail_after(30):
            while expected not in self._seen:
                await self._changed.wait()
        return time.perf_counter() - begun

    async def shows(self, text: bytes) -> None:
        with trio.fail_after(60):
            while text not in self._seen:
                await self._changed.wait()


@asynccontextmanager
async def console(local: LocalDaemon) -> AsyncIterator[Terminal]:
    """`engine console` for the block, on the executions."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environ = {**os.environ, "ENGINE_DATA_DIR": str(local.folder), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "daemon.cli", "console"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,  # where Textual draws
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(trio.lowlevel.FdStream(ours), process.pid)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminal.read)
            await terminal.shows(b"live")
            await terminal.press(b"3", b"took")
            yield terminal
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            await process.wait()


class Changes:
    """Starts of executions that end at once, evenly, until cancelled: two changes each."""

    def __init__(self, client: Client, per_second: float) -> None:
        self._client = client
        self._per_second = per_second
        self.made = 0

    async def run(self) -> None:
        begun, number = trio.current_time(), 0
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(begun + number / (self._per_second / 2))
                nursery.start_soon(self._one)
                number += 1

    async def _one(self) -> None:
        await self._client.start("brief")
        self.made += 2


async def spent(pid: int, seconds: float) -> float:
    """The part of a core that a process takes for a while."""
    before, begun = cpu_seconds(pid), time.perf_counter()
    await trio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.perf_counter() - begun)


async def watched(client: Client, local: LocalDaemon, pid: int, given: argparse.Namespace) -> bool:
    """The console under changes: what it takes, how it answers, and what it costs the daemon, in turns."""
    keys: list[float] = []
    own: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    changes = Changes(client, given.changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(changes.run)
        await trio.sleep(3)
        made, begun = changes.made, time.perf_counter()
        for _ in range(given.rounds):
            alone.append(await spent(pid, given.seconds))
            async with console(local) as terminal:
                for _ in range(given.executions // 400):  # down to the oldest, so that it holds them all
                    await terminal.press(b"G", b"")
                    await trio.sleep(0.1)
                await terminal.press(b"g", b"")
                await trio.sleep(1)
                before, since = cpu_seconds(terminal.pid), time.perf_counter()
                beside.append(await spent(pid, given.seconds))
                own.append((cpu_seconds(terminal.pid) - before) / (time.perf_counter() - since))
                for _ in range(6):
                    for key, expected in PAGES:
                        keys.append(await terminal.press(key, expected))
                        await trio.sleep(0.4)
        achieved = (changes.made - made) / (time.perf_counter() - begun)
        nursery.cancel_scope.cancel()
    keys.sort()
    slow = keys[int(len(keys) * 0.95)]
    core = statistics.median(own)
    cost = statistics.median(beside) - statistics.median(alone)
    print(f"{given.executions:,} executions, {achieved:.0f} changes a second, {WIDTH}×{HEIGHT}, {given.rounds} turns:")
    print(f"  the console takes {core:.3f} of a core (limit {CORE_LIMIT})")
    print(
        f"  a key is answered within {statistics.median(keys) * 1e3:.0f} ms (median), {slow * 1e3:.0f} ms (95 %), "
        f"{keys[-1] * 1e3:.0f} ms (longest of {len(keys)}); limit of the 95 %: {KEY_LIMIT_SECONDS * 1e3:.0f} ms"
    )
    print(
        f"  the daemon takes {statistics.median(alone):.3f} of a core alone and {statistics.median(beside):.3f} beside "
        f"it: it costs {cost:.1%} of what one core can do (limit {COST_LIMIT:.0%})",
        flush=True,
    )
    if achieved < given.changes * 0.95:
        print(f"  the machine did not make {given.changes:g} changes a second: what it shows is of fewer", flush=True)
        return False
    return core <= CORE_LIMIT and slow <= KEY_LIMIT_SECONDS and cost <= COST_LIMIT


async def flat_out(client: Client, executions: int) -> float:
    """Tasks a second of a load that never rests."""
    return executions * TASKS / await load(client, executions, 64)


async def main(given: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as name:
        async with open_engine(Path(name)) as (engine, local), open_client(local.url, local.token) as client:
            for workflow, document in (("waiting", WAITING), ("brief", BRIEF), ("bench", definition(TASKS))):
                await client.call(RegisterWorkflow(name=workflow, definition=encode(document)))
            await fill(client, given.executions)
            kept = await watched(client, local, engine.process.pid, given)
            await load(client, 200, 64)
            alone: list[float] = []
            beside: list[float] = []
            for _ in range(given.rounds):
                alone.append(await flat_out(client, 600))
                async with console(local):
                    beside.append(await flat_out(client, 600))
            print(
                f"  flat out, with client, store and console on {os.cpu_count()} cores: "
                f"{statistics.median(alone):,.0f} tasks/s alone, {statistics.median(beside):,.0f} beside it, "
                f"ratio {statistics.median(beside) / statistics.median(alone):.2f}",
                flush=True,
            )
            return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--changes", type=float, default=500.0, help="a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    sys.exit(0 if trio.run(main, parser.parse_args()) else 1)
