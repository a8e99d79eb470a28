"""The PostgreSQL store's database: what it refuses by itself, and its partitions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest
from lying_pooler import Pooler
from store_builders import NOW, append, batch, closed, event, new, numbered, queued, ref, schedule, start

from daemon.journal.identity import uuid_of
from daemon.stores.faults import BatchRefused, Fenced, StoreUnavailable
from daemon.stores.postgres.database import PostgresDriver, open_driver
from daemon.stores.rows import Batch, ExecutionFilter, LetterFilter, LetterRow, Purge
from enginekit.messages.links import RunRef
from tests.servers.postgres import PostgresServer

RUN = ref(1)
SHARDS = 4
DAY = 24 * 3600 * 1000
PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'engine.events'::regclass ORDER BY c.relname
"""


@pytest.fixture
def driver(empty_driver: PostgresDriver) -> PostgresDriver:
    empty_driver.writer.take_shards()
    return empty_driver


@pytest.fixture
def somebody(postgres: PostgresServer, postgres_driver: PostgresDriver) -> Iterator[psycopg.Connection]:
    """A session beside the engine's, in its database."""
    with postgres.connect(postgres_driver.writer._connection.info.dbname) as connection:
        yield connection


def opened(url: str, shards: int = SHARDS, wait_seconds: float = 10.0) -> PostgresDriver:
    return open_driver(url, shards, wait_seconds, 30.0)


def at(moment: int, workflow_id: str = "order") -> RunRef:
    """A run of that time."""
    return RunRef("acme", f"{workflow_id}-{moment}", str(uuid_of(moment, 0, 0)))


# --- what the database itself refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE engine.events SET data = ''", "never changed"),
        ("UPDATE engine.events_2027_01 SET first_id = first_id + 1", "never changed"),
        ("DELETE FROM engine.events", "marked for purging"),
        ("DELETE FROM engine.events_2027_01 WHERE first_id = 1", "marked for purging"),
        ("TRUNCATE engine.events", "never truncated"),
        ("TRUNCATE engine.events_2027_01", "never truncated"),
        ("TRUNCATE engine.events_2027_02", "never truncated"),
    ],
)
def test_nobody_changes_an_event(
    driver: PostgresDriver, somebody: psycopg.Connection, statement: str, message: str
) -> None:
    driver.writer.commit(batch(start(RUN, events=2)))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match=message):
        somebody.execute(statement)
    assert driver.reader.events("acme", RUN.run_id, 0, 10, 1000) == numbered(RUN, 1, 2)


def test_events_go_with_a_run_that_is_marked_for_purging(driver: PostgresDriver, somebody: psycopg.Connection) -> None:
    driver.writer.commit(batch(start(RUN, closing=closed()), start(ref(2))))
    somebody.execute("UPDATE engine.executions SET purging = true WHERE run_id = %s", (RUN.run_id,))
    somebody.execute("DELETE FROM engine.events WHERE run_id = %s", (RUN.run_id,))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="marked for purging"):
        somebody.execute("DELETE FROM engine.events")


