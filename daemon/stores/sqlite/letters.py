"""Dead letters in the SQLite store: a row each, written and removed by the commits of their runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from daemon.stores.rows import LetterFilter, LetterRow, RunWrite, StoredLetter
from daemon.stores.sqlite.keys import Key, packed, unpacked
from enginekit.messages.links import RunRef

_ADD = """
INSERT INTO dead_letters (tenant, run_id, event_id, workflow_id, workflow, node, error, at, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REMOVE = "DELETE FROM dead_letters WHERE tenant = ? AND run_id = ? AND event_id = ?"
_ROW = "tenant, workflow_id, run_id, event_id, workflow, node, error, at, data"


def write_letters(connection: sqlite3.Connection, runs: Iterable[RunWrite]) -> None:
    for write in runs:
        run, key = write.run, packed(write.run.run_id)
        for number in write.letters_removed:
            connection.execute(_REMOVE, (run.tenant, key, number))
        for row in write.letters_added:
            connection.execute(
                _ADD,
                (
                    run.tenant,
                    key,
                    row.event_id,
                    run.workflow_id,
                    row.workflow,
                    row.node,
                    row.error,
                    row.at,
                    row.data,
                ),
            )


def list_letters(connection: sqlite3.Connection, wanted: LetterFilter) -> list[StoredLetter]:
    conditions: list[str] = []
    values: list[Key | int] = []
    order = "at, run_id, event_id"
    if wanted.tenant is not None:
        conditions.append("tenant = ?")
        values.append(wanted.tenant)
        order = "at DESC, run_id DESC, event_id DESC"
    for column, value in (
        ("workflow_id", wanted.workflow_id),
        ("workflow", wanted.workflow),
        ("node", wanted.node),
        ("error", wanted.error),
    ):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if wanted.before is not None:
        conditions.append("at < ?")
        values.append(wanted.before)
    if wanted.after is not None:
        conditions.append("at > ?")
        values.append(wanted.after)
    if wanted.behind is not None:
        conditions.append("(at, run_id) < (?, ?)")
        at, run_id = wanted.behind
        values += [at, packed(run_id)]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(
        f"SELECT {_ROW} FROM dead_letters {where} ORDER BY {order} LIMIT ?", (*values, wanted.limit)
    )
    return [_letter(row) for row in rows]


def read_letter(connection: sqlite3.Connection, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
    row = connection.execute(
        f"SELECT {_ROW} FROM dead_letters WHERE tenant = ? AND run_id = ? AND event_id = ?",
        (tenant, packed(run_id), event_id),
    ).fetchone()
    return None if row is None else _letter(row)


def _letter(row: tuple[str, str, Key, int, str | None, str, str, int, bytes]) -> StoredLetter:
    tenant, workflow_id, run_id, event_id, workflow, node, error, at, data = row
    return StoredLetter(
        run=RunRef(tenant, workflow_id, unpacked(run_id)),
        letter=LetterRow(event_id=event_id, workflow=workflow, node=node, error=error, at=at, data=data),
    )
