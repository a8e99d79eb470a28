"""Timers, measured and held to their limits: `make timers`. The exit status is 1 where one is not kept.

1. How late a timer is on an idle daemon, as a client sees it: the moment that a Wait of a given time is over and on
   disk and told, less that time. At the median less than 50 ms.
2. 10,000 timers due within one second: all have fired, and that is on disk, within three seconds of the first.
3. 1,000,000 timers armed, each that of an execution of its own, loaded through the store: its file stays under 400 MB,
   and the daemon starts on it (until it serves calls) in under ten seconds.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio

from benchmarks.throughput import children, cpu_seconds
from daemon.clock import millis, moment
from daemon.execution.commands import Environment, Limits, Pulse, Start, TaskDefaults
from daemon.execution.deadlines import next_wake
from daemon.execution.decide import start
from daemon.journal.definitions import hash_of
from daemon.journal.identity import RunIds
from daemon.language import parse_definition
from daemon.settings import StoreSettings, TaskSettings
from daemon.stores.rows import Batch, DefinitionWrite, NewExecution, RunWrite
from daemon.stores.sqlite.database import open_driver
from enginekit.client import Client, open_client
from enginekit.messages.calls import DescribeDaemon, ListWorkflows, RegisterWorkflow
from enginekit.messages.events import TimerFired
from enginekit.messages.json import JSON, encode
from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus
from examples.orders.stage import open_engine

LATE_MEDIAN_SECONDS = 0.050
BURST_SECONDS = 3.0
FILE_BYTES = 400_000_000
START_SECONDS = 10.0

UNTIL: dict[str, JSON] = {
    "StartAt": "Until",
    "States": {"Until": {"Type": "Wait", "TimestampPath": "$.until", "End": True}},
}
IN_FLIGHT = 64
TENANT = "default"
BATCH_RUNS = 2_000


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def report(what: str, figure: float, limit: float, unit: str) -> bool:
    kept = figure < limit
    print(f"{what}: {figure:,.1f} {unit} (limit {limit:,.0f} {unit}) {'' if kept else '- NOT KEPT'}", flush=True)
    return kept


# --- on an idle daemon -----------------------------------------------------------------------------------------------


async def lateness(client: Client, timers: int) -> bool:
    """One timer after the other, at odd moments."""
    chance = random.Random(1)
    seen: list[float] = []
    decided: list[float] = []
    for _ in range(timers):
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(milliseconds=2000 + chance.randrange(1000))
        started = await client.start("until", input={"until": stamp(until)})
        await client.wait(started.workflow_id, started.run_id)
        seen.append((datetime.now(UTC) - until).total_seconds() * 1000)
        async for event in client.history(started.workflow_id, started.run_id):
            if isinstance(event, TimerFired):
                decided.append(event.late_seconds * 1000)
    print(
        f"decided {statistics.median(decided):.1f} ms late at the median; seen by the client {min(seen):.1f} to "
        f"{max(seen):.1f} ms late"
    )
    return report(f"late at the median of {timers}", statistics.median(seen), LATE_MEDIAN_SECONDS * 1000, "ms")


# --- many at once ----------------------------------------------------------------------------------------------------


async def burst(client: Client, timers: int, pid: int) -> bool:
    """All due within one second."""
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=10 + timers / 400)
    left = iter(range(timers))

    async def lane() -> None:
        for number in left:
            until = first + timedelta(milliseconds=number * 1000 // timers)
            await client.start("until", input={"until": stamp(until)}, labels={"burst": "1"})

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(lane)
    ahead = (first - datetime.now(UTC)).total_seconds()
    assert ahead > 1, f"{timers} executions could not be started in time"
    await trio.sleep(ahead - 0.5)
    processes = [pid, *children(pid)]
    before = [cpu_seconds(process) for process in processes]
    await trio.sleep(BURST_SECONDS + 0.5)
    daemon, store = (cpu_seconds(process) - used for process, used in zip(processes, before, strict=True))
    print(
        f"processor time within {BURST_SECONDS:g} s: {daemon:.1f} s of the daemon, {store:.1f} s of its store process"
    )
    query = ListWorkflows(label="burst=1", page_size=1000)
    with trio.fail_after(120):
        while True:
            closed = [row async for row in client.executions(query) if row.status is ExecutionStatus.SUCCEEDED]
            if len(closed) == timers:
                break
            await trio.sleep(1)
    last = max((row.closed_at - first).total_seconds() for row in closed if row.closed_at is not None)
    return report(f"{timers:,} due within a second, the last one fired after", last, BURST_SECONDS, "s")


# --- a million armed -------------------------------------------------------------------------------------------------


def runs(count: int, first: datetime, key: str, text: str, epochs: dict[int, int]) -> Iterator[RunWrite]:
    """Executions that wait, as the core starts them: their timers are a second apart, from `first` on."""
    definition = parse_definition(text, None)
    tasks = TaskSettings()
    defaults = TaskDefaults(
        **{name: getattr(tasks, name) for name in TaskDefaults.__struct_fields__},
    )
    now = millis(datetime.now(UTC))
    ids = RunIds(random.Random(1), len(epochs))
    for number in range(count):
        shard = number % len(epochs)
        run_id = ids.make(now, shard)
        ref = RunRef(TENANT, run_id, run_id)
        env = Environment(
            definition=definition,
            now=moment(now),
            by="timers",
            random=random.random,
            uuid=str,
            run_id=str,
            token=lambda event, returns: "",
            limits=Limits(),
            defaults=defaults,
        )
        run, decision = start(
            Start(
                run=ref,
                workflow="until",
                version=1,
                definition_hash=key,
                input=encode({"until": stamp(first + timedelta(seconds=number))}),
                labels={},
                request_id=None,
                timeout_seconds=None,
            ),
            env,
        )
        wake = next_wake(run, Pulse(since=env.now))
        assert wake is not None
        yield RunWrite(
            shard=shard,
            epoch=epochs[shard],
            run=ref,
            first_event_id=1,
            events=decision.events,
            wake_at=millis(wake),
            created=NewExecution(
                workflow="until", version=1, definition_hash=key, labels={}, request_id=None, started_at=now
            ),
        )


def load(folder: Path, count: int, first: datetime) -> Path:
    """A store with so many armed timers."""
    (folder / "data").mkdir()
    path = folder / "data" / "engine.db"
    text = bytes(encode(UNTIL)).decode()
    key = hash_of(text)
    driver = open_driver(path, StoreSettings().store_shards, 1.0)
    try:
        epochs = driver.writer.take_shards().epochs
        registered = DefinitionWrite(
            tenant=TENANT, hash=key, text=text, name="until", version=1, registered_at=millis(first)
        )
        driver.writer.commit(Batch(definitions=[registered]))
        batch: list[RunWrite] = []
        for write in runs(count, first, key, text, epochs):
            batch.append(write)
            if len(batch) == BATCH_RUNS:
                driver.writer.commit(Batch(runs=batch))
                batch = []
        driver.writer.commit(Batch(runs=batch))
    finally:
        driver.close()
    return path


def explain(path: Path) -> None:
    """What the file's bytes are for, where this SQLite can tell."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            sizes = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
        except sqlite3.OperationalError:
            return
    waking = sum(size for name, size in sizes.items() if "open_runs" in name)
    events = sum(size for name, size in sizes.items() if "events" in name)
    rest = sum(sizes.values()) - waking - events
    print(
        f"of it {waking / 1e6:,.0f} MB what wakes them, {events / 1e6:,.0f} MB their histories, {rest / 1e6:,.0f} MB "
        "by which executions are found and listed",
        flush=True,
    )


