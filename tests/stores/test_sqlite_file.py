"""The SQLite store's file: whose it is, what it refuses, and what it says about one that it cannot use."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from store_builders import append, batch, closed, new, numbered, queued, ref, start

from daemon.stores.faults import BatchRefused, Fenced, StoreUnavailable, StoreUnusable
from daemon.stores.rows import ExecutionFilter
from daemon.stores.sqlite import database
from daemon.stores.sqlite.database import SqliteDriver, open_driver
from daemon.stores.sqlite.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, migrate
from enginekit.messages.status import ExecutionStatus

RUN = ref(1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
def driver(path: Path) -> Iterator[SqliteDriver]:
    opened = open_driver(path, 4, 1.0)
    opened.writer.take_shards()
    yield opened
    opened.close()


def noise(size: int) -> bytes:
    """An event that nothing compresses."""
    return random.Random(size).randbytes(size)


def fill(path: Path, runs: int = 40) -> None:
    """A store of some hundred pages, closed, with nothing left in its log."""
    driver = open_driver(path, 4, 1.0)
    driver.writer.take_shards()
    for number in range(runs):
        write = start(ref(number), events=5)
        events = [noise(3000) for _ in range(5)]
        driver.writer.commit(batch(msgspec.structs.replace(write, events=events)))
    driver.close()
    assert not path.with_name("engine.db-wal").exists()


# --- what the database itself refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE events SET data = x'00'", "never changed"),
        ("UPDATE events SET first_id = first_id + 1", "never changed"),
        ("DELETE FROM events", "marked for purging"),
        ("DELETE FROM events WHERE first_id = 1", "marked for purging"),
    ],
)
def test_nobody_changes_an_event(driver: SqliteDriver, path: Path, statement: str, message: str) -> None:
    driver.writer.commit(batch(start(RUN, events=2)))
    somebody = sqlite3.connect(path)
    try:
        with pytest.raises(sqlite3.IntegrityError, match=message):
            somebody.execute(statement)
    finally:
        somebody.close()
    assert driver.reader.events("acme", RUN.run_id, 0, 10, 1000) == numbered(RUN, 1, 2)


def test_events_go_with_a_run_that_is_marked_for_purging(driver: SqliteDriver, path: Path) -> None:
    driver.writer.commit(batch(start(RUN, closing=closed()), start(ref(2))))
    somebody = sqlite3.connect(path)
    try:
        somebody.execute("UPDATE executions SET purging = 1 WHERE run_id = ?", (RUN.run_id,))
        somebody.execute("DELETE FROM events WHERE run_id = ?", (RUN.run_id,))
        with pytest.raises(sqlite3.IntegrityError, match="marked for purging"):
            somebody.execute("DELETE FROM events")
    finally:
        somebody.close()


def test_every_commit_is_synced(driver: SqliteDriver, path: Path) -> None:
    connection = driver.writer._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_read_lane_cannot_write(driver: SqliteDriver) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        driver.reader._connection.execute("DELETE FROM tasks")


def test_the_file_is_its_owners_alone(driver: SqliteDriver, path: Path) -> None:
    for name in ("engine.db", "engine.db-wal", "engine.db-shm", "engine.db.lock"):
        assert stat.S_IMODE(path.with_name(name).stat().st_mode) == 0o600


# --- opening again ---------------------------------------------------------------------------------------------------


def test_a_store_is_found_as_it_was_left(path: Path) -> None:
    first = open_driver(path, 4, 1.0)
    taken = first.writer.take_shards()
    first.writer.commit(batch(start(RUN, events=3, created=new(labels={"a": "b"}), tasks=[queued(RUN, 3)])))
    before = first.reader.load_runs([RUN], "f", 1000)
    first.close()
    second = open_driver(path, 4, 1.0)
    try:
        assert second.reader.load_runs([RUN], "f", 1000) == before
        again = second.writer.take_shards()
        assert again.epochs == {0: 2, 1: 2, 2: 2, 3: 2}
        assert again.token_key == taken.token_key
        with pytest.raises(Fenced):
            second.writer.commit(batch(append(RUN, 4, epoch=1)))
    finally:
        second.close()


def test_two_stores_have_two_keys(tmp_path: Path) -> None:
    keys = []
    for name in ("one.db", "two.db"):
        driver = open_driver(tmp_path / name, 4, 1.0)
        keys.append(driver.writer.take_shards().token_key)
        driver.close()
    assert keys[0] != keys[1]


def test_another_number_of_shards_is_refused_naming_both(path: Path) -> None:
    fill(path, runs=1)
    with pytest.raises(StoreUnusable, match=r"has 4 shards, the settings say 8.*shards = 4"):
        open_driver(path, 8, 1.0)
    open_driver(path, 4, 1.0).close()


# --- schema versions -------------------------------------------------------------------------------------------------


def test_a_newer_schema_is_refused(path: Path) -> None:
    fill(path, runs=1)
    somebody = sqlite3.connect(path)
    somebody.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    somebody.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=rf"schema version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}.*newer"):
        open_driver(path, 4, 1.0)
    assert path.read_bytes() == before


def test_a_migration_brings_an_older_file_up(path: Path) -> None:
    fill(path, runs=1)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        migrate(connection, SCHEMA_VERSION, [*MIGRATIONS, "ALTER TABLE executions ADD COLUMN pinned INTEGER;"])
        assert connection.execute("SELECT pinned FROM executions").fetchall() == [(None,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    finally:
        connection.close()


def test_a_migration_that_fails_leaves_the_version_before_it(path: Path) -> None:
    fill(path, runs=1)
    connection = sqlite3.connect(path, isolation_level=None)
    good, bad = "CREATE TABLE good (a);", "CREATE TABLE bad (a); CREATE TABLE bad (a);"
    try:
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            migrate(connection, SCHEMA_VERSION, [*MIGRATIONS, good, bad])
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "good" in tables
        assert "bad" not in tables
    finally:
        connection.close()


def test_a_creation_that_was_cut_short_is_begun_again(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert path.stat().st_size > 0
    open_driver(path, 4, 1.0).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


# --- files that are not ours, or not whole ---------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"x", b"hello, this is a text file and no database\n" * 100, b"\x00" * 8192])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"engine\.db is not a store of this engine .*not a SQLite file"):
        open_driver(path, 4, 1.0)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(path: Path) -> None:
    somebody = sqlite3.connect(path)
    somebody.execute("CREATE TABLE recipes (name)")
    somebody.commit()
    somebody.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="another program's"):
        open_driver(path, 4, 1.0)
    assert path.read_bytes() == before


def test_a_file_that_lost_its_end_is_damaged(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    with pytest.raises(StoreUnusable, match=r"damaged.*backup"):
        open_driver(path, 4, 1.0)


def test_overwritten_pages_are_found_when_the_file_is_opened(path: Path) -> None:
    fill(path)
    overwrite_middle(path)
    with pytest.raises(StoreUnusable, match="damaged"):
        open_driver(path, 4, 1.0)


def test_damage_in_a_large_file_is_found_when_it_is_met(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path)
    overwrite_middle(path)
    monkeypatch.setattr(database, "_CHECKED_BYTES", 0)
    driver = open_driver(path, 4, 1.0)
    try:
        with pytest.raises(StoreUnusable, match="damaged"):
            read_everything(driver, 40)
    finally:
        driver.close()


def read_everything(driver: SqliteDriver, runs: int) -> None:
    for number in range(runs):
        driver.reader.events("acme", ref(number).run_id, 0, 100, 1_000_000)


def overwrite_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4 // 4096 * 4096)
        file.write(b"\xa5" * (size // 2))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"nowhere/engine\.db cannot be opened: No such file"):
        open_driver(tmp_path / "nowhere" / "engine.db", 4, 1.0)


# --- others at the same file -----------------------------------------------------------------------------------------


def test_a_store_in_use_names_who_has_it(driver: SqliteDriver, path: Path) -> None:
    with pytest.raises(StoreUnusable, match=rf"in use by process {os.getpid()} .*stop the other one"):
        open_driver(path, 4, 0.01)
    driver.writer.commit(batch(start(RUN)))


def test_nobody_waits_for_a_lock_on_behalf_of_nobody(driver: SqliteDriver, path: Path) -> None:
    with pytest.raises(StoreUnusable, match="nobody waits"):
        open_driver(path, 4, 3600.0, still_wanted=lambda: False)


def test_a_shell_that_holds_a_transaction_delays_but_does_not_break(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    driver = open_driver(path, 4, 1.0)
    try:
        driver.writer.take_shards()
        shell = sqlite3.connect(path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            driver.writer.commit(batch(start(RUN)))
        shell.execute("ROLLBACK")
        shell.close()
        driver.writer.commit(batch(start(RUN)))
    finally:
        driver.close()


def test_a_full_disk_writes_nothing_and_passes(driver: SqliteDriver) -> None:
    driver.writer.commit(batch(start(RUN)))
    connection = driver.writer._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = msgspec.structs.replace(start(ref(2)), events=[noise(500_000)])
    with pytest.raises(StoreUnavailable, match="full"):
        driver.writer.commit(batch(append(RUN, 2), large))
    assert driver.reader.execution("acme", ref(2).run_id) is None
    connection.execute("PRAGMA max_page_count = 1000000")
    driver.writer.commit(batch(append(RUN, 2), large))


# --- queries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"status": ExecutionStatus.RUNNING},
        {"workflow": "order"},
        {"label": ("region", "eu")},
        {"status": ExecutionStatus.FAILED, "workflow": "order", "label": ("region", "eu")},
    ],
)
def test_no_page_of_executions_sorts_or_reads_all_of_them(driver: SqliteDriver, wanted: dict[str, object]) -> None:
    plan = plan_of(driver, lambda: driver.reader.list_executions(ExecutionFilter(tenant="acme", limit=10, **wanted)))
    assert plan
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")], plan


def test_no_other_page_sorts_or_reads_all_rows(driver: SqliteDriver) -> None:
    reader = driver.reader
    for read in (
        lambda: reader.due_runs(0, 10, None),
        lambda: reader.effects(10, None, None),
        lambda: reader.waiting_tasks(queued(RUN, 1).queue, 10, None, []),
        lambda: reader.events("acme", RUN.run_id, 0, 10, 10),
        lambda: reader.latest_run("acme", "order"),
        lambda: reader.start_check("acme", "order", "request"),
        lambda: reader.list_definitions("acme", 10, None),
    ):
        plan = plan_of(driver, read)
        assert plan
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")], plan


def plan_of(driver: SqliteDriver, read: Callable[[], object]) -> list[str]:
    """How SQLite executes the statements of one read."""
    connection = driver.reader._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    read()
    connection.set_trace_callback(None)
    return [
        row[3]
        for statement in statements
        if statement.lstrip().startswith("SELECT")
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


def test_a_refused_batch_says_what_was_taken(driver: SqliteDriver) -> None:
    driver.writer.commit(batch(start(RUN)))
    with pytest.raises(BatchRefused, match="exists already"):
        driver.writer.commit(batch(start(ref(1, workflow_id="another"))))
