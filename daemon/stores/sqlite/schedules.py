"""Schedules in the SQLite store: a row each, which every write replaces."""

from __future__ import annotations

import sqlite3
from typing import Any

from daemon.stores.faults import BatchRefused
from daemon.stores.rows import DueSchedule, ScheduleWrite, StoredSchedule
from enginekit.messages.links import Millis, ScheduleRef

_ADD = """
INSERT INTO schedules (next_at, waiting, data, shard, tenant, schedule_id, revision) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_CHANGE = """
UPDATE schedules SET next_at = ?, waiting = ?, data = ?, revision = revision + 1
WHERE tenant = ? AND schedule_id = ? AND revision = ?
"""
_REMOVE = "DELETE FROM schedules WHERE tenant = ? AND schedule_id = ? AND revision = ?"
_SCHEDULES = "SELECT tenant, schedule_id, revision, next_at, waiting, data FROM schedules WHERE tenant = ?"


def write_schedule(connection: sqlite3.Connection, write: ScheduleWrite) -> None:
    tenant, schedule_id = write.schedule.tenant, write.schedule.schedule_id
    place = (tenant, schedule_id, write.revision - 1)
    if write.data is None:
        written = connection.execute(_REMOVE, place).rowcount
    elif write.revision == 1:
        row = (write.next_at, write.waiting, write.data, write.shard, tenant, schedule_id, 1)
        written = connection.execute(_ADD, row).rowcount
    else:
        row_now = (write.next_at, write.waiting, write.data)
        written = connection.execute(_CHANGE, (*row_now, *place)).rowcount
    if written != 1:
        raise BatchRefused(f"revision {write.revision} of schedule {schedule_id!r} does not follow the last")


def read_schedule(connection: sqlite3.Connection, tenant: str, schedule_id: str) -> StoredSchedule | None:
    row = connection.execute(f"{_SCHEDULES} AND schedule_id = ?", (tenant, schedule_id)).fetchone()
    return _schedule(row) if row is not None else None


def list_schedules(
    connection: sqlite3.Connection, tenant: str, limit: int, after_id: str | None, max_bytes: int
) -> list[StoredSchedule]:
    page: list[StoredSchedule] = []
    taken = 0
    for row in connection.execute(
        f"{_SCHEDULES} AND schedule_id > ? ORDER BY schedule_id LIMIT ?", (tenant, after_id or "", limit)
    ):
        schedule = _schedule(row)
        taken += len(schedule.data)
        if page and taken > max_bytes:
            break
        page.append(schedule)
    return page


def due_schedules(
    connection: sqlite3.Connection, before: Millis, limit: int, after: DueSchedule | None
) -> list[DueSchedule]:
    place: tuple[int, str, str] = (-(2**63), "", "")
    if after is not None:
        place = (after.next_at, after.schedule.tenant, after.schedule.schedule_id)
    rows = connection.execute(
        "SELECT tenant, schedule_id, next_at FROM schedules WHERE next_at IS NOT NULL AND next_at < ? "
        "AND (next_at, tenant, schedule_id) > (?, ?, ?) ORDER BY next_at, tenant, schedule_id LIMIT ?",
        (before, *place, limit),
    )
    return [DueSchedule(schedule=ScheduleRef(tenant, name), next_at=at) for tenant, name, at in rows]


def waiting_schedules(connection: sqlite3.Connection, limit: int, after: ScheduleRef | None) -> list[ScheduleRef]:
    place = (after.tenant, after.schedule_id) if after is not None else ("", "")
    rows = connection.execute(
        "SELECT tenant, schedule_id FROM schedules WHERE waiting = 1 AND (tenant, schedule_id) > (?, ?) "
        "ORDER BY tenant, schedule_id LIMIT ?",
        (*place, limit),
    )
    return [ScheduleRef(tenant, schedule_id) for tenant, schedule_id in rows]


def _schedule(row: tuple[Any, ...]) -> StoredSchedule:
    tenant, schedule_id, revision, next_at, waiting, data = row
    return StoredSchedule(
        schedule=ScheduleRef(tenant, schedule_id),
        revision=revision,
        next_at=next_at,
        waiting=bool(waiting),
        data=data,
    )