async def armed(count: int) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        first = datetime.now(UTC) + timedelta(seconds=60 + count / 4_000)
        path = load(folder, count, first)
        print(f"{count:,} timers loaded in {time.perf_counter() - begun:.0f} s", flush=True)
        small = report("the store's file", path.stat().st_size / 1e6, FILE_BYTES / 1e6, "MB")
        explain(path)
        begun = time.perf_counter()
        async with open_engine(folder) as (engine, local), open_client(local.url, local.token) as client:
            await client.call(DescribeDaemon())
            soon = report("the daemon served calls after", time.perf_counter() - begun, START_SECONDS, "s")
            page = await client.call(ListWorkflows(status=ExecutionStatus.RUNNING, page_size=1000))
            assert len(page.executions) == min(count, 1000)
            query = ListWorkflows(status=ExecutionStatus.SUCCEEDED)
            wait = max((first - datetime.now(UTC)).total_seconds(), 0) + 5
            print(f"the first is due in {wait - 5:.0f} s", flush=True)
            await trio.sleep(wait)
            fired = [row async for row in client.executions(query)]
            late = max(
                ((row.closed_at - first).total_seconds() for row in fired if row.closed_at is not None), default=0.0
            )
            print(f"{len(fired)} of them have fired within {late:.1f} s of the first's time", flush=True)
            await engine.stop()
    return small and soon and len(fired) >= 3


async def main(timers: int, at_once: int, count: int) -> bool:
    kept = True
    with tempfile.TemporaryDirectory() as name:
        async with open_engine(Path(name)) as (engine, local), open_client(local.url, local.token) as client:
            await client.call(RegisterWorkflow(name="until", definition=encode(UNTIL)))
            if timers:
                kept &= await lateness(client, timers)
            if at_once:
                kept &= await burst(client, at_once, engine.process.pid)
            await engine.stop()
    if count:
        kept &= await armed(count)
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--late", type=int, default=50, help="timers for the first figure; 0: none")
    parser.add_argument("--at-once", type=int, default=10_000, help="for the second")
    parser.add_argument("--armed", type=int, default=1_000_000, help="for the third")
    given = parser.parse_args()
    sys.exit(0 if trio.run(main, given.late, given.at_once, given.armed) else 1)
