"""What SQLite's errors mean for a store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from daemon.stores.faults import StoreUnavailable, StoreUnusable

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def damaged(path: Path, what: str) -> StoreUnusable:
    return StoreUnusable(
        f"the store {path} is damaged ({what}). Stop the daemon, keep a copy of the file, and put a backup in its "
        "place; `sqlite3 FILE .recover` reads what can still be read"
    )


def explain(error: sqlite3.Error, path: Path) -> Exception:
    """The error to raise instead: StoreUnusable for damage, StoreUnavailable for what may pass with the store open,
    else the error itself, which ends the driver process."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary in _DAMAGED:
        return damaged(path, str(error))
    if primary in _PASSING:
        return StoreUnavailable(f"the store {path} could not be written or read: {error}")
    return error
