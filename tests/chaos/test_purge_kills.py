"""`kill -9` inside a purge, of all that has a part in it: no run is left by half, and those that are kept are whole.

That it is inside is not left to chance: whoever writes is stopped first, and looked at. In SQLite it has the lock of a
writer when there is nothing to write but the purge, which is made to take long; in PostgreSQL it waits with its last
statement, and all of the runs' other rows deleted, for somebody who holds on to one of them. Then it is killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import struct
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import trio

from daemon.stores.driver import Reader
from daemon.stores.postgres.database import open_driver
from daemon.stores.rows import ExecutionFilter
from daemon.stores.sqlite.database import open_reader
from enginekit.client import Client, open_client
from enginekit.errors import Unreachable
from enginekit.local import LocalDaemon
from enginekit.messages import calls
from enginekit.messages.events import decode_event
from enginekit.messages.json import encode
from examples.orders.stage import ENGINE_TOML, Program, running
from tests.servers.postgres import PostgresServer

DUE, KEPT = 30, 10
"""Runs that are to be purged, and open ones, which are not."""
PATIENCE_SECONDS = 120.0
GOES_ON_SECONDS = 10.0

ECHO = {"Type": "Task", "Resource": "echo"}
DUE_SOON = {"StartAt": "A", "States": {"A": {**ECHO, "Next": "B"}, "B": {**ECHO, "End": True}}}
OPEN = {"StartAt": "A", "States": {"A": {**ECHO, "Next": "W"}, "W": {"Type": "Wait", "Seconds": 86400, "End": True}}}
FOR_EVER = "[history]\nlease_seconds = 2\n"
BRIEFLY = f"{FOR_EVER}retention_days = 0.0000001\n"
"""Executions that have closed are purged when a daemon starts."""

_WRITE_LOCK_AT = 120
"""Where in the shared memory of a database in WAL mode its writer has its lock (SQLite's documentation: wal.html)."""
_FLOCK = "hhqqi4x"
_SLOW = """
CREATE TRIGGER purging_takes_long BEFORE DELETE ON executions BEGIN
    SELECT count(*) FROM (
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) SELECT i FROM n
    );
END
"""
_WAITING = """
SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'engine write lane'
    AND wait_event_type = 'Lock' AND ltrim(query, E' \\n') LIKE 'DELETE FROM engine.executions %%'
"""
_OF_A_RUN = ("events", "labels", "snapshots", "tasks", "map_results")


# --- a daemon, life after life ----------------------------------------------------------------------------------------


@asynccontextmanager
async def life(folder: Path, more: str) -> AsyncIterator[Program]:
    """A daemon, which need not live to the end of it, nor until it listens."""
    config = folder / "engine.toml"
    config.write_text(ENGINE_TOML + more)
    command = [str(Path(sysconfig.get_path("scripts")) / "engine"), "serve"]
    command += ["--config", str(config), "--data-dir", str(folder / "data")]
    async with running("the engine", command, folder / "engine.log") as program:
        yield program


@asynccontextmanager
async def client_of(program: Program, folder: Path) -> AsyncIterator[Client]:
    daemon = LocalDaemon(folder / "data")

    def listens() -> bool:
        try:
            return daemon.file().pid == program.process.pid
        except Unreachable:
            return False

    await until(listens)
    async with open_client(daemon.url, daemon.token, timeout_seconds=PATIENCE_SECONDS) as client:
        yield client


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.005)


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(text) for thread in threads for text in (thread / "children").read_text().split()]


async def run_some(client: Client, numbers: Iterable[int], definition: dict[str, object]) -> None:
    for number in numbers:
        call = calls.StartWorkflow(
            definition=encode(definition), input=encode({"n": number}), workflow_id=f"order-{number}", labels={"a": "b"}
        )
        started = await client.call(call)
        if definition is DUE_SOON:
            assert (await client.wait(started.workflow_id, started.run_id)).status.value == "SUCCEEDED"


# --- what is there ----------------------------------------------------------------------------------------------------


