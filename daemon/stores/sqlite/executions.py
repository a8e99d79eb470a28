"""Rows of executions, read: one, the newest of a workflow_id, those that are due, pages of a list."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from daemon.stores.rows import DueRun, Execution, ExecutionFilter, LatestRun
from daemon.stores.sqlite.keys import FIRST, NUMBERS, STATUSES, Key, packed, run_ref, unpacked
from daemon.stores.sqlite.names import NUMBER, name_of
from enginekit.messages.links import Millis, RunRef

_COLUMNS = f"""
{name_of("e.tenant")}, e.workflow_id, e.run_id, e.shard, {name_of("e.workflow")}, e.version, {name_of("e.definition")},
e.labels, e.request_id, e.status, e.error, e.started_at, e.closed_at, o.wake_at,
coalesce(o.last_event_id, e.last_event_id), e.parent
"""
_OPEN = "LEFT JOIN open_runs o ON o.run_id = e.run_id"
_NAMED = f"""
SELECT run_id, status FROM executions INDEXED BY executions_by_workflow_id
WHERE tenant = {NUMBER} AND workflow_id = ? ORDER BY run_id DESC LIMIT 1
"""
_OWN_NAMED = f"SELECT run_id, status FROM executions WHERE run_id = ? AND workflow_id IS NULL AND tenant = {NUMBER}"

_labels = msgspec.json.Decoder(dict[str, str])


def read_execution(connection: sqlite3.Connection, tenant: str, run_id: str) -> Execution | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM executions e {_OPEN} WHERE e.run_id = ? AND e.tenant = {NUMBER}",
        (packed(run_id), tenant),
    ).fetchone()
    return _execution(row) if row is not None else None


def latest_run(connection: sqlite3.Connection, tenant: str, workflow_id: str) -> LatestRun | None:
    """The newest of those that were given this workflow_id and the one, if any, whose run_id it is."""
    key = packed(workflow_id)
    rows = (
        connection.execute(_NAMED, (tenant, key)).fetchone(),
        connection.execute(_OWN_NAMED, (key, tenant)).fetchone(),
    )
    runs = [LatestRun(run_id=unpacked(row[0]), status=STATUSES[row[1]]) for row in rows if row is not None]
    return max(runs, key=lambda run: run.run_id, default=None)


def run_of_request(connection: sqlite3.Connection, tenant: str, request_id: str) -> RunRef | None:
    row = connection.execute(
        f"SELECT workflow_id, run_id FROM executions WHERE tenant = {NUMBER} AND request_id = ?", (tenant, request_id)
    ).fetchone()
    return run_ref(tenant, *row) if row is not None else None


def due_runs(connection: sqlite3.Connection, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]:
    place: tuple[int, Key] = (-(2**63), FIRST)
    if after is not None:
        place = (after.wake_at, packed(after.run.run_id))
    rows = connection.execute(
        f"SELECT {name_of('tenant')}, workflow_id, run_id, wake_at FROM open_runs "
        "WHERE wake_at IS NOT NULL AND wake_at < ? AND (wake_at, run_id) > (?, ?) ORDER BY wake_at, run_id LIMIT ?",
        (before, *place, limit),
    )
    return [DueRun(run=run_ref(*run), wake_at=at) for *run, at in rows]


def list_executions(connection: sqlite3.Connection, wanted: ExecutionFilter) -> list[Execution]:
    source = f"executions e {_way_to(wanted)} {_OPEN}"
    order = "e.run_id"
    conditions = [f"e.tenant = {NUMBER}"]
    values: list[Key | int] = [wanted.tenant]
    if wanted.label is not None:
        source = f"labels l CROSS JOIN {source}"
        order = "l.run_id"
        conditions.append(f"e.run_id = l.run_id AND l.tenant = {NUMBER} AND l.name = ? AND l.value = ?")
        values += [wanted.tenant, *wanted.label]
    if wanted.parent is None:
        conditions.append("e.parent IS NULL")
    else:
        conditions.append("e.parent = ?")
        values.append(packed(wanted.parent))
    if wanted.status is not None:
        conditions.append("e.status = ?")
        values.append(NUMBERS[wanted.status])
    if wanted.workflow is not None:
        conditions.append(f"e.workflow = {NUMBER}")
        values.append(wanted.workflow)
    if wanted.started_after is not None:
        conditions.append("e.started_at > ?")
        values.append(wanted.started_after)
    if wanted.started_before is not None:
        conditions.append("e.started_at < ?")
        values.append(wanted.started_before)
    if wanted.before_run_id is not None:
        conditions.append(f"{order} < ?")
        values.append(packed(wanted.before_run_id))
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {source} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?",
        (*values, wanted.limit),
    )
    return [_execution(row) for row in rows]


def _way_to(wanted: ExecutionFilter) -> str:
    """By which index, said to SQLite: left to itself it walks through all of a tenant's rows in the order that is asked
    for, as it expects to meet one that fits at once. A label has its runs in that order, and each is a row by its key:
    by an index SQLite would seek through all from the page's beginning on, once for every run of the label."""
    if wanted.label is not None:
        return "NOT INDEXED"
    if wanted.parent is not None:
        return "INDEXED BY executions_by_parent"
    if wanted.workflow is not None:
        return "INDEXED BY executions_by_workflow"
    if wanted.status is not None:
        return "INDEXED BY executions_by_status"
    return "INDEXED BY executions_on_top"


def _execution(row: tuple[Any, ...]) -> Execution:
    tenant, workflow_id, run_id, shard, workflow, version, definition_hash, labels, request_id, status, *rest = row
    error, started_at, closed_at, wake_at, last_event_id, parent = rest
    return Execution(
        run=run_ref(tenant, workflow_id, run_id),
        shard=shard,
        workflow=workflow,
        version=version,
        definition_hash=definition_hash,
        labels=_labels.decode(labels) if labels is not None else {},
        request_id=request_id,
        status=STATUSES[status],
        error=error,
        started_at=started_at,
        closed_at=closed_at,
        wake_at=wake_at,
        last_event_id=last_event_id,
        parent=unpacked(parent) if parent is not None else None,
    )
