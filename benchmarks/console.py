"""What the console costs: `make console-load`.

A daemon with 10,000 executions; a load of 500 changes a second (starts and ends); the real `engine console` in a
pseudo-terminal of 160×50 on its list of executions. Measured: its processor time, how long a key takes until its answer
is on the terminal, and what it costs the daemon, as processor time a task and as tasks a second of a load that never
rests, alone and beside it in turns. Exit status 1 where a limit is not kept.
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


async def changes(client: Client, per_second: float) -> None:
    """Starts of executions that end at once, evenly, until cancelled: two changes each."""
    begun, number = trio.current_time(), 0
    async with trio.open_nursery() as nursery:

        async def one() -> None:
            await client.start("brief")

        while True:
            await trio.sleep_until(begun + number / (per_second / 2))
            nursery.start_soon(one)
            number += 1


async def watched(client: Client, local: LocalDaemon, per_second: float, seconds: float) -> tuple[float, list[float]]:
    """The part of a core that the console takes under the load, and the seconds that keys took."""
    keys: list[float] = []
    async with console(local) as terminal, trio.open_nursery() as nursery:
        nursery.start_soon(changes, client, per_second)
        await trio.sleep(3)
        before, begun = cpu_seconds(terminal.pid), time.perf_counter()
        while time.perf_counter() - begun < seconds:
            await trio.sleep(1)
        core = (cpu_seconds(terminal.pid) - before) / (time.perf_counter() - begun)
        for _ in range(15):
            for key, expected in PAGES:
                keys.append(await terminal.press(key, expected))
                await trio.sleep(0.4)
        nursery.cancel_scope.cancel()
    return core, keys


async def flat_out(client: Client, pid: int, executions: int) -> tuple[float, float]:
    """Tasks a second, and microseconds of the daemon's processor time a task."""
    before = cpu_seconds(pid)
    seconds = await load(client, executions, 64)
    tasks = executions * TASKS
    return tasks / seconds, (cpu_seconds(pid) - before) / tasks * 1e6


async def main(executions: int, per_second: float, seconds: float, rounds: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        async with open_engine(Path(name)) as (engine, local), open_client(local.url, local.token) as client:
            pid = engine.process.pid
            for workflow, document in (("waiting", WAITING), ("brief", BRIEF), ("bench", definition(TASKS))):
                await client.call(RegisterWorkflow(name=workflow, definition=encode(document)))
            await fill(client, executions)
            core, keys = await watched(client, local, per_second, seconds)
            keys.sort()
            slow = keys[int(len(keys) * 0.95)]
            print(f"{executions:,} executions, {per_second:g} changes a second, {WIDTH}×{HEIGHT}:", flush=True)
            print(f"  the console takes {core:.3f} of a core (limit {CORE_LIMIT})")
            print(
                f"  a key is answered within {statistics.median(keys) * 1e3:.0f} ms (median), {slow * 1e3:.0f} ms "
                f"(95 %), {keys[-1] * 1e3:.0f} ms (longest of {len(keys)}); limit of the 95 %: "
                f"{KEY_LIMIT_SECONDS * 1e3:.0f} ms",
                flush=True,
            )
            await load(client, 200, 64)
            alone: list[tuple[float, float]] = []
            beside: list[tuple[float, float]] = []
            for _ in range(rounds):
                alone.append(await flat_out(client, pid, 600))
                async with console(local):
                    beside.append(await flat_out(client, pid, 600))
            tasks, tasks_beside = (statistics.median(each[0] for each in runs) for runs in (alone, beside))
            cpu, cpu_beside = (statistics.median(each[1] for each in runs) for runs in (alone, beside))
            cost = 1 - cpu / cpu_beside
            print(
                f"  the daemon flat out, medians of {rounds} turns: {tasks:,.0f} tasks/s alone, {tasks_beside:,.0f} "
                f"beside it (all on {os.cpu_count()} cores); {cpu:.0f} and {cpu_beside:.0f} us of the daemon's CPU a "
                f"task, which costs {cost:.1%} of what one core can do (limit {COST_LIMIT:.0%})",
                flush=True,
            )
            return core <= CORE_LIMIT and slow <= KEY_LIMIT_SECONDS and cost <= COST_LIMIT


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--changes", type=float, default=500.0, help="a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    kept = trio.run(main, arguments.executions, arguments.changes, arguments.seconds, arguments.rounds)
    sys.exit(0 if kept else 1)
