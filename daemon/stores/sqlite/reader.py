"""The read lane of the SQLite store. Every query is bounded by its page and stays within one tenant, but for the
scans by which a restart takes up all work. What reads one kind of rows only is in the file of those rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from daemon.stores.faults import NoSuchEvent
from daemon.stores.loading import within
from daemon.stores.rows import (
    Definition,
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
    Effect,
    Execution,
    ExecutionFilter,
    ExpiredRuns,
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
from daemon.stores.sqlite import definitions, executions, letters, purging, queues, schedules
from daemon.stores.sqlite.failures import damaged, explain
from daemon.stores.sqlite.histories import HistoryReader, Names, Unreadable, names_of
from daemon.stores.sqlite.keys import FIRST, Key, packed, run_ref
from daemon.stores.sqlite.names import NUMBER
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef

_OF_TENANT = f"SELECT 1 FROM executions WHERE run_id = ? AND tenant = {NUMBER}"
_ROW_WITH = """
SELECT first_id, dictionary, data FROM events WHERE run_id = ? AND first_id <= ? ORDER BY first_id DESC LIMIT 1
"""
_ROWS_AFTER = "SELECT dictionary, data FROM events WHERE run_id = ? AND first_id > ? ORDER BY first_id"


class SqliteReader:
    """Implements `Reader` over one connection in autocommit mode that cannot write."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._histories = HistoryReader(connection)

    def close(self) -> None:
        self._connection.close()

    # --- executions --------------------------------------------------------------------------------------------------

    def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck:
        with self._one_moment() as connection:
            requested = executions.run_of_request(connection, tenant, request_id) if request_id is not None else None
            return StartCheck(latest=executions.latest_run(connection, tenant, workflow_id), requested=requested)

    def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        with self._one_moment() as connection:
            return executions.latest_run(connection, tenant, workflow_id)

    def execution(self, tenant: str, run_id: str) -> Execution | None:
        with self._one_moment() as connection:
            return executions.read_execution(connection, tenant, run_id)

    def due_runs(self, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]:
        with self._one_moment() as connection:
            return executions.due_runs(connection, before, limit, after)

    def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None, shards: Sequence[int] | None
    ) -> ExpiredRuns:
        with self._one_moment() as connection:
            return purging.expired_runs(connection, before, until, limit, after)

    def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        with self._one_moment() as connection:
            return executions.list_executions(connection, wanted)

    # --- histories ---------------------------------------------------------------------------------------------------

    def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]:
        with self._one_moment():
            return within(max_bytes, (self._load(ref, fingerprint) for ref in runs))

    def _load(self, ref: RunRef, fingerprint: str) -> StoredRun | None:
        execution = executions.read_execution(self._connection, ref.tenant, ref.run_id)
        if execution is None:
            return None
        key = packed(ref.run_id)
        row = self._row(
            "SELECT event_id, fingerprint, data FROM snapshots WHERE run_id = ? AND fingerprint = ?", key, fingerprint
        )
        snapshot = Snapshot(event_id=row[0], fingerprint=row[1], data=row[2]) if row is not None else None
        after_id = snapshot.event_id if snapshot is not None else 0
        run = execution.run
        names = (run.run_id, run.workflow_id, execution.definition_hash, execution.request_id, execution.parent)
        tail = list(self._events_after(key, after_id, lambda: names))
        return StoredRun(execution=execution, snapshot=snapshot, tail=tail)

    def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        key = packed(run_id)
        with self._one_moment():
            page: list[bytes] = []
            taken = 0
            if self._row(_OF_TENANT, key, tenant) is None:
                return page
            for event in islice(self._events_after(key, after_id, self._names(key)), limit):
                taken += len(event)
                if page and taken > max_bytes:
                    break
                page.append(event)
            return page

    def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        key = packed(run_id)
        with self._one_moment():
            there = self._row(_OF_TENANT, key, tenant) is not None
            found: list[bytes] = []
            first, events = 0, list[bytes]()
            for event_id in ids:
                if there and not first <= event_id < first + len(events):
                    first, events = self._row_with(key, event_id, self._names(key))
                if not first <= event_id < first + len(events):
                    raise NoSuchEvent(f"run {run_id} has no event {event_id}")
                found.append(events[event_id - first])
            return found

    def _row_with(self, key: Key, event_id: int, names: Callable[[], Names]) -> tuple[int, list[bytes]]:
        """The stored row that has this event, if any has: the number of its first event, and its events."""
        row = self._row(_ROW_WITH, key, event_id)
        return (row[0], self._histories.events(row[1], row[2], names)) if row is not None else (0, [])

    def _events_after(self, key: Key, after_id: int, names: Callable[[], Names]) -> Iterator[bytes]:
        if after_id:
            first, events = self._row_with(key, after_id + 1, names)
            yield from events[after_id + 1 - first :]
            after_id += 1
        for dictionary, data in self._rows(_ROWS_AFTER, key, after_id):
            yield from self._histories.events(dictionary, data, names)

    def _names(self, key: Key) -> Callable[[], Names]:
        return lambda: names_of(self._connection, key)

    # --- what is to be done ------------------------------------------------------------------------------------------

    def effects(self, limit: int, after: StoredEffect | None, shards: Sequence[int] | None) -> list[StoredEffect]:
        place: tuple[Key, int] = (FIRST, 0)
        if after is not None:
            place = (packed(after.run.run_id), after.effect.event_id)
        with self._one_moment():
            rows = self._rows(
                "SELECT f.tenant, e.workflow_id, f.run_id, f.event_id, f.kind, f.data FROM effects f "
                "CROSS JOIN executions e ON e.run_id = f.run_id "
                "WHERE (f.run_id, f.event_id) > (?, ?) ORDER BY f.run_id, f.event_id LIMIT ?",
                *place,
                limit,
            )
            return [
                StoredEffect(run=run_ref(*run), effect=Effect(event_id=number, kind=kind, data=data))
                for *run, number, kind, data in rows
            ]

    def queue_backlogs(self) -> list[QueueBacklog]:
        with self._one_moment() as connection:
            return queues.queue_backlogs(connection)

    def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        with self._one_moment() as connection:
            return queues.destination_backlogs(connection, tenant)

    def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
    ) -> list[QueuedTask]:
        with self._one_moment() as connection:
            return queues.waiting_tasks(connection, queue, limit, after, without)

    def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        with self._one_moment():
            page: list[MapResult] = []
            taken = 0
            for number, data in self._rows(
                "SELECT number, data FROM map_results "
                "WHERE run_id = ? AND map_id = ? AND status = ? AND number > ? AND tenant = ? ORDER BY number",
                packed(run_id),
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
        with self._one_moment() as connection:
            return letters.list_letters(connection, wanted)

    def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        with self._one_moment() as connection:
            return letters.read_letter(connection, tenant, run_id, event_id)

    # --- definitions and schedules -----------------------------------------------------------------------------------

    def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        with self._one_moment() as connection:
            return definitions.read_definition(connection, tenant, name, version)

    def definition_text(self, tenant: str, hash: str) -> str | None:
        with self._one_moment() as connection:
            return definitions.read_text(connection, tenant, hash)

    def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        with self._one_moment() as connection:
            return definitions.list_definitions(connection, tenant, limit, after_name)

    def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        with self._one_moment() as connection:
            return schedules.read_schedule(connection, tenant, schedule_id)

    def list_schedules(self, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]:
        with self._one_moment() as connection:
            return schedules.list_schedules(connection, tenant, limit, after_id, max_bytes)

    def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]:
        with self._one_moment() as connection:
            return schedules.due_schedules(connection, before, limit, after)

    def waiting_schedules(
        self, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None
    ) -> list[ScheduleRef]:
        with self._one_moment() as connection:
            return schedules.waiting_schedules(connection, limit, after)

    # --- rows --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _one_moment(self) -> Iterator[sqlite3.Connection]:
        """One read transaction, whose errors say what they mean."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.rollback()
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        except Unreadable as unreadable:
            raise damaged(self._path, str(unreadable)) from unreadable

    def _rows(self, statement: str, *values: Key | int | None) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(statement, values)

    def _row(self, statement: str, *values: Key | int | None) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row