@pytest.mark.parametrize(
    ("default", "kept"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
@pytest.mark.parametrize("pooled", [False, True])
def test_a_commit_waits_for_the_disk_whatever_the_server_does_by_default(
    postgres_url: str, postgres: PostgresServer, default: str, kept: str, pooled: bool
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        somebody.execute(f"ALTER DATABASE {somebody.info.dbname} SET synchronous_commit = {default}")
    with Pooler(postgres.port) as pooler:
        driver = opened(postgres_url.replace(str(postgres.port), str(pooler.port)) if pooled else postgres_url)
        with driver.writer._limits.transaction():
            assert driver.writer._connection.execute("SHOW synchronous_commit").fetchone() == (kept,)
        driver.close()


def test_a_commit_sees_what_others_have_committed_whatever_the_server_does_by_default(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        somebody.execute(f"ALTER DATABASE {somebody.info.dbname} SET default_transaction_isolation = 'serializable'")
    driver = opened(postgres_url)
    with driver.writer._limits.transaction():
        assert driver.writer._connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    driver.close()


def test_a_commit_that_its_standby_may_not_have_is_none_to_rely_on(
    driver: PostgresDriver, somebody: psycopg.Connection
) -> None:
    # What a server says that gave up waiting for its synchronous standby.
    somebody.execute(
        "CREATE FUNCTION engine.warn() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; RETURN NULL; END $$"
    )
    somebody.execute(
        "CREATE TRIGGER warn AFTER INSERT ON engine.executions FOR EACH STATEMENT EXECUTE FUNCTION engine.warn()"
    )
    try:
        with pytest.raises(StoreUnavailable, match="synchronous replication"):
            driver.writer.commit(batch(start(RUN)))
    finally:
        somebody.execute("DROP FUNCTION engine.warn CASCADE")
    driver.writer.commit(batch(append(RUN, 2)))


def test_every_transaction_of_a_lease_is_bounded_below_it(driver: PostgresDriver) -> None:
    assert _bounds(driver) == ({"30s"}, "1s")
    driver.writer.attend("a", 4.0)
    assert _bounds(driver) == ({"2s"}, "500ms")
    driver.writer.leave("a")


def test_the_shortest_lease_of_a_process_bounds_its_transactions(driver: PostgresDriver) -> None:
    """Another service of the process may attend, too, and leave earlier."""
    driver.writer.attend("history/a", 4.0)
    driver.writer.attend("matching/a", 30.0)
    assert _bounds(driver) == ({"2s"}, "500ms")
    driver.writer.leave("matching/a")
    assert _bounds(driver) == ({"2s"}, "500ms")
    driver.writer.leave("history/a")
    assert _bounds(driver) == ({"30s"}, "1s")


def _bounds(driver: PostgresDriver) -> tuple[set[str], str]:
    """Of a transaction as a whole, and of its waits for locks."""
    connection = driver.writer._connection
    names = ["statement_timeout", "idle_in_transaction_session_timeout"]
    if connection.info.server_version >= 170000:
        names.append("transaction_timeout")
    with driver.writer._limits.transaction():
        found = {name: connection.execute(f"SHOW {name}").fetchone() for name in (*names, "lock_timeout")}
    shown = {name: row[0] for name, row in found.items() if row is not None}
    return {shown[name] for name in names}, shown["lock_timeout"]


def test_a_read_ends_when_nobody_waits_for_it_any_more(driver: PostgresDriver) -> None:
    assert driver.reader._connection.execute("SHOW statement_timeout").fetchone() == ("30s",)


# --- what it is asked by ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id", ["run-1", "", "01900000-0000-4000-8000-000000000001", str(uuid_of(0xABC, 0, 0)).upper()]
)
def test_a_run_id_is_a_uuid_of_version_7(driver: PostgresDriver, run_id: str) -> None:
    with pytest.raises(BatchRefused, match=f"run {run_id}: a run_id is"):
        driver.writer.commit(batch(start(RunRef("acme", "order", run_id))))
    reader = driver.reader
    assert reader.execution("acme", run_id) is None
    assert reader.load_runs([RunRef("acme", "order", run_id)], "f", 1000) == [None]
    assert reader.events("acme", run_id, 0, 10, 1000) == []
    assert reader.map_results("acme", run_id, 1, "SUCCEEDED", 0, 1000) == []
    assert reader.dead_letter("acme", run_id, 1) is None
    everything = ExecutionFilter(tenant="acme", limit=10)
    assert reader.list_executions(msgspec.structs.replace(everything, before_run_id=run_id)) == []
    assert reader.list_executions(msgspec.structs.replace(everything, parent=run_id)) == []


def test_text_with_a_null_is_kept_legibly_and_found(driver: PostgresDriver) -> None:
    labels = {"na\0me": "va\0lue"}
    failed = msgspec.structs.replace(closed(), error="Bo\0om")
    letter = LetterRow(event_id=1, workflow="order", node="Sh\0ip", error="Bo\0om", at=NOW, data=b"\0")
    write = msgspec.structs.replace(start(RUN, created=new(labels=labels), closing=failed), letters_added=[letter])
    driver.writer.commit(batch(write))
    found = driver.reader.list_executions(ExecutionFilter(tenant="acme", limit=10, label=("na\0me", "va\0lue")))
    assert [(each.run, each.labels, each.error) for each in found] == [(RUN, labels, "Bo␀om")]
    (kept,) = driver.reader.dead_letters(LetterFilter(tenant="acme", limit=10, node="Sh\0ip"))
    assert (kept.letter.node, kept.letter.error, kept.letter.data) == ("Sh␀ip", "Bo␀om", b"\0")


def test_a_number_that_is_too_large_is_refused(driver: PostgresDriver) -> None:
    driver.writer.commit(batch(start(RUN)))
    with pytest.raises(BatchRefused, match="value of this batch"):
        driver.writer.commit(batch(append(RUN, 2, wake_at=2**63)))
    driver.writer.commit(batch(append(RUN, 2, wake_at=2**63 - 1)))


def test_a_batch_of_many_runs_is_one_transaction(driver: PostgresDriver) -> None:
    runs = [ref(number) for number in range(1, 501)]
    driver.writer.commit(batch(*(start(run, tasks=[queued(run, 1)], wake_at=NOW) for run in runs)))
    wrong = [append(run, 2 if run is not runs[321] else 3) for run in runs]
    with pytest.raises(BatchRefused, match=f"run {runs[321].run_id}: its events do not follow"):
        driver.writer.commit(batch(*wrong))
    assert driver.reader.events("acme", runs[0].run_id, 0, 10, 1000) == [event(runs[0], 1)]
    driver.writer.commit(batch(*(append(run, 2, closing=closed()) for run in runs)))
    assert driver.reader.due_runs(NOW + 1, 10, None) == []


# --- the fence --------------------------------------------------------------------------------------------------------


def test_a_fenced_commit_writes_nothing_while_the_others_go_on(driver: PostgresDriver) -> None:
    name = driver.writer._connection.info.dbname
    other = opened(_url(driver, name))
    try:
        for owner, writer in (("a", driver.writer), ("b", other.writer)):
            writer.attend(owner, 60.0)
        mine = driver.writer.claim_shards("a", [0]).epochs
        theirs = other.writer.claim_shards("b", [1]).epochs
        driver.writer.commit(batch(start(RUN, epoch=mine[0]), start(ref(2), shard=0, epoch=mine[0])))
        with pytest.raises(Fenced) as fenced:
            driver.writer.commit(
                Batch(
                    runs=[start(ref(3), epoch=mine[0]), start(ref(4), shard=1, epoch=theirs[1] - 1)],
                    schedules=[schedule("a", epoch=mine[0])],
                )
            )
        assert fenced.value.shards == [1]
        assert driver.reader.execution("acme", ref(3).run_id) is None
        assert driver.reader.schedule("acme", "a") is None
        other.writer.commit(batch(start(ref(4), shard=1, epoch=theirs[1])))
        driver.writer.commit(batch(append(RUN, 2, epoch=mine[0])))
    finally:
        for owner in ("a", "b"):
            other.writer.leave(owner)
        other.close()


def _url(driver: PostgresDriver, database: str) -> str:
    info = driver.writer._connection.info
    return f"postgresql://{info.user}@{info.host}:{info.port}/{database}"


def test_renewals_do_not_wait_for_commits(driver: PostgresDriver, somebody: psycopg.Connection) -> None:
    driver.writer.attend("a", 60.0)
    epochs = driver.writer.claim_shards("a", list(range(SHARDS))).epochs
    somebody.execute("BEGIN")
    somebody.execute("SELECT engine.check_epochs(%s, %s)", (list(epochs), list(epochs.values())))
    # The statement would wait for the row of a shard, and give up.
    assert driver.writer.attend("a", 60.0).members == ["a"]
    somebody.execute("ROLLBACK")
    driver.writer.leave("a")


# --- partitions -------------------------------------------------------------------------------------------------------


def partitions(connection: psycopg.Connection) -> list[str]:
    return [name for (name,) in connection.execute(PARTITIONS)]


def test_months_are_made_before_they_are_needed(driver: PostgresDriver, somebody: psycopg.Connection) -> None:
    december = 1_924_000_000_000  # 2030-12-20
    driver.writer.commit(batch(start(at(december))))
    assert {"events_2030_12", "events_2031_01"} <= set(partitions(somebody))
    assert somebody.execute("SELECT count(*) FROM engine.events_2030_12").fetchone() == (1,)
    # The last millisecond of a month, the first of the next, and what is there by then.
    new_year = 1_924_992_000_000
    driver.writer.commit(batch(start(at(new_year - 1)), start(at(new_year))))
    assert somebody.execute("SELECT count(*) FROM engine.events_2030_12").fetchone() == (2,)
    assert somebody.execute("SELECT count(*) FROM engine.events_2031_01").fetchone() == (1,)
    assert "events_2031_02" in partitions(somebody)
    with pytest.raises(BatchRefused, match="no calendar"):
        driver.writer.commit(batch(start(at(2**48 - 1))))


def test_two_daemons_may_make_a_month_at_once(postgres_url: str) -> None:
    drivers = [opened(postgres_url) for _ in range(3)]
    epochs = [driver.writer.take_shards().epochs for driver in drivers][-1]
    ready = threading.Barrier(len(drivers))

    def commit(number: int) -> None:
        ready.wait()
        for month in range(6):
            run = at(NOW + month * 31 * DAY + number, f"order-{number}")
            drivers[number].writer.commit(batch(start(run, epoch=epochs[0])))

    with ThreadPoolExecutor(len(drivers)) as pool:
        list(pool.map(commit, range(len(drivers))))
    assert len(drivers[0].reader.list_executions(ExecutionFilter(tenant="acme", limit=100))) == 18
    for driver in drivers:
        driver.close()


def test_a_month_is_dropped_when_no_run_of_it_is_left(postgres_url: str, postgres: PostgresServer) -> None:
    january, march, may = (1_704_067_200_000 + days * DAY for days in (10, 70, 130))
    driver = opened(postgres_url)
    driver.writer.take_shards()
    kept, gone, going_on = at(january), at(march), at(may)
    with_letter = msgspec.structs.replace(
        start(kept, closing=closed()),
        letters_added=[LetterRow(event_id=1, workflow="order", node="Ship", error="Boom", at=NOW, data=b"{}")],
    )
    driver.writer.commit(batch(with_letter, start(gone, closing=closed()), start(going_on)))
    # Those that were made ahead are empty, and go.
    assert driver.writer.tidy(NOW).partitions == [f"engine.events_2024_{month}" for month in ("02", "04", "06")]
    assert driver.writer.tidy(NOW).partitions == []
    purges = [Purge(shard=0, epoch=1, run=run, closed_before=NOW + 9999) for run in (kept, gone, going_on)]
    driver.writer.commit(Batch(purges=purges))
    assert driver.reader.execution("acme", gone.run_id) is None
    assert driver.writer.tidy(march).partitions == [], "the month is not over"
    assert driver.writer.tidy(NOW).partitions == ["engine.events_2024_03"]
    for run in (kept, going_on):
        assert driver.reader.events("acme", run.run_id, 0, 10, 1000) == numbered(run, 1, 1)
    driver.writer.commit(batch(append(going_on, 2)))
    driver.close()


def test_a_month_stays_while_somebody_is_in_the_way(postgres_url: str, postgres: PostgresServer) -> None:
    march = 1_704_067_200_000 + 70 * DAY
    driver = opened(postgres_url)
    driver.writer.take_shards()
    driver.writer.commit(batch(start(at(march), closing=closed())))
    driver.writer.commit(Batch(purges=[Purge(shard=0, epoch=1, run=at(march), closed_before=NOW + 9999)]))
    with postgres.connect(driver.writer._connection.info.dbname) as somebody, somebody.transaction():
        somebody.execute("LOCK TABLE engine.events IN ROW EXCLUSIVE MODE")
        assert driver.writer.tidy(NOW).partitions == []
    assert driver.writer.tidy(NOW).partitions == ["engine.events_2024_03", "engine.events_2024_04"]
    driver.close()


def test_a_month_that_somebody_else_has_dropped_is_made_again(postgres_url: str) -> None:
    """By whose clock it was over, while another's clock, a moment behind, still has runs start in it."""
    behind, ahead = opened(postgres_url), opened(postgres_url)
    behind.writer.take_shards()
    last, first = (1_706_745_600_000 + moment for moment in (-1, 1))
    behind.writer.commit(batch(start(at(last, "order-1"), closing=closed())))
    behind.writer.commit(Batch(purges=[Purge(shard=0, epoch=1, run=at(last, "order-1"), closed_before=NOW + 9999)]))
    assert ahead.writer.tidy(first).partitions == ["engine.events_2024_01"]
    behind.writer.commit(batch(start(at(last, "order-2"))))
    assert behind.reader.events("acme", at(last, "order-2").run_id, 0, 10, 1000) == numbered(at(last, "order-2"), 1, 1)
    behind.close()
    ahead.close()


def test_several_drop_months_at_once(postgres_url: str) -> None:
    drivers = [opened(postgres_url) for _ in range(4)]
    drivers[0].writer.take_shards()
    months = [at(1_704_067_200_000 + 61 * DAY * number) for number in range(6)]
    drivers[0].writer.commit(batch(*(start(run, closing=closed()) for run in months)))
    purges = [Purge(shard=0, epoch=1, run=run, closed_before=NOW + 9999) for run in months]
    drivers[0].writer.commit(Batch(purges=purges))
    with ThreadPoolExecutor(4) as pool:
        dropped = [
            name for names in pool.map(lambda driver: driver.writer.tidy(NOW).partitions, drivers) for name in names
        ]
    dropped += drivers[0].writer.tidy(NOW).partitions
    assert len(dropped) == len(set(dropped)) == 12
    drivers[0].writer.commit(batch(start(at(NOW))))
    for driver in drivers:
        driver.close()
