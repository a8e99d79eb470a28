"""Tasks in the SQLite store: a row each while it waits or is with a worker in another process."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from daemon.stores.rows import DestinationBacklog, QueueBacklog, RunWrite, TaskCursor
from daemon.stores.sqlite.keys import FIRST, Key, packed, run_ref
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, TaskRef

_ADD = """
INSERT INTO tasks (run_id, event_id, tenant, kind, queue, rank, scheduled_at, destination)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_MARK = "UPDATE tasks SET started = ? WHERE run_id = ? AND event_id = ? AND tenant = ?"
_REMOVE = "DELETE FROM tasks WHERE run_id = ? AND event_id = ? AND tenant = ?"
_PASSING_OVER = "AND (t.destination IS NULL OR t.destination NOT IN (SELECT value FROM json_each(?))) "


def write_tasks(connection: sqlite3.Connection, runs: list[RunWrite]) -> None:
    added = [
        (
            packed(write.run.run_id),
            task.task.event_id,
            task.queue.tenant,
            task.queue.kind.value,
            task.queue.name,
            -task.priority,
            task.scheduled_at,
            task.destination,
        )
        for write in runs
        for task in write.tasks_added
    ]
    started = [(1, packed(w.run.run_id), n, w.run.tenant) for w in runs for n in w.tasks_started]
    returned = [(0, packed(w.run.run_id), n, w.run.tenant) for w in runs for n in w.tasks_returned]
    removed = [(packed(w.run.run_id), n, w.run.tenant) for w in runs for n in w.tasks_removed]
    if added:
        connection.executemany(_ADD, added)
    if started:
        connection.executemany(_MARK, started)
    if returned:
        connection.executemany(_MARK, returned)
    if removed:
        connection.executemany(_REMOVE, removed)


def queue_backlogs(connection: sqlite3.Connection) -> list[QueueBacklog]:
    rows = connection.execute(
        "SELECT tenant, kind, queue, count(*), min(scheduled_at) FROM tasks WHERE started = 0 "
        "GROUP BY tenant, kind, queue ORDER BY tenant, kind, queue"
    )
    return [
        QueueBacklog(queue=QueueKey(tenant, TaskKind(kind), name), depth=depth, oldest=oldest)
        for tenant, kind, name, depth, oldest in rows
    ]


def destination_backlogs(connection: sqlite3.Connection, tenant: str) -> list[DestinationBacklog]:
    rows = connection.execute(
        "SELECT kind, queue, destination, count(*) FROM tasks WHERE tenant = ? AND started = 0 "
        "GROUP BY kind, queue, destination ORDER BY kind, queue, destination",
        (tenant,),
    )
    return [
        DestinationBacklog(queue=QueueKey(tenant, TaskKind(kind), name), destination=destination, depth=depth)
        for kind, name, destination, depth in rows
    ]


def waiting_tasks(
    connection: sqlite3.Connection, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
) -> list[QueuedTask]:
    place: tuple[int, int, Key, int] = (-(2**63), 0, FIRST, 0)
    if after is not None:
        place = (-after.priority, after.scheduled_at, packed(after.run_id), after.event_id)
    rows = connection.execute(
        "SELECT t.tenant, e.workflow_id, t.run_id, t.event_id, t.rank, t.scheduled_at, t.destination "
        "FROM tasks t CROSS JOIN executions e ON e.run_id = t.run_id "
        "WHERE t.tenant = ? AND t.kind = ? AND t.queue = ? AND t.started = 0 "
        "AND (t.rank, t.scheduled_at, t.run_id, t.event_id) > (?, ?, ?, ?) "
        f"{_PASSING_OVER if without else ''}"
        "ORDER BY t.rank, t.scheduled_at, t.run_id, t.event_id LIMIT ?",
        (
            queue.tenant,
            queue.kind.value,
            queue.name,
            *place,
            *([msgspec.json.encode(without).decode()] if without else []),
            limit,
        ),
    )
    return [
        QueuedTask(TaskRef(run_ref(*run), event_id), queue, -rank, scheduled_at, destination)
        for *run, event_id, rank, scheduled_at, destination in rows
    ]
