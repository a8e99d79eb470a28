"""What purging costs those who run executions meanwhile: `make purge`.

Two daemons over a store each, one of which keeps what has closed for half a second and looks all the time, so that it
purges as many executions as it runs; the other keeps everything. They are loaded in turns, on SQLite and on PostgreSQL,
so that what else happens on the machine happens to both; the ratio of each round is what counts. Prints tasks a second,
the processor time that the daemon and its store's process take for a task, how many executions were purged in each
turn, the ratios, and how busy the machine was; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from benchmarks.throughput import TASKS, children, cpu_seconds, definition, load
from daemon.cli.main import main as engine
from daemon.journal import purging
from enginekit.client import open_client
from enginekit.errors import Unreachable
from enginekit.local import LocalDaemon
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode
from examples.orders.stage import ENGINE_TOML, Program, running
from tests.servers.postgres import PostgresServer

IN_FLIGHT = 64
KEPT_SECONDS = 0.5
LOOK_SECONDS = 0.1
WAYS = ("kept", "purged")


@asynccontextmanager
async def daemon(folder: Path, way: str, store: str) -> AsyncIterator[tuple[Program, LocalDaemon]]:
    """One that keeps what has closed, or purges it."""
    config = folder / "engine.toml"
    history = f"[history]\nretention_days = {KEPT_SECONDS / 86_400:.12f}\n" if way == "purged" else ""
    config.write_text(ENGINE_TOML + store + history)
    command = [sys.executable, "-m", "benchmarks.purging", "--serve", str(config), str(folder / "data")]
    local = LocalDaemon(folder / "data")
    async with running("the engine", command, folder / "engine.log") as program:
        while not _listens(local, program):
            if program.process.returncode is not None:
                raise program.failure("did not start")
            await trio.sleep(0.05)
        yield program, local


def _listens(local: LocalDaemon, program: Program) -> bool:
    try:
        return local.file().pid == program.process.pid
    except Unreachable:
        return False


def purged(log: Path) -> int:
    """Executions so far, as the daemon says."""
    return sum(map(int, re.findall(r'"purged": (\d+)', log.read_text())))


async def compare(name: str, stores: dict[str, str], rounds: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        clients, logs, programs = {}, {}, {}
        for way in WAYS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engine-purging-")))
            program, local = await stack.enter_async_context(daemon(folder, way, stores[way]))
            clients[way] = await stack.enter_async_context(open_client(local.url, local.token))
            logs[way] = folder / "engine.log"
            programs[way] = program
            await clients[way].call(RegisterWorkflow(name="bench", definition=encode(definition(TASKS))))
        executions = 0
        for way in WAYS:
            executions = max(round(seconds * 300 / await load(clients[way], 300, IN_FLIGHT)), 300)
        ratios: list[float] = []
        costs: list[float] = []
        for number in range(rounds):
            rates, spent = {}, {}
            for way in WAYS if number % 2 else reversed(WAYS):
                pids = [programs[way].process.pid, *children(programs[way].process.pid)]
                before, used, began = purged(logs["purged"]), sum(map(cpu_seconds, pids)), time.perf_counter()
                rates[way] = executions * TASKS / await load(clients[way], executions, IN_FLIGHT)
                took = time.perf_counter() - began
                # What has closed last goes before the other one's turn, and counts.
                await trio.sleep(KEPT_SECONDS + 1)
                spent[way] = (sum(map(cpu_seconds, pids)) - used) / executions / TASKS * 1e6
                gone = purged(logs["purged"]) - before if way == "purged" else 0
                print(
                    f"{name:10} {way:6} {rates[way]:6.0f} tasks/s   {spent[way]:5.0f} µs of CPU a task   "
                    f"{gone:5} of {executions} purged, {gone / took:.0f} a second",
                    flush=True,
                )
            costs.append(spent["purged"] / spent["kept"])
            ratios.append(rates["purged"] / rates["kept"])
        for what, found in (("tasks/s", ratios), ("CPU a task", costs)):
            some = ", ".join(f"{each:.2f}" for each in found)
            print(f"  {what}, purged / kept: {statistics.median(found):.2f} ({some})")
        print(f"  load average: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for program in programs.values():
            await program.stop()


async def measure(rounds: int, seconds: float) -> None:
    await compare("SQLite", dict.fromkeys(WAYS, ""), rounds, seconds)
    server = PostgresServer(durable=True)
    try:
        server.start()
        stores = {way: f'[store]\nurl = "{server.url(server.new_database())}"\n' for way in WAYS}
        await compare("PostgreSQL", stores, rounds, seconds)
    finally:
        server.stop()


def serve(config: str, data: str) -> None:
    """Be the daemon, which looks for what is to be purged more often than any other."""
    purging.LOOK_SECONDS = LOOK_SECONDS  # type: ignore[misc]
    sys.argv = ["engine", "serve", "--config", config, "--data-dir", data]
    engine()


def run() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.purging")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each turn, about")
    parser.add_argument("--serve", nargs=2, metavar=("CONFIG", "DATA"), help="be a daemon (used by the benchmark)")
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
    else:
        trio.run(measure, given.rounds, given.seconds)


if __name__ == "__main__":
    run()
