"""How many transitions a second the stores take, through their driver process, and what that costs the daemon.

A transition is what completing one node and scheduling the next writes: five events, the run's row, one task out and
one in. SQLite's file and PostgreSQL (a server of its own, from its wheel, which waits for the disk at each commit) take
turns. Run: `python -m benchmarks.store_commit [--transitions N] [--batch N] [--runs N] [--rounds N]`. Prints figures,
checks nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from daemon.journal.identity import uuid_of
from daemon.settings import StoreSettings
from daemon.stores.interface import Store
from daemon.stores.open import open_store
from daemon.stores.rows import Batch, NewExecution, RunWrite
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, RunRef, TaskRef
from tests.servers.postgres import PostgresServer

_NOW = 1_800_000_000_000
_EVENT = b'{"type":"NodeEntered","id":12,"time":"2027-01-15T08:00:00.123Z","node":"Charge","path":"Charge","entry":12}'
_SHARDS = 4
_EVENTS = [_EVENT.ljust(220)] * 5


def _queued(run: RunRef, event_id: int) -> QueuedTask:
    return QueuedTask(TaskRef(run, event_id), QueueKey(run.tenant, TaskKind.NODE, "echo"), 0, _NOW + event_id)


def _batches(runs: list[RunRef], size: int, transitions: int) -> Iterator[Batch]:
    """Starts of all runs, then their transitions in turn."""
    new = NewExecution(
        workflow="order", version=1, definition_hash="0" * 64, labels={}, request_id=None, started_at=_NOW
    )
    done = 0
    last = 0
    while done < transitions:
        for start in range(0, len(runs), size):
            writes = [
                RunWrite(
                    shard=index % _SHARDS,
                    epoch=1,
                    run=run,
                    first_event_id=last + 1,
                    events=_EVENTS,
                    wake_at=_NOW + 300_000 + last + index,
                    created=new if last == 0 else None,
                    tasks_added=[_queued(run, last + 5)],
                    tasks_removed=[last] if last else [],
                )
                for index, run in enumerate(runs[start : start + size])
            ]
            done += len(writes)
            yield Batch(runs=writes)
        last += 5


async def _measure(store: Store, batches: list[Batch]) -> float:
    """The transitions a second."""
    async with trio.open_nursery() as nursery:
        began = time.perf_counter()
        await nursery.start(store.run)
        opened = time.perf_counter() - began
        await store.take_shards()
        transitions = sum(len(batch.runs) for batch in batches)
        slowest = 0.0
        began, cpu = time.perf_counter(), time.thread_time()
        for batch in batches:
            sent = time.perf_counter()
            await store.commit(batch)
            slowest = max(slowest, time.perf_counter() - sent)
        took, cpu = time.perf_counter() - began, time.thread_time() - cpu
        print(f"store open after       {opened * 1000:10.0f} ms")
        print(f"transitions a second   {transitions / took:10.0f}")
        driver = _processor_seconds(getattr(store, "driver_pid", None))
        print(
            f"commit                 {took / len(batches) * 1000:10.2f} ms on average, {slowest * 1000:.1f} ms at most"
        )
        print(f"daemon's CPU a commit  {cpu / len(batches) * 1e6:10.0f} us")
        print(f"daemon's CPU share     {cpu / transitions * 1e6:10.1f} us a transition")
        print(f"its driver's CPU       {driver / transitions * 1e6:10.1f} us a transition")
        nursery.cancel_scope.cancel()
    return transitions / took


def _processor_seconds(pid: int | None) -> float:
    """What a process has used so far, by the kernel's count."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sqlite(batches: list[Batch], folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        return trio.run(_measure, open_store(StoreSettings(), Path(made)), batches)


def _postgres(batches: list[Batch], server: PostgresServer) -> float:
    url = server.url(server.new_database())
    return trio.run(_measure, open_store(StoreSettings(url=url, shards=_SHARDS), Path()), batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=64, help="runs in one commit")
    parser.add_argument("--runs", type=int, default=512, help="runs under way")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both stores")
    parser.add_argument("--folder", type=Path, default=None, help="where to make SQLite's file (default: a new folder)")
    arguments = parser.parse_args()
    runs = [
        RunRef("default", f"order-{number}", str(uuid_of(_NOW + number, 0, number))) for number in range(arguments.runs)
    ]
    batches = list(_batches(runs, arguments.batch, arguments.transitions))
    server = PostgresServer(durable=True)
    ratios: list[float] = []
    try:
        server.start()
        for number in range(arguments.rounds):
            print(f"--- SQLite, {number + 1}")
            sqlite = _sqlite(batches, arguments.folder)
            print(f"--- PostgreSQL, {number + 1}")
            ratios.append(_postgres(batches, server) / sqlite)
    finally:
        server.stop()
    print(f"--- PostgreSQL to SQLite: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
