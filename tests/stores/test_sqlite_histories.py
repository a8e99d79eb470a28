"""How events and ids stand in the SQLite store's file: smaller, the same when they are read, and readable by people."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_builders import NOW, append, batch, closed, new, numbered, ref, start

from benchmarks.timers import TENANT, UNTIL, runs
from daemon.stores.faults import BatchRefused, StoreUnusable
from daemon.stores.rows import RunWrite
from daemon.stores.sqlite import histories
from daemon.stores.sqlite.database import SqliteDriver, open_driver, open_reader
from daemon.stores.sqlite.histories import MARK, PLAIN, SEPARATOR, HistoryReader, HistoryWriter, prepare
from daemon.stores.sqlite.keys import NUMBERS, packed, unpacked
from daemon.stores.sqlite.vocabulary import EVENTS, VOCABULARY
from enginekit.messages.events import AnyEvent, decode_event
from enginekit.messages.json import encode
from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus

UUID = "01a21ef3-0dbe-7000-a46d-d6122265b1f5"
LATER = "01a21ef3-0dbf-7000-806d-d6122265b1f5"
NAMES = (UUID, "order-4711", "a" * 64, "4518c385992641659fc1983887f475da", LATER)
OWN = RunRef("acme", UUID, UUID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
def driver(path: Path) -> Iterator[SqliteDriver]:
    opened = open_driver(path, 4, 1.0)
    opened.writer.take_shards()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def prepared() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE dictionaries (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
    prepare(connection)
    yield connection
    connection.close()


# --- rows of events --------------------------------------------------------------------------------------------------

PIECES = st.sampled_from([*(name.encode() for name in NAMES), SEPARATOR, MARK, MARK + b"r", b'"node":"', b"\x00", b""])
BYTES = st.lists(PIECES | st.binary(max_size=40), max_size=8).map(b"".join)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(BYTES, min_size=1, max_size=5), named=st.booleans())
def test_events_are_read_as_they_were_written(prepared: sqlite3.Connection, events: list[bytes], named: bool) -> None:
    dictionary, data = HistoryWriter(prepared).row(events, NAMES if named else ())
    assert HistoryReader(prepared).events(dictionary, data, lambda: NAMES) == events


@given(name=st.text(min_size=1, max_size=20), text=BYTES)
def test_a_name_may_be_anything(prepared: sqlite3.Connection, name: str, text: bytes) -> None:
    names = (name, name + "x", f"{name}{MARK.decode()}r", None, UUID)
    events = [b" ".join([(each or "").encode(errors="replace") for each in names]) + text] * 3
    dictionary, data = HistoryWriter(prepared).row(events, names)
    assert HistoryReader(prepared).events(dictionary, data, lambda: names) == events


def test_what_does_not_get_smaller_is_plain(prepared: sqlite3.Connection) -> None:
    writer = HistoryWriter(prepared)
    noise = random.Random(1).randbytes(1000).replace(MARK, b"-").replace(SEPARATOR, b"-")
    assert writer.row([noise], ())[0] == PLAIN
    assert writer.row([b"{}"], ())[0] == PLAIN
    assert writer.row([b'{"input":"' + b"x" * 1000 + b'"}'], ())[0] == VOCABULARY


def test_every_event_stands_in_the_vocabulary(prepared: sqlite3.Connection) -> None:
    known = {type(decode_event(event.replace("\x1f", "").encode())) for event in EVENTS}
    assert known == set(get_args(AnyEvent))


def waiting(count: int) -> list[RunWrite]:
    """Executions that wait for a time, as the core starts them."""
    first = datetime(2027, 1, 15, tzinfo=UTC)
    return list(runs(count, first, "ab" * 32, bytes(encode(UNTIL)).decode(), {0: 1, 1: 1, 2: 1, 3: 1}))


def test_an_execution_that_waits_takes_less_than_400_bytes(driver: SqliteDriver) -> None:
    def pages() -> int:
        return int(driver.writer._connection.execute("PRAGMA page_count").fetchone()[0])

    everything = waiting(3000)
    driver.writer.commit(batch(*everything[:1000]))
    before = pages()
    driver.writer.commit(batch(*everything[1000:]))
    assert (pages() - before) * 4096 / 2000 < 400
    for write in everything[::500]:
        assert driver.reader.events(TENANT, write.run.run_id, 0, 10, 10_000) == write.events


# --- dictionaries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["UPDATE dictionaries SET data = x'00'", "DELETE FROM dictionaries"])
def test_nobody_changes_a_dictionary(driver: SqliteDriver, path: Path, statement: str) -> None:
    somebody = sqlite3.connect(path)
    try:
        with pytest.raises(sqlite3.IntegrityError, match="events are read by it"):
            somebody.execute(statement)
    finally:
        somebody.close()


def test_a_newer_vocabulary_is_put_beside_the_older_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = waiting(2)
    first = open_driver(path, 4, 1.0)
    first.writer.take_shards()
    first.writer.commit(batch(one))
    first.close()
    monkeypatch.setattr(histories, "VOCABULARY", VOCABULARY + 1)
    monkeypatch.setattr(histories, "EVENTS", EVENTS[::-1])
    second = open_driver(path, 4, 1.0)
    try:
        epochs = second.writer.take_shards().epochs
        second.writer.commit(batch(msgspec.structs.replace(two, epoch=epochs[two.shard])))
        for write in (one, two):
            assert second.reader.events(TENANT, write.run.run_id, 0, 10, 10_000) == write.events
        rows = second.reader._connection.execute("SELECT dictionary FROM events ORDER BY position").fetchall()
        assert rows == [(VOCABULARY,), (VOCABULARY + 1,)]
    finally:
        second.close()


def broken(path: Path, *statements: str) -> None:
    somebody = sqlite3.connect(path)
    for statement in statements:
        somebody.execute(statement)
    somebody.commit()
    somebody.close()


def test_a_dictionary_that_is_not_there_is_damage(path: Path, driver: SqliteDriver) -> None:
    (write,) = waiting(1)
    driver.writer.commit(batch(write))
    broken(path, "DROP TRIGGER events_are_never_changed", "UPDATE events SET dictionary = 77")
    with pytest.raises(StoreUnusable, match=r"damaged .*dictionary 77, which is not in the table"):
        driver.reader.events(TENANT, write.run.run_id, 0, 10, 10_000)


@pytest.mark.parametrize("data", ["x''", "x'28b52ffd00'", "substr(data, 1, length(data) - 5)"])
def test_a_row_that_cannot_be_decompressed_is_damage(path: Path, driver: SqliteDriver, data: str) -> None:
    (write,) = waiting(1)
    driver.writer.commit(batch(write))
    broken(path, "DROP TRIGGER events_are_never_changed", f"UPDATE events SET data = {data}")
    with pytest.raises(StoreUnusable, match="damaged"):
        driver.reader.events(TENANT, write.run.run_id, 0, 10, 10_000)


@pytest.mark.parametrize("data", ["x'00'", "x'37a430ec' || zeroblob(100)", "zeroblob(6)"])
def test_a_dictionary_that_is_none_is_damage(path: Path, data: str) -> None:
    open_driver(path, 4, 1.0).close()
    broken(path, "DROP TRIGGER dictionaries_are_never_changed", f"UPDATE dictionaries SET data = CAST({data} AS BLOB)")
    with pytest.raises(StoreUnusable, match="damaged"):
        open_driver(path, 4, 1.0)


# --- ids -------------------------------------------------------------------------------------------------------------


@given(one=st.uuids(), two=st.uuids())
def test_uuids_are_packed_in_their_order(one: object, two: object) -> None:
    first, second = packed(str(one)), packed(str(two))
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert (first < second) == (str(one) < str(two))
    assert (unpacked(first), unpacked(second)) == (str(one), str(two))


@given(name=st.text(max_size=40) | st.from_regex(r"[0-9a-fA-F -]{36}", fullmatch=True))
def test_any_id_comes_back(name: str) -> None:
    assert unpacked(packed(name)) == name


@pytest.mark.parametrize(
    "name", [UUID.upper(), UUID.replace("-", ""), UUID[:-1] + "g", "0 " * 4 + UUID[8:], f"{{{UUID[1:-1]}}}", ""]
)
def test_what_only_resembles_a_uuid_is_text(name: str) -> None:
    assert packed(name) == name


def test_every_status_has_a_number_of_its_own() -> None:
    assert set(NUMBERS) == set(ExecutionStatus)
    assert len(set(NUMBERS.values())) == len(NUMBERS)
    assert NUMBERS[ExecutionStatus.RUNNING] == 0


def test_a_refused_batch_gives_out_no_numbers(driver: SqliteDriver) -> None:
    """Those it gave out are another name's afterwards."""
    driver.writer.commit(batch(start(ref(1))))
    with pytest.raises(BatchRefused):
        driver.writer.commit(batch(start(ref(2, tenant="refused"), created=new(workflow="gone")), append(ref(9), 2)))
    driver.writer.commit(batch(start(ref(3, tenant="other"), created=new(workflow="refund"))))
    driver.writer.commit(batch(start(ref(4, tenant="refused"), created=new(workflow="gone"))))
    for tenant, number, workflow in (("acme", 1, "order"), ("other", 3, "refund"), ("refused", 4, "gone")):
        found = driver.reader.execution(tenant, ref(number).run_id)
        assert found is not None
        assert (found.run.tenant, found.workflow) == (tenant, workflow)


