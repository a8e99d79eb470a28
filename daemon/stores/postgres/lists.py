"""Lists that the PostgreSQL store answers: pages over its indexes, and how their rows become ours.

Each takes what executes a statement; the connection and its errors are the reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from daemon.stores.postgres.columns import legible, run_id_bytes
from daemon.stores.rows import (
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
    Effect,
    Execution,
    ExecutionFilter,
    LetterFilter,
    LetterRow,
    QueueBacklog,
    StoredEffect,
    StoredLetter,
    StoredSchedule,
    TaskCursor,
)
from enginekit.messages.events import TaskKind
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef, TaskRef
from enginekit.messages.status import ExecutionStatus

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]
Query: TypeAlias = Callable[[str, Sequence[object]], Rows]

EXECUTION = """
e.tenant, e.workflow_id, e.run_id::text, e.shard, e.workflow, e.version, e.definition_hash, e.labels, e.request_id,
e.status, e.error, e.started_at, e.closed_at, o.wake_at, coalesce(o.last_event_id, e.last_event_id), e.parent::text
"""
EXECUTIONS = "engine.executions e LEFT JOIN engine.open_runs o ON o.run_id = e.run_id AND o.tenant = e.tenant"
SCHEDULES = "SELECT tenant, schedule_id, revision, next_at, waiting, data FROM engine.schedules WHERE tenant = %s"

_LETTER = "tenant, workflow_id, run_id::text, event_id, workflow, node, error, at, data"
_LEAST_RUN_ID = "00000000-0000-0000-0000-000000000000"
_LEAST = -(2**63)

_labels = msgspec.json.Decoder(dict[str, str])


def due_runs(query: Query, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]:
    place = (after.wake_at, after.run.run_id) if after is not None else (_LEAST, _LEAST_RUN_ID)
    rows = query(
        "SELECT tenant, workflow_id, run_id::text, wake_at FROM engine.open_runs "
        "WHERE wake_at IS NOT NULL AND wake_at < %s AND (wake_at, run_id) > (%s, %s::uuid) "
        "ORDER BY wake_at, engine.open_runs.run_id LIMIT %s",
        (before, *place, limit),
    )
    return [DueRun(run=RunRef(*run), wake_at=at) for *run, at in rows]


def effects(query: Query, limit: int, after: StoredEffect | None, shards: Sequence[int] | None) -> list[StoredEffect]:
    place = (after.run.run_id, after.effect.event_id) if after is not None else (_LEAST_RUN_ID, 0)
    rows = query(
        "SELECT tenant, workflow_id, run_id::text, event_id, kind, data FROM engine.effects f "
        f"WHERE (f.run_id, f.event_id) > (%s::uuid, %s) {'' if shards is None else 'AND shard = ANY (%s::bigint[])'} "
        "ORDER BY f.run_id, f.event_id LIMIT %s",
        (*place, *([] if shards is None else [list(shards)]), limit),
    )
    return [
        StoredEffect(run=RunRef(*run), effect=Effect(event_id=number, kind=kind, data=data))
        for *run, number, kind, data in rows
    ]


def queue_backlogs(query: Query) -> list[QueueBacklog]:
    rows = query(
        "SELECT tenant, kind, queue, count(*), min(scheduled_at) FROM engine.tasks WHERE NOT started "
        "GROUP BY tenant, kind, queue ORDER BY tenant, kind, queue",
        (),
    )
    return [
        QueueBacklog(queue=QueueKey(tenant, TaskKind(kind), name), depth=depth, oldest=oldest)
        for tenant, kind, name, depth, oldest in rows
    ]


def destination_backlogs(query: Query, tenant: str) -> list[DestinationBacklog]:
    rows = query(
        "SELECT kind, queue, destination, count(*) FROM engine.tasks WHERE tenant = %s AND NOT started "
        "GROUP BY kind, queue, destination ORDER BY kind, queue, destination NULLS FIRST",
        (tenant,),
    )
    return [
        DestinationBacklog(queue=QueueKey(tenant, TaskKind(kind), name), destination=destination, depth=depth)
        for kind, name, destination, depth in rows
    ]


def waiting_tasks(
    query: Query, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
) -> list[QueuedTask]:
    place: tuple[int, int, str, int] = (_LEAST, 0, _LEAST_RUN_ID, 0)
    if after is not None:
        place = (-after.priority, after.scheduled_at, after.run_id, after.event_id)
    passing_over = "AND (destination IS NULL OR destination <> ALL (%s::text[])) " if without else ""
    rows = query(
        "SELECT tenant, workflow_id, run_id::text, event_id, rank, scheduled_at, destination FROM engine.tasks t "
        "WHERE tenant = %s AND kind = %s AND queue = %s AND NOT started "
        f"AND (t.rank, t.scheduled_at, t.run_id, t.event_id) > (%s, %s, %s::uuid, %s) {passing_over}"
        "ORDER BY t.rank, t.scheduled_at, t.run_id, t.event_id LIMIT %s",
        (queue.tenant, queue.kind.value, queue.name, *place, *([list(without)] if without else []), limit),
    )
    return [
        QueuedTask(TaskRef(RunRef(*run), event_id), queue, -rank, scheduled_at, destination)
        for *run, event_id, rank, scheduled_at, destination in rows
    ]


def list_executions(query: Query, wanted: ExecutionFilter) -> list[Execution]:
    for run_id in (wanted.before_run_id, wanted.parent):
        if run_id is not None and run_id_bytes(run_id) is None:
            return []
    source, order = EXECUTIONS, "e.run_id"
    conditions = ["e.tenant = %s"]
    values: list[str | int] = [wanted.tenant]
    if wanted.label is not None:
        order = "l.run_id"
        source = (
            "engine.labels l JOIN engine.executions e ON e.tenant = l.tenant AND e.run_id = l.run_id "
            "LEFT JOIN engine.open_runs o ON o.run_id = e.run_id AND o.tenant = e.tenant"
        )
        conditions.append("l.tenant = %s AND l.name = %s AND l.value = %s")
        values += [wanted.tenant, *map(legible, wanted.label)]
    for condition, value in (
        ("e.parent = %s::uuid", wanted.parent),
        ("e.status = %s", None if wanted.status is None else wanted.status.value),
        ("e.workflow = %s", wanted.workflow),
        ("e.started_at > %s", wanted.started_after),
        ("e.started_at < %s", wanted.started_before),
        (f"{order} < %s::uuid", wanted.before_run_id),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.parent is None:
        conditions.append("e.parent IS NULL")
    rows = query(
        f"SELECT {EXECUTION} FROM {source} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT %s",
        (*values, wanted.limit),
    )
    return [to_execution(row) for row in rows]


def dead_letters(query: Query, wanted: LetterFilter) -> list[StoredLetter]:
    conditions: list[str] = []
    values: list[str | int] = []
    order = "at, l.run_id, event_id"
    if wanted.tenant is not None:
        conditions.append("tenant = %s")
        values.append(wanted.tenant)
        order = "at DESC, l.run_id DESC, event_id DESC"
    for condition, value in (
        ("workflow_id = %s", wanted.workflow_id),
        ("workflow = %s", wanted.workflow),
        ("node = %s", None if wanted.node is None else legible(wanted.node)),
        ("error = %s", None if wanted.error is None else legible(wanted.error)),
        ("at < %s", wanted.before),
        ("at > %s", wanted.after),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if wanted.behind is not None:
        if run_id_bytes(wanted.behind[1]) is None:
            return []
        conditions.append("(at, l.run_id) < (%s, %s::uuid)")
        values += wanted.behind
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = query(
        f"SELECT {_LETTER} FROM engine.dead_letters l {where} ORDER BY {order} LIMIT %s", (*values, wanted.limit)
    )
    return [_letter(row) for row in rows]


def dead_letter(query: Query, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
    rows = query(
        f"SELECT {_LETTER} FROM engine.dead_letters WHERE tenant = %s AND run_id = %s::uuid AND event_id = %s",
        (tenant, run_id, event_id),
    )
    return _letter(rows[0]) if rows else None


def list_definitions(query: Query, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
    rows = query(
        "SELECT r.name, r.version, r.registered_at FROM engine.registrations r WHERE r.tenant = %s AND r.name > %s "
        "AND r.version = (SELECT max(version) FROM engine.registrations WHERE tenant = r.tenant AND name = r.name) "
        "ORDER BY r.name LIMIT %s",
        (tenant, after_name if after_name is not None else "", limit),
    )
    return [DefinitionEntry(name=name, version=version, registered_at=at) for name, version, at in rows]


def list_schedules(query: Query, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]:
    page: list[StoredSchedule] = []
    taken = 0
    for row in query(
        f"{SCHEDULES} AND schedule_id > %s ORDER BY schedule_id LIMIT %s", (tenant, after_id or "", limit)
    ):
        schedule = to_schedule(row)
        taken += len(schedule.data)
        if page and taken > max_bytes:
            break
        page.append(schedule)
    return page


def due_schedules(query: Query, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]:
    place: tuple[int, str, str] = (_LEAST, "", "")
    if after is not None:
        place = (after.next_at, after.schedule.tenant, after.schedule.schedule_id)
    rows = query(
        "SELECT tenant, schedule_id, next_at FROM engine.schedules WHERE next_at IS NOT NULL AND next_at < %s "
        "AND (next_at, tenant, schedule_id) > (%s, %s, %s) ORDER BY next_at, tenant, schedule_id LIMIT %s",
        (before, *place, limit),
    )
    return [DueSchedule(schedule=ScheduleRef(tenant, name), next_at=at) for tenant, name, at in rows]


def waiting_schedules(
    query: Query, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None
) -> list[ScheduleRef]:
    place = (after.tenant, after.schedule_id) if after is not None else ("", "")
    rows = query(
        "SELECT tenant, schedule_id FROM engine.schedules WHERE waiting AND (tenant, schedule_id) > (%s, %s) "
        f"{'' if shards is None else 'AND shard = ANY (%s::bigint[])'} ORDER BY tenant, schedule_id LIMIT %s",
        (*place, *([] if shards is None else [list(shards)]), limit),
    )
    return [ScheduleRef(tenant, schedule_id) for tenant, schedule_id in rows]


def to_execution(row: Row) -> Execution:
    tenant, workflow_id, run_id, shard, workflow, version, definition_hash, labels, request_id, status, *rest = row
    error, started_at, closed_at, wake_at, last_event_id, parent = rest
    return Execution(
        run=RunRef(tenant, workflow_id, run_id),
        shard=shard,
        workflow=workflow,
        version=version,
        definition_hash=definition_hash,
        labels=_labels.decode(labels),
        request_id=request_id,
        status=ExecutionStatus(status),
        error=error,
        started_at=started_at,
        closed_at=closed_at,
        wake_at=wake_at,
        last_event_id=last_event_id,
        parent=parent,
    )


def to_schedule(row: Row) -> StoredSchedule:
    tenant, schedule_id, revision, next_at, waiting, data = row
    return StoredSchedule(
        schedule=ScheduleRef(tenant, schedule_id), revision=revision, next_at=next_at, waiting=waiting, data=data
    )


def _letter(row: Row) -> StoredLetter:
    tenant, workflow_id, run_id, event_id, workflow, node, error, at, data = row
    return StoredLetter(
        run=RunRef(tenant, workflow_id, run_id),
        letter=LetterRow(event_id=event_id, workflow=workflow, node=node, error=error, at=at, data=data),
    )