def check_runs(reader: Reader) -> int:
    """Every run that is there has all of its events. How many there are."""
    page = reader.list_executions(ExecutionFilter(tenant="default", limit=1000))
    labeled = reader.list_executions(ExecutionFilter(tenant="default", limit=1000, label=("a", "b")))
    assert [each.run for each in labeled] == [each.run for each in page]
    for each in page:
        events = reader.events("default", each.run.run_id, 0, 1000, 2**30)
        assert [decode_event(event).id for event in events] == list(range(1, each.last_event_id + 1))
        assert len(events) > 3
    return len(page)


class SqlitePlace:
    store = ""
    """What engine.toml says of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "data" / "engine.db"

    def copy(self, folder: Path) -> SqlitePlace:
        shutil.copytree(self._folder / "data", folder / "data")
        return SqlitePlace(folder)

    def check(self) -> int:
        raw = sqlite3.connect(self._path, timeout=60)
        for table in _OF_A_RUN:
            orphans = f"SELECT count(*) FROM {table} WHERE run_id NOT IN (SELECT run_id FROM executions)"
            assert raw.execute(orphans).fetchone() == (0,), table
        assert raw.execute("SELECT count(*) FROM executions WHERE purging").fetchone() == (0,)
        raw.close()
        reader = open_reader(self._path)
        try:
            return check_runs(reader)
        finally:
            reader.close()

    def left(self) -> int:
        """How many runs there are."""
        return int(self._execute("SELECT count(*) FROM executions")[0])

    def _execute(self, statement: str) -> tuple[int, ...]:
        raw = sqlite3.connect(self._path, timeout=60, isolation_level=None)
        (found,) = raw.execute(statement).fetchall() or [()]
        raw.close()
        return found

    def _writer(self) -> int:
        """Who has the lock of a writer; 0: nobody."""
        with Path(f"{self._path}-shm").open("rb") as shared:
            asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _WRITE_LOCK_AT, 1, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(shared, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else pid

    async def kill_inside(self, victim: str) -> None:
        """Of the life that begins now: returns when the victim is dead, with the daemon if it is that one."""
        self._execute(_SLOW)
        log = self._folder / "engine.log"
        async with life(self._folder, BRIEFLY) as program:
            # From here on there is nothing to write but the purge.
            await until(lambda: b"shards taken" in log.read_bytes())
            daemon = program.process.pid
            driver = 0

            def inside() -> bool:
                nonlocal driver
                driver = self._writer()
                if driver not in children(daemon):
                    return False
                os.kill(driver, signal.SIGSTOP)
                if self._writer() == driver:
                    return True
                os.kill(driver, signal.SIGCONT)
                return False

            await until(inside)
            assert self.check() == DUE + KEPT, "what it has deleted is not on disk"
            os.kill(daemon, signal.SIGKILL if victim == "daemon" else signal.SIGSTOP)
            os.kill(driver, signal.SIGKILL)
            await until(lambda: self._writer() == 0)
            self._execute("DROP TRIGGER purging_takes_long")
            assert self.check() == DUE + KEPT
            if victim == "store":
                # The daemon lives through it, and begins anew.
                os.kill(daemon, signal.SIGCONT)
                await until(lambda: self.left() == KEPT)
                await program.stop()


class PostgresPlace:
    def __init__(self, folder: Path, server: PostgresServer, template: str = "template1") -> None:
        self._folder = folder
        self._server = server
        self._database = server.new_database(template)
        self.store = f'[store]\nurl = "{server.url(self._database)}"\nshards = 4\n'

    def copy(self, folder: Path) -> PostgresPlace:
        return PostgresPlace(folder, self._server, self._database)

    def check(self) -> int:
        with self._server.connect(self._database) as somebody:
            for table in _OF_A_RUN:
                orphans = (
                    f"SELECT count(*) FROM engine.{table} x "
                    "WHERE NOT EXISTS (SELECT FROM engine.executions e WHERE e.run_id = x.run_id)"
                )
                assert somebody.execute(orphans).fetchone() == (0,), table
            assert somebody.execute("SELECT count(*) FROM engine.executions WHERE purging").fetchone() == (0,)
        driver = open_driver(self._server.url(self._database), 4, 60.0, 30.0)
        try:
            return check_runs(driver.reader)
        finally:
            driver.close()

    def left(self) -> int | None:
        """How many runs there are; None while the server is not there."""
        try:
            with self._server.connect(self._database) as somebody:
                (left,) = somebody.execute("SELECT count(*) FROM engine.executions").fetchone() or (None,)
        except psycopg.OperationalError:
            return None
        return left

    async def kill_inside(self, victim: str) -> None:
        """As that of the other place."""
        holding = self._server.connect(self._database)
        watching = self._server.connect()
        holding.execute("BEGIN")
        due = "SELECT FROM engine.executions WHERE closed_at IS NOT NULL ORDER BY run_id LIMIT 1 FOR KEY SHARE"
        assert holding.execute(due).fetchone() is not None
        async with life(self._folder, BRIEFLY + self.store) as program:
            backend = 0

            def inside() -> bool:
                nonlocal backend
                found = watching.execute(_WAITING, (self._database,)).fetchone()
                if found is None:
                    return False
                backend = found[0]
                os.kill(backend, signal.SIGSTOP)
                # Were it stopped in a moment in which the server's others wait for it, so would we.
                goes_on = threading.Timer(GOES_ON_SECONDS, os.kill, (backend, signal.SIGCONT))
                begun = time.monotonic()
                goes_on.start()
                still = watching.execute(_WAITING, (self._database,)).fetchone() == found
                goes_on.cancel()
                goes_on.join()
                if still and time.monotonic() - begun < GOES_ON_SECONDS:
                    return True
                os.kill(backend, signal.SIGCONT)
                return False

            await until(inside)
            if victim == "daemon":
                processes = [program.process.pid, *children(program.process.pid)]
                for pid in processes:
                    os.kill(pid, signal.SIGKILL)
                # It has been sent the COMMIT, too, and does not get there while it waits: what it did is undone.
                os.kill(backend, signal.SIGCONT)
                await until(lambda: not self._server_has(backend))
            elif victim == "backend":
                os.kill(backend, signal.SIGKILL)
                await until(lambda: not Path(f"/proc/{backend}").exists())
            else:
                await trio.to_thread.run_sync(self._server.kill)
                await trio.to_thread.run_sync(self._server.up)
            for connection in (holding, watching):
                connection.close()
            if victim == "daemon":
                assert self.check() == DUE + KEPT
            else:
                # The daemon lives through it, and begins anew as soon as it can.
                await until(lambda: self.left() == KEPT)
                await program.stop()

    def _server_has(self, backend: int) -> bool:
        with self._server.connect() as somebody:
            return somebody.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (backend,)).fetchone() is not None


# --- rounds -----------------------------------------------------------------------------------------------------------


async def rounds(folder: Path, place: SqlitePlace | PostgresPlace, victims: list[str]) -> None:
    """Each victim in a copy of the same store."""
    async with life(folder, FOR_EVER + place.store) as program, client_of(program, folder) as client:
        await run_some(client, range(KEPT), OPEN)
        await run_some(client, range(KEPT, KEPT + DUE), DUE_SOON)
        await program.stop()
    assert place.check() == DUE + KEPT
    for victim in victims:
        its_folder = folder / victim
        its_folder.mkdir()
        await kill(place.copy(its_folder), its_folder, victim)


async def kill(place: SqlitePlace | PostgresPlace, folder: Path, victim: str) -> None:
    await place.kill_inside(victim)
    if victim != "daemon":
        assert place.check() == KEPT
        return
    async with life(folder, BRIEFLY + place.store) as program, client_of(program, folder) as client:
        await until(lambda: place.left() == KEPT)
        for number in range(KEPT):
            described = await client.call(calls.DescribeWorkflow(workflow_id=f"order-{number}"))
            assert described.status.value == "RUNNING"
        await run_some(client, [KEPT], OPEN)
        await program.stop()
    assert place.check() == KEPT + 1


async def test_a_daemon_and_its_store_are_killed_inside_a_purge(tmp_path):
    await rounds(tmp_path, SqlitePlace(tmp_path), ["daemon", "store"])


async def test_a_daemon_and_its_server_are_killed_inside_a_purge(tmp_path):
    server = PostgresServer(durable=False)
    try:
        server.start()
        await rounds(tmp_path, PostgresPlace(tmp_path, server), ["daemon", "backend", "server"])
    finally:
        server.stop()