# --- for people ------------------------------------------------------------------------------------------------------


def test_executions_are_readable_in_a_shell(driver: SqliteDriver, path: Path) -> None:
    child = RunRef("acme", "~0.child", LATER)
    created = msgspec.structs.replace(new(labels={"a": "b"}, request_id="r"), parent=UUID)
    driver.writer.commit(batch(start(OWN, wake_at=NOW + 5), start(child, created=created, closing=closed())))
    shell = sqlite3.connect(path)
    shell.row_factory = sqlite3.Row
    own, other = map(dict, shell.execute("SELECT * FROM readable_executions ORDER BY run_id"))
    shell.close()
    assert own == {
        "tenant": "acme",
        "workflow_id": UUID,
        "run_id": UUID,
        "status": "RUNNING",
        "error": None,
        "started_at": "2027-01-15T08:00:00.000Z",
        "closed_at": None,
        "wake_at": "2027-01-15T08:00:00.005Z",
        "last_event_id": 1,
        "workflow": "order",
        "version": 1,
        "definition_hash": "a" * 64,
        "request_id": None,
        "labels": None,
        "parent": None,
    }
    assert (other["workflow_id"], other["run_id"], other["parent"]) == ("~0.child", LATER, UUID)
    assert (other["status"], other["closed_at"]) == ("SUCCEEDED", "2027-01-15T08:00:01.000Z")
    assert (other["labels"], other["request_id"]) == ('{"a":"b"}', "r")


def test_a_history_is_read_beside_a_daemon_and_without_one(path: Path) -> None:
    def looked_at() -> list[bytes]:
        reader = open_reader(path)
        try:
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader._connection.execute("DELETE FROM tasks")
            return reader.events("acme", UUID, 0, 10, 10_000)
        finally:
            reader.close()

    driver = open_driver(path, 4, 1.0)
    driver.writer.take_shards()
    driver.writer.commit(batch(start(OWN, events=3)))
    assert looked_at() == numbered(OWN, 1, 3)
    driver.writer.commit(batch(append(OWN, 4)))
    driver.close()
    assert looked_at() == numbered(OWN, 1, 4)
    assert not path.with_name("engine.db-wal").exists()


def test_only_a_store_of_this_version_is_looked_at(path: Path) -> None:
    with pytest.raises(StoreUnusable, match="unable to open"):
        open_reader(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreUnusable, match="is empty"):
        open_reader(path)
    path.write_bytes(b"no store" * 1000)
    with pytest.raises(StoreUnusable):
        open_reader(path)
