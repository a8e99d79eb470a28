"""The read lane of the SQLite store. Every query is bounded by its page and stays within one tenant, but for the
scans by which a restart takes up all work."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from daemon.stores.faults import NoSuchEvent
from daemon.stores.rows import (
    Definition,
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
    Effect,
    Execution,
    ExecutionFilter,
    LatestRun,
    LetterFilter,
    MapResult,
    QueueBacklog,
    Snapshot,
    StartCheck,
    StoredEffect,
    StoredLetter,
    StoredRun,
    StoredSchedule,
    TaskCursor,
)
from daemon.stores.sqlite.failures import explain
from daemon.stores.sqlite.letters import list_letters, read_letter
from enginekit.messages.events import TaskKind
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef, TaskRef
from enginekit.messages.status import ExecutionStatus

_EXECUTION = """
e.tenant, e.workflow_id, e.run_id, e.shard, e.workflow, e.version, e.definition_hash, e.labels, e.request_id, e.status,
e.error, e.started_at, e.closed_at, o.wake_at, coalesce(o.last_event_id, e.last_event_id), e.parent
"""
_OPEN = "LEFT JOIN open_runs o ON o.run_id = e.run_id AND o.tenant = e.tenant"
_EXECUTIONS = f"executions e {_OPEN}"
_SCHEDULES = "SELECT tenant, schedule_id, revision, next_at, waiting, data FROM schedules WHERE tenant = ?"
_PASSING_OVER = "AND (t.destination IS NULL OR t.destination NOT IN (SELECT value FROM json_each(?))) "


class SqliteReader:
    """Implements `Reader` over one connection in autocommit mode that cannot write."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._names = msgspec.json.Encoder()
        self._labels = msgspec.json.Decoder(dict[str, str])
        self._events = msgspec.msgpack.Decoder(list[bytes])

    def close(self) -> None:
        self._connection.close()

    def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck:
        with self._one_moment():
            requested = None
            if request_id is not None:
                row = self._row(
                    "SELECT workflow_id, run_id FROM executions WHERE tenant = ? AND request_id = ?", tenant, request_id
                )
                requested = RunRef(tenant, row[0], row[1]) if row is not None else None
            return StartCheck(latest=self._latest_run(tenant, workflow_id), requested=requested)

    def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        with self._one_moment():
            return self._latest_run(tenant, workflow_id)

    def execution(self, tenant: str, run_id: str) -> Execution | None:
        with self._one_moment():
            return self._execution(tenant, run_id)

    def load_run(self, tenant: str, run_id: str, fingerprint: str) -> StoredRun | None:
        with self._one_moment():
            execution = self._execution(tenant, run_id)
            if execution is None:
                return None
            row = self._row(
                "SELECT event_id, fingerprint, data FROM snapshots WHERE run_id = ? AND tenant = ? AND fingerprint = ?",
                run_id,
                tenant,
                fingerprint,
            )
            snapshot = Snapshot(event_id=row[0], fingerprint=row[1], data=row[2]) if row is not None else None
            after_id = snapshot.event_id if snapshot is not None else 0
            return StoredRun(
                execution=execution, snapshot=snapshot, tail=list(self._events_after(tenant, run_id, after_id))
            )

    def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        with self._one_moment():
            page: list[bytes] = []
            taken = 0
            for event in islice(self._events_after(tenant, run_id, after_id), limit):
                taken += len(event)
                if page and taken > max_bytes:
                    break
                page.append(event)
            return page

    def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        with self._one_moment():
            found: list[bytes] = []
            first, events = 0, list[bytes]()
            for event_id in ids:
                if not first <= event_id < first + len(events):
                    first, events = self._row_with(tenant, run_id, event_id)
                if not first <= event_id < first + len(events):
                    raise NoSuchEvent(f"run {run_id} has no event {event_id}")
                found.append(events[event_id - first])
            return found

    def due_runs(self, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]:
        wake_at, run_id = (after.wake_at, after.run.run_id) if after is not None else (-(2**63), "")
        with self._one_moment():
            rows = self._rows(
                "SELECT tenant, workflow_id, run_id, wake_at FROM open_runs "
                "WHERE wake_at IS NOT NULL AND wake_at < ? AND (wake_at, run_id) > (?, ?) "
                "ORDER BY wake_at, run_id LIMIT ?",
                before,
                wake_at,
                run_id,
                limit,
            )
            return [DueRun(run=RunRef(*run), wake_at=at) for *run, at in rows]

    def effects(self, limit: int, after: StoredEffect | None, shards: Sequence[int] | None) -> list[StoredEffect]:
        run_id, event_id = (after.run.run_id, after.effect.event_id) if after is not None else ("", 0)
        with self._one_moment():
            rows = self._rows(
                "SELECT e.tenant, e.workflow_id, e.run_id, f.event_id, f.kind, f.data FROM effects f "
                "CROSS JOIN executions e ON e.tenant = f.tenant AND e.run_id = f.run_id "
                "WHERE (f.run_id, f.event_id) > (?, ?) ORDER BY f.run_id, f.event_id LIMIT ?",
                run_id,
                event_id,
                limit,
            )
            return [
                StoredEffect(run=RunRef(*run), effect=Effect(event_id=number, kind=kind, data=data))
                for *run, number, kind, data in rows
            ]

    def queue_backlogs(self) -> list[QueueBacklog]:
        with self._one_moment():
            rows = self._rows(
                "SELECT tenant, kind, queue, count(*), min(scheduled_at) FROM tasks WHERE started = 0 "
                "GROUP BY tenant, kind, queue ORDER BY tenant, kind, queue"
            )
            return [
                QueueBacklog(queue=QueueKey(tenant, TaskKind(kind), name), depth=depth, oldest=oldest)
                for tenant, kind, name, depth, oldest in rows
            ]

    def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        with self._one_moment():
            rows = self._rows(
                "SELECT kind, queue, destination, count(*) FROM tasks WHERE tenant = ? AND started = 0 "
                "GROUP BY kind, queue, destination ORDER BY kind, queue, destination",
                tenant,
            )
            return [
                DestinationBacklog(queue=QueueKey(tenant, TaskKind(kind), name), destination=destination, depth=depth)
                for kind, name, destination, depth in rows
            ]

    def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
    ) -> list[QueuedTask]:
        place: tuple[int, int, str, int] = (-(2**63), 0, "", 0)
        if after is not None:
            place = (-after.priority, after.scheduled_at, after.run_id, after.event_id)
        with self._one_moment():
            rows = self._rows(
                "SELECT e.tenant, e.workflow_id, e.run_id, t.event_id, t.rank, t.scheduled_at, "
                "t.destination FROM tasks t "
                "CROSS JOIN executions e ON e.tenant = t.tenant AND e.run_id = t.run_id "
                "WHERE t.tenant = ? AND t.kind = ? AND t.queue = ? AND t.started = 0 "
                "AND (t.rank, t.scheduled_at, t.run_id, t.event_id) > (?, ?, ?, ?) "
                f"{_PASSING_OVER if without else ''}"
                "ORDER BY t.rank, t.scheduled_at, t.run_id, t.event_id LIMIT ?",
                queue.tenant,
                queue.kind.value,
                queue.name,
                *place,
                *([self._names.encode(without).decode()] if without else []),
                limit,
            )
            return [
                QueuedTask(TaskRef(RunRef(*run), event_id), queue, -rank, scheduled_at, destination)
                for *run, event_id, rank, scheduled_at, destination in rows
            ]

    def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        source = f"executions e INDEXED BY {_index_for(wanted)} {_OPEN}"
        order = "e.run_id"
        conditions = ["e.tenant = ?"]
        values: list[str | int] = [wanted.tenant]
        if wanted.label is not None:
            source = f"labels l CROSS JOIN {_EXECUTIONS}"
            order = "l.run_id"
            conditions.append("e.run_id = l.run_id AND l.tenant = ? AND l.name = ? AND l.value = ?")
            values += [wanted.tenant, *wanted.label]
        if wanted.parent is None:
            conditions.append("e.parent IS NULL")
        else:
            conditions.append("e.parent = ?")
            values.append(wanted.parent)
        if wanted.status is not None:
            conditions.append("e.status = ?")
            values.append(wanted.status.value)
        if wanted.workflow is not None:
            conditions.append("e.workflow = ?")
            values.append(wanted.workflow)
        if wanted.started_after is not None:
            conditions.append("e.started_at > ?")
            values.append(wanted.started_after)
        if wanted.started_before is not None:
            conditions.append("e.started_at < ?")
            values.append(wanted.started_before)
        if wanted.before_run_id is not None:
            conditions.append(f"{order} < ?")
            values.append(wanted.before_run_id)
        with self._one_moment():
            rows = self._rows(
                f"SELECT {_EXECUTION} FROM {source} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?",
                *values,
                wanted.limit,
            )
            return [self._to_execution(row) for row in rows]

    def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        with self._one_moment():
            page: list[MapResult] = []
            taken = 0
            for number, data in self._rows(
                "SELECT number, data FROM map_results "
                "WHERE run_id = ? AND map_id = ? AND status = ? AND number > ? AND tenant = ? ORDER BY number",
                run_id,
                map_id,
                status,
                after,
                tenant,
            ):
                taken += len(data)
                if page and taken > max_bytes:
                    break
                page.append(MapResult(map_id=map_id, number=number, status=status, data=data))
            return page

    def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]:
        with self._one_moment():
            return list_letters(self._connection, wanted)

    def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        with self._one_moment():
            return read_letter(self._connection, tenant, run_id, event_id)

    def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        with self._one_moment():
            row = self._row(
                "SELECT r.name, r.version, r.hash, d.text, r.registered_at FROM registrations r "
                "JOIN definitions d ON d.tenant = r.tenant AND d.hash = r.hash "
                "WHERE r.tenant = ? AND r.name = ? AND (? IS NULL OR r.version = ?) ORDER BY r.version DESC LIMIT 1",
                tenant,
                name,
                version,
                version,
            )
            if row is None:
                return None
            return Definition(name=row[0], version=row[1], hash=row[2], text=row[3], registered_at=row[4])

    def definition_text(self, tenant: str, hash: str) -> str | None:
        with self._one_moment():
            row = self._row("SELECT text FROM definitions WHERE tenant = ? AND hash = ?", tenant, hash)
            return str(row[0]) if row is not None else None

    def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        with self._one_moment():
            rows = self._rows(
                "SELECT r.name, r.version, r.registered_at FROM registrations r WHERE r.tenant = ? AND r.name > ? "
                "AND r.version = (SELECT max(version) FROM registrations WHERE tenant = r.tenant AND name = r.name) "
                "ORDER BY r.name LIMIT ?",
                tenant,
                after_name if after_name is not None else "",
                limit,
            )
            return [DefinitionEntry(name=name, version=version, registered_at=at) for name, version, at in rows]

    def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        with self._one_moment():
            row = self._row(f"{_SCHEDULES} AND schedule_id = ?", tenant, schedule_id)
            return _to_schedule(row) if row is not None else None

    def list_schedules(self, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]:
        with self._one_moment():
            page: list[StoredSchedule] = []
            taken = 0
            for row in self._rows(
                f"{_SCHEDULES} AND schedule_id > ? ORDER BY schedule_id LIMIT ?", tenant, after_id or "", limit
            ):
                schedule = _to_schedule(row)
                taken += len(schedule.data)
                if page and taken > max_bytes:
                    break
                page.append(schedule)
            return page

    def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]:
        place: tuple[int, str, str] = (-(2**63), "", "")
        if after is not None:
            place = (after.next_at, after.schedule.tenant, after.schedule.schedule_id)
        with self._one_moment():
            rows = self._rows(
                "SELECT tenant, schedule_id, next_at FROM schedules WHERE next_at IS NOT NULL AND next_at < ? "
                "AND (next_at, tenant, schedule_id) > (?, ?, ?) ORDER BY next_at, tenant, schedule_id LIMIT ?",
                before,
                *place,
                limit,
            )
            return [DueSchedule(schedule=ScheduleRef(tenant, name), next_at=at) for tenant, name, at in rows]

    def waiting_schedules(
        self, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None
    ) -> list[ScheduleRef]:
        place = (after.tenant, after.schedule_id) if after is not None else ("", "")
        with self._one_moment():
            rows = self._rows(
                "SELECT tenant, schedule_id FROM schedules WHERE waiting = 1 AND (tenant, schedule_id) > (?, ?) "
                "ORDER BY tenant, schedule_id LIMIT ?",
                *place,
                limit,
            )
            return [ScheduleRef(tenant, schedule_id) for tenant, schedule_id in rows]

    # --- rows --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        """One read transaction, whose errors say what they mean."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.rollback()
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def _rows(self, statement: str, *values: str | int | None) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(statement, values)

    def _row(self, statement: str, *values: str | int | None) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _row_with(self, tenant: str, run_id: str, event_id: int) -> tuple[int, list[bytes]]:
        """The stored row that has this event, if any has: the number of its first event, and its events."""
        row = self._row(
            "SELECT first_id, data FROM events WHERE run_id = ? AND first_id <= ? AND tenant = ? "
            "ORDER BY first_id DESC LIMIT 1",
            run_id,
            event_id,
            tenant,
        )
        return (row[0], self._events.decode(row[1])) if row is not None else (0, [])

    def _events_after(self, tenant: str, run_id: str, after_id: int) -> Iterator[bytes]:
        first, events = self._row_with(tenant, run_id, after_id + 1)
        yield from events[after_id + 1 - first :]
        for (data,) in self._rows(
            "SELECT data FROM events WHERE run_id = ? AND first_id > ? AND tenant = ? ORDER BY first_id",
            run_id,
            after_id + 1,
            tenant,
        ):
            yield from self._events.decode(data)

    def _latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        row = self._row(
            "SELECT run_id, status FROM executions INDEXED BY executions_by_workflow_id "
            "WHERE tenant = ? AND workflow_id = ? ORDER BY run_id DESC LIMIT 1",
            tenant,
            workflow_id,
        )
        return LatestRun(run_id=row[0], status=ExecutionStatus(row[1])) if row is not None else None

    def _execution(self, tenant: str, run_id: str) -> Execution | None:
        row = self._row(f"SELECT {_EXECUTION} FROM {_EXECUTIONS} WHERE e.tenant = ? AND e.run_id = ?", tenant, run_id)
        return self._to_execution(row) if row is not None else None

    def _to_execution(self, row: tuple[Any, ...]) -> Execution:
        tenant, workflow_id, run_id, shard, workflow, version, definition_hash, labels, request_id, status, *rest = row
        error, started_at, closed_at, wake_at, last_event_id, parent = rest
        return Execution(
            run=RunRef(tenant, workflow_id, run_id),
            shard=shard,
            workflow=workflow,
            version=version,
            definition_hash=definition_hash,
            labels=self._labels.decode(labels),
            request_id=request_id,
            status=ExecutionStatus(status),
            error=error,
            started_at=started_at,
            closed_at=closed_at,
            wake_at=wake_at,
            last_event_id=last_event_id,
            parent=parent,
        )


def _index_for(wanted: ExecutionFilter) -> str:
    """Left to itself, SQLite walks through all of a tenant's rows in the order that is asked for, as it expects to
    meet one that fits at once."""
    if wanted.parent is not None:
        return "executions_by_parent"
    if wanted.workflow is not None:
        return "executions_by_workflow"
    if wanted.status is not None:
        return "executions_by_status"
    return "executions_on_top"


def _to_schedule(row: tuple[Any, ...]) -> StoredSchedule:
    tenant, schedule_id, revision, next_at, waiting, data = row
    return StoredSchedule(
        schedule=ScheduleRef(tenant, schedule_id),
        revision=revision,
        next_at=next_at,
        waiting=bool(waiting),
        data=data,
    )
