"""The read lane of the PostgreSQL store: one round trip a read. Every query is bounded by its page and stays within one
tenant, but for the scans by which a restart takes up all work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import psycopg

from daemon.stores.faults import NoSuchEvent
from daemon.stores.loading import within
from daemon.stores.postgres import lists, purging
from daemon.stores.postgres.columns import run_id_bytes
from daemon.stores.postgres.failures import explained
from daemon.stores.postgres.lists import Row, Rows
from daemon.stores.rows import (
    Definition,
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
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
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef
from enginekit.messages.status import ExecutionStatus

_CHUNK = 64
"""Rows of unknown size that are fetched at once."""
_LOADS = 16
"""Runs that are loaded in one round trip: however large they are, all of them are in memory."""

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_LATEST = """
SELECT run_id::text, status FROM engine.executions WHERE tenant = %s AND workflow_id = %s ORDER BY run_id DESC LIMIT 1
"""
_REQUESTED = "SELECT workflow_id, run_id::text FROM engine.executions WHERE tenant = %s AND request_id = %s"
_EXECUTION = f"SELECT {lists.EXECUTION} FROM {lists.EXECUTIONS} WHERE e.tenant = %s AND e.run_id = %s::uuid"
_SNAPSHOT = """
SELECT event_id, fingerprint, data FROM engine.snapshots WHERE tenant = %s AND run_id = %s::uuid AND fingerprint = %s
"""
_HAVING = "SELECT max(first_id) FROM engine.events WHERE tenant = %s AND run_id = %s::uuid AND first_id <= "
_EVENTS = f"""
SELECT first_id, data FROM engine.events
WHERE tenant = %s AND run_id = %s::uuid AND first_id >= coalesce(({_HAVING} %s), 0)
ORDER BY first_id LIMIT %s
"""
_MORE_EVENTS = """
SELECT first_id, data FROM engine.events WHERE tenant = %s AND run_id = %s::uuid AND first_id > %s
ORDER BY first_id LIMIT %s
"""
_TAIL = f"""
SELECT first_id, data FROM engine.events
WHERE tenant = %s AND run_id = %s::uuid AND first_id >= coalesce(({_HAVING} 1 + coalesce((
    SELECT event_id FROM engine.snapshots WHERE tenant = %s AND run_id = %s::uuid AND fingerprint = %s), 0)), 0)
ORDER BY first_id
"""
_EVENTS_WITH = """
WITH picked AS (SELECT DISTINCT (SELECT max(first_id) FROM engine.events
    WHERE tenant = %s AND run_id = %s::uuid AND first_id <= wanted) AS first_id FROM unnest(%s::bigint[]) AS w(wanted))
SELECT e.first_id, e.data FROM picked p JOIN engine.events e
    ON e.tenant = %s AND e.run_id = %s::uuid AND e.first_id = p.first_id ORDER BY e.first_id
