"""Opening a SQLite store: whose file it is, which version, whether it is whole; then its two connections, or one for
somebody who only looks.

A file of up to 64 MiB is read through (`PRAGMA quick_check`) each time it is opened: some tens of milliseconds when the
system has it in memory. Of a larger one the header, its length and the schema are checked, and damage elsewhere is
reported when a statement meets it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

from daemon.stores.faults import StoreUnusable
from daemon.stores.rows import StoreInfo
from daemon.stores.sqlite.failures import damaged, explain
from daemon.stores.sqlite.histories import Unreadable, prepare
from daemon.stores.sqlite.lock import ProcessLock
from daemon.stores.sqlite.reader import SqliteReader
from daemon.stores.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION, migrate
from daemon.stores.sqlite.writer import SqliteWriter

_MAGIC = b"SQLite format 3\x00"
_CHECKED_BYTES = 64 * 1024 * 1024
_BUSY_SECONDS = 5.0
"""How long a statement waits for somebody else's (a backup, a `sqlite3` shell)."""
_PAGE_BYTES = 4096
_WRITER_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 8 * 1024
_CHECKPOINT_PAGES = 4000
_TOKEN_KEY_BYTES = 32


class SqliteDriver:
    """Implements `Driver`: an open store and the lock that makes it ours."""

    def __init__(self, info: StoreInfo, writer: SqliteWriter, reader: SqliteReader, lock: ProcessLock) -> None:
        self.info = info
        self.writer = writer
        self.reader = reader
        self._lock = lock

    def close(self) -> None:
        self.reader.close()
        self.writer.close()
        self._lock.release()


def open_driver(
    path: Path, shards: int, lock_wait_seconds: float, still_wanted: Callable[[], bool] = lambda: True
) -> SqliteDriver:
    """Open the store, made if there is none.

    Raises StoreUnusable: locked by another process, not a store of ours, of a newer schema, damaged, of another
    number of shards, in a folder that is not there or not ours to write.
    """
    try:
        lock = ProcessLock.take(path, lock_wait_seconds, still_wanted)
    except OSError as error:
        raise _not_writable(path, error) from error
    connections: list[sqlite3.Connection] = []
    try:
        _recognise_bytes(path)
        connection = _connect(path, _WRITER_CACHE_KIB)
        connections.append(connection)
        version = _recognise(connection, path)
        _configure(connection)
        migrate(connection, version)
        prepare(connection)
        token_key = _token_key(connection)
        _check_shards(connection, path, shards)
        reading = _connect(path, _READER_CACHE_KIB)
        connections.append(reading)
        reading.execute("PRAGMA query_only = ON")
        reading.execute("SELECT count(*) FROM shards").fetchone()
        writer = SqliteWriter(connection, path, shards, token_key)
    except Unreadable as unreadable:
        _close(connections, lock)
        raise damaged(path, str(unreadable)) from unreadable
    except sqlite3.Error as error:
        _close(connections, lock)
        explained = explain(error, path)
        if isinstance(explained, StoreUnusable):
            raise explained from error
        raise StoreUnusable(f"the store {path} could not be opened: {error}") from error
    except OSError as error:
        _close(connections, lock)
        raise _not_writable(path, error) from error
    except BaseException:
        _close(connections, lock)
        raise
    info = StoreInfo(kind="sqlite", schema_version=SCHEMA_VERSION, shards=shards)
    return SqliteDriver(info, writer, SqliteReader(reading, path), lock)


def open_reader(path: Path) -> SqliteReader:
    """The store's read lane alone, for looking at a file whether a daemon has it open or not; takes no lock.

    Raises StoreUnusable: as `open_driver`, and for a file that is not there or is empty.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreUnusable(f"the store {path} cannot be opened: {error}") from error
    try:
        if _recognise(connection, path) != SCHEMA_VERSION:
            raise StoreUnusable(f"{path} is empty, or a store of an older engine that this one has not opened yet")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        explained = explain(error, path)
        raise explained if isinstance(explained, StoreUnusable) else StoreUnusable(f"{path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return SqliteReader(connection, path)


def _recognise_bytes(path: Path) -> None:
    """Make the file, readable by its owner alone (it holds a key), or look at how it begins."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        beginning = os.pread(descriptor, len(_MAGIC), 0)
    finally:
        os.close(descriptor)
    if beginning and beginning != _MAGIC:
        raise _foreign(path, "it is not a SQLite file")


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    return connection


def _recognise(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version, 0 for an empty file."""
    application_id = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application_id != APPLICATION_ID:
        if application_id or version or _number(connection, "SELECT count(*) FROM sqlite_master"):
            raise _foreign(path, "it is another program's SQLite file")
        return 0
    if version > SCHEMA_VERSION:
        raise StoreUnusable(
            f"the store {path} has schema version {version}, this engine knows versions up to {SCHEMA_VERSION}: start "
            "the newer engine that wrote it"
        )
    if path.stat().st_size <= _CHECKED_BYTES:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise damaged(path, " ".join(str(verdict).split()))
    return version


def _configure(connection: sqlite3.Connection) -> None:
    """The page size counts for a new file only. With `synchronous = FULL` a commit in WAL mode is on disk."""
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA recursive_triggers = ON")
    connection.execute("PRAGMA secure_delete = OFF")


def _token_key(connection: sqlite3.Connection) -> bytes:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('token_key', ?) ON CONFLICT (key) DO NOTHING",
        (secrets.token_bytes(_TOKEN_KEY_BYTES),),
    )
    return bytes(connection.execute("SELECT value FROM meta WHERE key = 'token_key'").fetchone()[0])


def _check_shards(connection: sqlite3.Connection, path: Path, wanted: int) -> None:
    there = _number(connection, "SELECT count(*) FROM shards")
    if there and there != wanted:
        raise StoreUnusable(
            f"the store {path} has {there} shards, the settings say {wanted}. The number is fixed when a store is "
            f"made: set `[store] shards = {there}`"
        )


def _number(connection: sqlite3.Connection, statement: str) -> int:
    return int(connection.execute(statement).fetchone()[0])


def _foreign(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(f"{path} is not a store of this engine ({what}). Name another path in `[store] url`")


def _not_writable(path: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(
        f"the store {path} cannot be opened: {error.strerror}. Its folder must be there, and it and the file must be "
        "readable and writable by the daemon's user"
    )


def _close(connections: list[sqlite3.Connection], lock: ProcessLock) -> None:
    for connection in reversed(connections):
        connection.close()
    lock.release()
