"""What purged runs leave behind in an SQLite file and nothing refers to any more: texts of definitions that are not
registered, and names.

No index leads from a name to the rows that it stands in: every run would pay for it. So they are marked and swept: all
rows of runs are gone through, some in each step, and what they refer to is remembered; then whatever is not among it
goes. What is written between the steps gets its names' numbers from `Names`, which remembers them meanwhile, too.
"""

from __future__ import annotations

import sqlite3
from enum import Enum

from daemon.stores.rows import Tidied
from daemon.stores.sqlite.keys import FIRST, Key
from daemon.stores.sqlite.names import Names

STEP_ROWS = 2000
"""Looked at in one step, which commits wait for."""

_RUNS = "SELECT run_id, tenant, workflow, definition FROM executions WHERE run_id > ? ORDER BY run_id LIMIT ?"
_TEXTS = """
SELECT d.rowid, t.id, h.id FROM definitions d
LEFT JOIN names t ON t.name = d.tenant LEFT JOIN names h ON h.name = d.hash
WHERE d.rowid > ? AND NOT EXISTS (SELECT 1 FROM registrations r WHERE r.tenant = d.tenant AND r.hash = d.hash)
ORDER BY d.rowid LIMIT ?
"""
_NAMES = "SELECT id FROM names WHERE id > ? ORDER BY id LIMIT ?"


class _Stage(Enum):
    IDLE = "idle"
    RUNS = "runs"
    TEXTS = "texts"
    NAMES = "names"


class Sweep:
    """Of the write lane; each step is a transaction of its own. It begins anew with a new driver."""

    def __init__(self, connection: sqlite3.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._stage = _Stage.IDLE
        self._after_run: Key = FIRST
        self._after_row = 0
        self._used: set[int] = set()
        """Numbers of names that stand in rows."""
        self._pairs: set[tuple[int, int]] = set()
        """Tenants and the definitions that runs of theirs have, as those numbers."""
        self._worth = True

    def purged(self) -> None:
        """Runs have gone since it began: there may be something for another sweep."""
        self._worth = True

    def step(self) -> Tidied:
        match self._stage:
            case _Stage.IDLE:
                if not self._worth:
                    return Tidied()
                self._worth = False
                self._names.watch()
                self._used, self._pairs, self._after_run = set(), set(), FIRST
                self._stage = _Stage.RUNS
                return self._mark()
            case _Stage.RUNS:
                return self._mark()
            case _Stage.TEXTS:
                return self._sweep_texts()
            case _Stage.NAMES:
                return self._sweep_names()

    def _mark(self) -> Tidied:
        rows = self._connection.execute(_RUNS, (self._after_run, STEP_ROWS)).fetchall()
        for _, tenant, workflow, definition in rows:
            self._used.update((tenant, definition) if workflow is None else (tenant, definition, workflow))
            self._pairs.add((tenant, definition))
        if len(rows) == STEP_ROWS:
            self._after_run = rows[-1][0]
        else:
            self._stage, self._after_row = _Stage.TEXTS, 0
        return Tidied(more=True)

    def _sweep_texts(self) -> Tidied:
        rows = self._connection.execute(_TEXTS, (self._after_row, STEP_ROWS)).fetchall()
        given = self._names.given()
        # A number that was given out since has no tenant here: it keeps the text of all of them, until the next sweep.
        unused = [(row,) for row, tenant, hash in rows if (tenant, hash) not in self._pairs and hash not in given]
        self._connection.executemany("DELETE FROM definitions WHERE rowid = ?", unused)
        if len(rows) == STEP_ROWS:
            self._after_row = rows[-1][0]
        else:
            self._stage, self._after_row = _Stage.NAMES, 0
        return Tidied(definitions=len(unused), more=True)

    def _sweep_names(self) -> Tidied:
        rows = self._connection.execute(_NAMES, (self._after_row, STEP_ROWS)).fetchall()
        given = self._names.given()
        unused = [number for (number,) in rows if number not in self._used and number not in given]
        self._names.remove(unused)
        more = len(rows) == STEP_ROWS
        if more:
            self._after_row = rows[-1][0]
        else:
            self._stage = _Stage.IDLE
            self._names.unwatch()
            self._used, self._pairs = set(), set()
        return Tidied(names=len(unused), more=more)