"""
_RESULTS = """
SELECT number, data FROM engine.map_results
WHERE tenant = %s AND run_id = %s::uuid AND map_id = %s AND status = %s AND number > %s ORDER BY number LIMIT %s
"""
_DEFINITION = """
SELECT r.name, r.version, r.hash, d.text, r.registered_at FROM engine.registrations r
JOIN engine.definitions d ON d.tenant = r.tenant AND d.hash = r.hash
WHERE r.tenant = %s AND r.name = %s AND (%s::bigint IS NULL OR r.version = %s) ORDER BY r.version DESC LIMIT 1
"""


class PostgresReader:
    """Implements `Reader` over one connection in autocommit mode. A name that is no run's has no rows."""

    def __init__(self, connection: psycopg.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._events = msgspec.msgpack.Decoder(list[bytes])

    def close(self) -> None:
        self._connection.close()

    def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck:
        if request_id is None:
            return StartCheck(latest=self.latest_run(tenant, workflow_id), requested=None)
        latest, requested = self._one_moment((_LATEST, (tenant, workflow_id)), (_REQUESTED, (tenant, request_id)))
        return StartCheck(latest=_latest(latest), requested=RunRef(tenant, *requested[0]) if requested else None)

    def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        return _latest(self._rows(_LATEST, (tenant, workflow_id)))

    def execution(self, tenant: str, run_id: str) -> Execution | None:
        if run_id_bytes(run_id) is None:
            return None
        rows = self._rows(_EXECUTION, (tenant, run_id))
        return lists.to_execution(rows[0]) if rows else None

    def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]:
        some = (runs[first : first + _LOADS] for first in range(0, len(runs), _LOADS))
        return within(max_bytes, (run for few in some for run in self._load(few, fingerprint)))

    def _load(self, runs: Sequence[RunRef], fingerprint: str) -> list[StoredRun | None]:
        queries: list[tuple[str, Sequence[object]]] = []
        for ref in runs:
            if run_id_bytes(ref.run_id) is not None:
                run = (ref.tenant, ref.run_id)
                queries.append((_EXECUTION, run))
                queries.append((_SNAPSHOT, (*run, fingerprint)))
                queries.append((_TAIL, (*run, *run, *run, fingerprint)))
        rows = iter(self._one_moment(*queries))
        return [
            None if run_id_bytes(ref.run_id) is None else self._stored(next(rows), next(rows), next(rows))
            for ref in runs
        ]

    def _stored(self, executions: Rows, snapshots: Rows, tail: Rows) -> StoredRun | None:
        if not executions:
            return None
        snapshot = None
        if snapshots:
            event_id, name, data = snapshots[0]
            snapshot = Snapshot(event_id=event_id, fingerprint=name, data=data)
        after_id = snapshot.event_id if snapshot is not None else 0
        return StoredRun(
            execution=lists.to_execution(executions[0]), snapshot=snapshot, tail=list(self._behind(tail, after_id))
        )

    def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        if run_id_bytes(run_id) is None:
            return []
        page: list[bytes] = []
        taken = 0
        for event in islice(self._events_after(tenant, run_id, after_id), limit):
            taken += len(event)
            if page and taken > max_bytes:
                break
            page.append(event)
        return page

    def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        run = (tenant, run_id)
        found: dict[int, bytes] = {}
        if ids and run_id_bytes(run_id) is not None:
            for first, data in self._rows(_EVENTS_WITH, (*run, ids, *run)):
                found.update(enumerate(self._events.decode(data), first))
        for event_id in ids:
            if event_id not in found:
                raise NoSuchEvent(f"run {run_id} has no event {event_id}")
        return [found[event_id] for event_id in ids]

    def due_runs(self, before: Millis, limit: int, after: DueRun | None) -> list[DueRun]:
        return lists.due_runs(self._rows, before, limit, after)

    def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None, shards: Sequence[int] | None
    ) -> ExpiredRuns:
        return purging.expired_runs(self._rows, before, until, limit, after, shards)

    def effects(self, limit: int, after: StoredEffect | None, shards: Sequence[int] | None) -> list[StoredEffect]:
        return lists.effects(self._rows, limit, after, shards)

    def queue_backlogs(self) -> list[QueueBacklog]:
        return lists.queue_backlogs(self._rows)

    def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        return lists.destination_backlogs(self._rows, tenant)

    def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None, without: Sequence[str]
    ) -> list[QueuedTask]:
        return lists.waiting_tasks(self._rows, queue, limit, after, without)

    def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        return lists.list_executions(self._rows, wanted)

    def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        if run_id_bytes(run_id) is None:
            return []
        page: list[MapResult] = []
        taken = 0
        for number, data in self._chunks(
            lambda last: self._rows(
                _RESULTS, (tenant, run_id, map_id, status, after if last is None else last[0], _CHUNK)
            )
        ):
            taken += len(data)
            if page and taken > max_bytes:
                break
            page.append(MapResult(map_id=map_id, number=number, status=status, data=data))
        return page

    def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]:
        return lists.dead_letters(self._rows, wanted)

    def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        return lists.dead_letter(self._rows, tenant, run_id, event_id) if run_id_bytes(run_id) is not None else None

    def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        rows = self._rows(_DEFINITION, (tenant, name, version, version))
        if not rows:
            return None
        name, found, hash, text, registered_at = rows[0]
        return Definition(name=name, version=found, hash=hash, text=text, registered_at=registered_at)

    def definition_text(self, tenant: str, hash: str) -> str | None:
        rows = self._rows("SELECT text FROM engine.definitions WHERE tenant = %s AND hash = %s", (tenant, hash))
        return str(rows[0][0]) if rows else None

    def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        return lists.list_definitions(self._rows, tenant, limit, after_name)

    def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        rows = self._rows(f"{lists.SCHEDULES} AND schedule_id = %s", (tenant, schedule_id))
        return lists.to_schedule(rows[0]) if rows else None

    def list_schedules(self, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]:
        return lists.list_schedules(self._rows, tenant, limit, after_id, max_bytes)

    def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]:
        return lists.due_schedules(self._rows, before, limit, after)

    def waiting_schedules(
        self, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None
    ) -> list[ScheduleRef]:
        return lists.waiting_schedules(self._rows, limit, after, shards)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _rows(self, statement: str, values: Sequence[object] = ()) -> Rows:
        with explained(self._connection, self._name), self._connection.cursor(binary=True) as cursor:
            try:
                return cursor.execute(statement, values).fetchall()
            except psycopg.DataError:
                return []  # Asked for by a value that no row can have, as a text with U+0000.

    def _one_moment(self, *queries: tuple[str, Sequence[object]]) -> list[Rows]:
        """The rows of several queries, answered from one moment in one round trip."""
        with explained(self._connection, self._name):
            try:
                with self._connection.pipeline():
                    self._connection.execute(_BEGIN)
                    cursors = [self._connection.cursor(binary=True).execute(*query) for query in queries]
                    self._connection.execute("COMMIT")
            except BaseException:
                if not self._connection.closed:
                    self._connection.rollback()
                raise
            return [cursor.fetchall() for cursor in cursors]

    def _chunks(self, fetch: Callable[[Row | None], Rows]) -> Iterator[Row]:
        """Rows chunk by chunk, each behind the last row of the one before."""
        last: Row | None = None
        while True:
            rows = fetch(last)
            yield from rows
            if len(rows) < _CHUNK:
                return
            last = rows[-1]

    def _events_after(self, tenant: str, run_id: str, after_id: int) -> Iterator[bytes]:
        """What is there does not change, and what is added comes behind it: chunks read one after the other are as
        good as read in one moment."""
        run = (tenant, run_id)

        def fetch(last: Row | None) -> Rows:
            if last is not None:
                return self._rows(_MORE_EVENTS, (*run, last[0], _CHUNK))
            return self._rows(_EVENTS, (*run, *run, after_id + 1, _CHUNK))

        yield from self._behind(self._chunks(fetch), after_id)

    def _behind(self, rows: Iterator[Row] | Rows, after_id: int) -> Iterator[bytes]:
        for first, data in rows:
            events = self._events.decode(data)
            yield from events[after_id + 1 - first :] if first <= after_id else events


def _latest(rows: list[tuple[Any, ...]]) -> LatestRun | None:
    return LatestRun(run_id=rows[0][0], status=ExecutionStatus(rows[0][1])) if rows else None
