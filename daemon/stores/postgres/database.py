"""Opening a PostgreSQL store: its schema brought up to date, its shards counted, its two connections made."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable

import psycopg

from daemon.address import shown
from daemon.stores.faults import StoreUnusable
from daemon.stores.postgres.connection import bound_reads, connect
from daemon.stores.postgres.failures import explained, one_line
from daemon.stores.postgres.limits import Limits
from daemon.stores.postgres.reader import PostgresReader
from daemon.stores.postgres.schema import SCHEMA_VERSION, migrate
from daemon.stores.postgres.writer import PostgresWriter
from daemon.stores.rows import StoreInfo

_TOKEN_KEY_BYTES = 32


class PostgresDriver:
    """Implements `Driver`: two connections, one a lane."""

    def __init__(self, info: StoreInfo, writer: PostgresWriter, reader: PostgresReader) -> None:
        self.info = info
        self.writer = writer
        self.reader = reader

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def open_driver(
    url: str,
    shards: int,
    wait_seconds: float,
    call_timeout_seconds: float,
    still_wanted: Callable[[], bool] = lambda: True,
) -> PostgresDriver:
    """Open the store, made if there is none; a server that cannot be reached is waited for.

    Raises StoreUnavailable when it cannot be reached for `wait_seconds`, StoreUnusable: not let in, too old, a newer
    schema, another number of shards, a user who may not make tables.
    """
    name = shown(url)
    writing = connect(url, "write lane", call_timeout_seconds, wait_seconds, still_wanted)
    try:
        with explained(writing, name):
            limits = Limits(writing, call_timeout_seconds)
            try:
                migrate(writing, shards)
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidSchemaName) as error:
                raise StoreUnusable(
                    f"the engine may not make its tables in {name} ({one_line(error)}): GRANT CREATE ON DATABASE to "
                    "the user in `[store] url`, or let the user own the database"
                ) from error
            except StoreUnusable as unusable:
                raise StoreUnusable(f"the store {name} cannot be used: {unusable}") from unusable
            _check_shards(writing, name, shards)
            token_key = _once(writing, "token_key", secrets.token_bytes(_TOKEN_KEY_BYTES))
            cluster = _once(writing, "cluster", str(uuid.uuid4()).encode()).decode()
        reading = connect(url, "read lane", call_timeout_seconds, wait_seconds, still_wanted)
        with explained(reading, name):
            bound_reads(reading, call_timeout_seconds)
    except BaseException:
        writing.close()
        raise
    info = StoreInfo(kind="postgresql", schema_version=SCHEMA_VERSION, shards=shards, shared=True, cluster=cluster)
    return PostgresDriver(info, PostgresWriter(writing, name, limits, token_key), PostgresReader(reading, name))


def _check_shards(connection: psycopg.Connection, name: str, wanted: int) -> None:
    row = connection.execute("SELECT count(*) FROM engine.shards").fetchone()
    there = 0 if row is None else int(row[0])
    if there != wanted:
        raise StoreUnusable(
            f"the store {name} has {there} shards, the settings say {wanted}. The number is fixed when a store is "
            f"made: set `[store] shards = {there}`"
        )


def _once(connection: psycopg.Connection, key: str, value: bytes) -> bytes:
    """What is kept under this key: `value`, unless somebody was there before."""
    connection.execute("INSERT INTO engine.meta (key, value) VALUES (%s, %s) ON CONFLICT DO NOTHING", (key, value))
    row = connection.execute("SELECT value FROM engine.meta WHERE key = %s", (key,)).fetchone()
    return value if row is None else bytes(row[0])
