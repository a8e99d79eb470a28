"""How many transitions a second the stores take, through their driver process, and what that costs the daemon.

A transition is what completing one node and scheduling the next writes: five events (of an HTTP call that answered and
the next one, 1.2 KB in all), the run's row, one task out and one in. SQLite's file and PostgreSQL (a server of its own,
from its wheel, which waits for the disk at each commit) take turns. Run: `python -m benchmarks.store_commit
[--transitions N] [--batch N] [--runs N] [--rounds N]`. Prints figures, checks nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from benchmarks.throughput import children, cpu_seconds
from daemon.clock import moment
from daemon.journal.identity import RunIds
from daemon.settings import StoreSettings
from daemon.stores.interface import Store
from daemon.stores.open import open_store
from daemon.stores.rows import Batch, NewExecution, RunWrite
from enginekit.messages import events as ev
from enginekit.messages.events import TaskKind, encode_event
from enginekit.messages.links import QueuedTask, QueueKey, RunRef, TaskRef
from tests.servers.postgres import PostgresServer

_NOW = 1_800_000_000_000
SHARDS = StoreSettings().store_shards
_NODES = ("Reserve", "Charge", "Pack", "Ship", "Notify")


def _events(number: int, last: int) -> list[bytes]:
    """Those of transition `last // 5` of run `number`, encoded as the core does."""
    node, following = _NODES[last // 5 % 5], _NODES[(last // 5 + 1) % 5]
    time = moment(_NOW + 1_000 * last + 7 * number)
    order = {"order": f"order-{number}", "total_cents": 100 * number + last, "currency": "EUR", "customer": "Ada Kern"}
    payload = msgspec.Raw(msgspec.json.encode(order))
    answer = msgspec.Raw(
        msgspec.json.encode(
            {
                "StatusCode": 200,
                "Headers": {"content-type": ["application/json"], "content-length": ["41"]},
                "ResponseBody": {"reference": f"{node[0]}-{number}-{last}", "amount_cents": 100 * number + last},
                "ResponseBodyEncoding": "JSON",
            }
        )
    )
    entry, task = max(last - 1, 1), max(last, 1)
    at = {"node": node, "path": node, "entry": entry}
    to = {"node": following, "path": following, "entry": last + 4}
    return [
        encode_event(event)
        for event in (
            ev.TaskStarted(id=last + 1, time=time, **at, task=task, worker="daemon", began_at=time),
            ev.TaskCompleted(id=last + 2, time=time, **at, task=task, output=answer),
            ev.NodeExited(id=last + 3, time=time, **at, next=following, output=payload),
            ev.NodeEntered(id=last + 4, time=time, **to, kind="Task", input_ref=last + 3),
            ev.TaskScheduled(
                id=last + 5,
                time=time,
                **to,
                kind=TaskKind.NODE,
                resource="http",
                queue="http",
                attempt=1,
                input=payload,
                timeout_seconds=15.0,
                schedule_to_start_seconds=86400.0,
                destination="shop.example.org:443",
            ),
        )
    ]


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
                    shard=(start + index) % SHARDS,
                    epoch=1,
                    run=run,
                    first_event_id=last + 1,
                    events=_events(start + index, last),
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
        (driver,) = children(os.getpid())
        used = cpu_seconds(driver)
        began, cpu = time.perf_counter(), time.thread_time()
        for batch in batches:
            sent = time.perf_counter()
            await store.commit(batch)
            slowest = max(slowest, time.perf_counter() - sent)
        took, cpu = time.perf_counter() - began, time.thread_time() - cpu
        print(f"store open after       {opened * 1000:10.0f} ms")
        print(f"transitions a second   {transitions / took:10.0f}")
        print(
            f"commit                 {took / len(batches) * 1000:10.2f} ms on average, {slowest * 1000:.1f} ms at most"
        )
        print(f"daemon's CPU a commit  {cpu / len(batches) * 1e6:10.0f} us")
        print(f"daemon's CPU share     {cpu / transitions * 1e6:10.1f} us a transition")
        print(f"its process's CPU      {(cpu_seconds(driver) - used) / transitions * 1e6:10.1f} us a transition")
        nursery.cancel_scope.cancel()
    return transitions / took


def _sqlite(batches: list[Batch], folder: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        return trio.run(_measure, open_store(StoreSettings(), Path(made)), batches)


def _postgres(batches: list[Batch], server: PostgresServer) -> float:
    url = server.url(server.new_database())
    return trio.run(_measure, open_store(StoreSettings(url=url, shards=SHARDS), Path()), batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=64, help="runs in one commit")
    parser.add_argument("--runs", type=int, default=512, help="runs under way")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both stores")
    parser.add_argument("--folder", type=Path, default=None, help="where to make SQLite's file (default: a new folder)")
    arguments = parser.parse_args()
    ids = RunIds(random.Random(1), SHARDS)
    runs = [RunRef("default", f"order-{number}", ids.make(_NOW, number % SHARDS)) for number in range(arguments.runs)]
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
