"""Opening a PostgreSQL store: made, brought up to date, waited for, or refused with what to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
from lying_pooler import Pooler
from store_builders import batch, event, ref, start

from daemon.stores.faults import StoreUnavailable, StoreUnusable
from daemon.stores.postgres import connection as connections
from daemon.stores.postgres.columns import register
from daemon.stores.postgres.database import PostgresDriver, open_driver
from daemon.stores.postgres.failures import explained
from daemon.stores.postgres.schema import MIGRATIONS, SCHEMA_VERSION, migrate
from tests.servers.postgres import LOCKED_USER, PostgresServer

RUN = ref(1)
SHARDS = 4


def opened(url: str, shards: int = SHARDS, wait_seconds: float = 10.0) -> PostgresDriver:
    return open_driver(url, shards, wait_seconds, 30.0)


def test_several_daemons_may_make_and_open_a_store_at_once(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    with ThreadPoolExecutor(4) as pool:
        drivers = list(pool.map(opened, [url] * 4))
    assert {(driver.info.schema_version, driver.info.shards) for driver in drivers} == {(SCHEMA_VERSION, SHARDS)}
    assert len({driver.info.cluster for driver in drivers}) == 1
    taken = [driver.writer.take_shards() for driver in drivers]
    assert len({each.token_key for each in taken}) == 1
    assert taken[-1].epochs == dict.fromkeys(range(SHARDS), 4)
    for driver in drivers:
        driver.close()


@pytest.fixture
def of_the_first_version(postgres: PostgresServer) -> str:
    """The URL of a store that the first release has made and written to."""
    url = postgres.url(postgres.new_database())
    with psycopg.connect(url, autocommit=True) as somebody:
        register(somebody)
        migrate(somebody, SHARDS, MIGRATIONS[:1])
        somebody.execute("UPDATE engine.shards SET epoch = 7")
    return url


def versions(connection: psycopg.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT version FROM engine.schema_version ORDER BY version")]


def test_several_daemons_bring_an_older_store_up_to_date_at_once(of_the_first_version: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        drivers = list(pool.map(opened, [of_the_first_version] * 4))
    assert {driver.info.schema_version for driver in drivers} == {SCHEMA_VERSION}
    assert drivers[0].writer.take_shards().epochs == dict.fromkeys(range(SHARDS), 8), "what was there is there"
    drivers[0].writer.commit(batch(start(RUN, epoch=8)))
    assert drivers[3].reader.execution("acme", RUN.run_id) is not None
    for driver in drivers:
        driver.close()
    with psycopg.connect(of_the_first_version) as somebody:
        assert versions(somebody) == list(range(1, SCHEMA_VERSION + 1))


def test_a_migration_that_fails_leaves_the_version_before_it(of_the_first_version: str) -> None:
    good, bad = "CREATE TABLE engine.more (n bigint)", "ALTER TABLE engine.nothing ADD COLUMN n bigint"
    with psycopg.connect(of_the_first_version, autocommit=True) as somebody:
        with pytest.raises(psycopg.errors.UndefinedTable):
            migrate(somebody, SHARDS, [*MIGRATIONS[:1], good, bad])
        assert versions(somebody) == [1]
        assert somebody.execute("SELECT to_regclass('engine.more')").fetchone() == (None,)
    opened(of_the_first_version).close()


def test_two_stores_have_two_names_and_two_keys(postgres_url: str, postgres: PostgresServer) -> None:
    drivers = [opened(postgres.url(postgres.new_database())) for _ in range(2)]
    assert drivers[0].info.cluster != drivers[1].info.cluster
    assert len({driver.writer.take_shards().token_key for driver in drivers}) == 2
    for driver in drivers:
        driver.close()


def test_a_newer_schema_is_refused(postgres_url: str, postgres: PostgresServer) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as somebody:
        somebody.execute("INSERT INTO engine.schema_version (version) VALUES (%s)", (SCHEMA_VERSION + 1,))
    with pytest.raises(StoreUnusable, match=rf"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}.*newer engine"):
        opened(postgres_url)


def test_somebody_elses_schema_is_left_alone(postgres: PostgresServer) -> None:
    url = postgres.url(postgres.new_database())
    with psycopg.connect(url, autocommit=True) as somebody:
        somebody.execute("CREATE SCHEMA engine")
        somebody.execute("CREATE TABLE engine.parts (name text)")
        with pytest.raises(StoreUnusable, match="a database of its own"):
            opened(url)
        somebody.execute("DROP TABLE engine.parts")
    opened(url).close()


def test_another_number_of_shards_is_refused_naming_both(postgres_url: str) -> None:
    with pytest.raises(StoreUnusable, match=r"has 4 shards, the settings say 8.*shards = 4"):
        opened(postgres_url, shards=8)


def test_a_server_that_is_too_old_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "OLDEST_SERVER", 990000)
    with pytest.raises(StoreUnusable, match=r"is PostgreSQL \d+.*or newer: upgrade"):
        opened(postgres_url)


def cannot_be_read(server: PostgresServer) -> str:
    return f"postgresql://{LOCKED_USER}:s3cret@mine@127.0.0.1:{server.port}/postgres"


def cannot_be_read_either(server: PostgresServer) -> str:
    return f"postgresql://{LOCKED_USER}:s3cret/mine@127.0.0.1:{server.port}/postgres"


def nobody_there(server: PostgresServer) -> str:
    return f"postgresql://{LOCKED_USER}:s3cret%2Fof%40mine@127.0.0.1:1/postgres"


def wrong_password(server: PostgresServer) -> str:
    return server.url(user=f"{LOCKED_USER}:s3cret%2Fofmine")


def no_password(server: PostgresServer) -> str:
    return server.url(user=LOCKED_USER)


def no_such_role(server: PostgresServer) -> str:
    return server.url(user="nobody:s3cret")


def no_such_database(server: PostgresServer) -> str:
    return server.url("nowhere", user="postgres:s3cret")


def no_such_host(server: PostgresServer) -> str:
    return f"postgresql://{LOCKED_USER}@no-such-host.invalid/postgres?password=s3cret"


def not_ours_to_write(server: PostgresServer) -> str:
    return server.url(server.new_database(), user="guest:s3cret")


@pytest.fixture(scope="module")
def roles(postgres: PostgresServer) -> None:
    postgres.have_locked_user()
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE guest LOGIN")


@pytest.mark.parametrize(
    ("url", "failure", "message"),
    [
        (cannot_be_read, StoreUnusable, "cannot be read: .*its form"),
        (cannot_be_read_either, StoreUnusable, "cannot be read: .*its form"),
        (wrong_password, StoreUnusable, "password authentication failed.*check the user and the password"),
        (no_password, StoreUnusable, "no password supplied.*check the user and the password"),
        (no_such_role, StoreUnusable, "does not exist.*create the role"),
        (no_such_database, StoreUnusable, 'database "nowhere" does not exist.*create it'),
        (not_ours_to_write, StoreUnusable, "permission denied.*GRANT CREATE ON DATABASE"),
        (nobody_there, StoreUnavailable, "cannot be reached: .*[Cc]onnection refused"),
        (no_such_host, StoreUnavailable, "cannot be reached"),
    ],
)
def test_what_cannot_be_opened_is_told_without_the_password(
    postgres: PostgresServer,
    roles: None,
    url: Callable[[PostgresServer], str],
    failure: type[Exception],
    message: str,
) -> None:
    with pytest.raises(failure, match=message) as told:
        opened(url(postgres), wait_seconds=0.1)
    assert type(told.value) is failure
    assert "s3cret" not in str(told.value)
    assert "mine" not in str(told.value)
    assert told.value.__cause__ is None or "s3cret" not in str(told.value.__cause__)


def test_a_server_that_only_reads_is_waited_for(postgres_url: str, postgres: PostgresServer) -> None:
    """As a standby does: it may become the primary, or be found instead of it."""
    name = urlsplit(postgres_url).path[1:]
    with postgres.connect() as somebody:
        somebody.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable, match=r"cannot be reached.*read-only"):
            open_driver(postgres_url, SHARDS, 0.0, 30.0)
        somebody.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    open_driver(postgres_url, SHARDS, 0.0, 30.0).close()


def test_nobody_waits_for_a_server_any_more(postgres: PostgresServer) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        open_driver(nobody_there(postgres), SHARDS, 3600.0, 30.0, lambda: False)


def test_the_password_may_come_from_elsewhere(
    postgres: PostgresServer, roles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.new_database()
    with postgres.connect() as connection:
        connection.execute(f"GRANT CREATE ON DATABASE {name} TO {LOCKED_USER}")
    monkeypatch.setenv("PGPASSWORD", "another")
    opened(postgres.url(name, user=LOCKED_USER)).close()


def test_nothing_is_prepared_behind_a_pooler(postgres_url: str, postgres: PostgresServer) -> None:
    direct = opened(postgres_url)
    with Pooler(postgres.port) as pooler:
        pooled = opened(postgres_url.replace(str(postgres.port), str(pooler.port)))
        for driver, prepared in ((direct, True), (pooled, False)):
            epochs = driver.writer.take_shards().epochs
            run = ref(1 if prepared else 2)
            driver.writer.commit(batch(start(run, epoch=epochs[0])))
            assert driver.reader.events("acme", run.run_id, 0, 10, 1000) == [event(run, 1)]
            for lane in (driver.writer._connection, driver.reader._connection):
                found = lane.execute("SELECT count(*) > 0 FROM pg_prepared_statements").fetchone()
                assert found == (prepared,)
            driver.close()


def test_a_pooler_of_statements_is_not_waited_for(postgres: PostgresServer) -> None:
    """What PgBouncer 1.18 says then, before it closes the connection."""
    refused = psycopg.errors.ProtocolViolation("transaction blocks not allowed in statement pooling mode")
    with (
        psycopg.connect(postgres.url(postgres.new_database())) as somebody,
        pytest.raises(StoreUnusable, match="set pool_mode = session or transaction"),
        explained(somebody, "the store"),
    ):
        raise refused
