"""The write lane of the SQLite store: one batch, one transaction.

A batch is written statement by statement over all of its runs, not run by run: one `executemany` costs a third of as
many `execute`s. Updates come before insertions, so that a run which closes makes room for the next of its
`workflow_id`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

from daemon.stores.batches import check_batch
from daemon.stores.faults import BatchRefused, Fenced, StoreUnusable
from daemon.stores.rows import Attendance, Batch, RunWrite, ShardEpochs, Tidied
from daemon.stores.sqlite.definitions import write_definitions
from daemon.stores.sqlite.failures import explain
from daemon.stores.sqlite.histories import HistoryWriter
from daemon.stores.sqlite.keys import NUMBERS, Key, packed, unpacked, workflow_key
from daemon.stores.sqlite.letters import write_letters
from daemon.stores.sqlite.names import Names
from daemon.stores.sqlite.purging import purge_runs
from daemon.stores.sqlite.queues import write_tasks
from daemon.stores.sqlite.schedules import write_schedule
from daemon.stores.sqlite.sweeping import Sweep
from enginekit.messages.links import Millis
from enginekit.messages.status import ExecutionStatus

_Value: TypeAlias = Key | int | None

_ROW_BYTES = 64 * 1024

_NOT_SHARED = 'an SQLite file belongs to one daemon; several need [store] url = "postgresql://..."'

_REFUSALS = {
    "executions.run_id": "a run of this batch exists already",
    "open_runs.tenant, open_runs.workflow_id": "another run of this workflow_id is open",
    "executions.tenant, executions.request_id": "this request_id has started a run already",
    "registrations.tenant, registrations.name, registrations.version": "this name has this version already",
    "events.run_id, events.first_id": "an event of this number is there already",
    "tasks.run_id, tasks.event_id": "a task of this batch is there already",
    "map_results.run_id, map_results.map_id, map_results.status, map_results.number": "a result is there already",
    "effects.run_id, effects.event_id": "an effect of this batch is there already",
    "schedules.tenant, schedules.schedule_id": "a schedule of this id is there already",
}

_RUNNING = NUMBERS[ExecutionStatus.RUNNING]

_CREATE_RUN = """
INSERT INTO executions (run_id, tenant, workflow_id, shard, status, error, started_at, closed_at, last_event_id,
                        workflow, version, definition, request_id, labels, parent)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_OPEN_RUN = "INSERT INTO open_runs (run_id, tenant, workflow_id, last_event_id, wake_at) VALUES (?, ?, ?, ?, ?)"
_APPEND = """
UPDATE open_runs SET last_event_id = ?, wake_at = ?
WHERE run_id = ? AND last_event_id = ? AND tenant = ? AND workflow_id IS ?
"""
_MOVE_WAKE_UP = "UPDATE open_runs SET wake_at = ? WHERE run_id = ? AND tenant = ? AND workflow_id IS ?"
_END_RUN = "DELETE FROM open_runs WHERE run_id = ? AND last_event_id = ? AND tenant = ? AND workflow_id IS ?"
_CLOSE_RUN = "UPDATE executions SET status = ?, error = ?, closed_at = ?, last_event_id = ? WHERE run_id = ?"
_REOPEN_RUN = """
UPDATE executions SET status = ?, error = NULL, closed_at = NULL, last_event_id = NULL
WHERE run_id = ? AND tenant = ? AND workflow_id IS ? AND last_event_id = ? AND closed_at IS NOT NULL
"""
_LABEL = "INSERT INTO labels (tenant, name, value, run_id) VALUES (?, ?, ?, ?)"
_EVENTS = "INSERT INTO events (run_id, first_id, dictionary, data) VALUES (?, ?, ?, ?)"
_SNAPSHOT = """
INSERT INTO snapshots (run_id, event_id, fingerprint, data) VALUES (?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET event_id = excluded.event_id, fingerprint = excluded.fingerprint,
                                   data = excluded.data
"""
_ADD_EFFECT = "INSERT INTO effects (run_id, event_id, tenant, kind, data) VALUES (?, ?, ?, ?, ?)"
_REMOVE_EFFECT = "DELETE FROM effects WHERE run_id = ? AND event_id = ? AND tenant = ?"
_ADD_RESULT = "INSERT INTO map_results (run_id, map_id, status, number, tenant, data) VALUES (?, ?, ?, ?, ?, ?)"
_REMOVE_RESULTS = "DELETE FROM map_results WHERE run_id = ? AND map_id = ? AND tenant = ?"


class SqliteWriter:
    """Implements `Writer` over one connection in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection, path: Path, shards: int, token_key: bytes) -> None:
        self._connection = connection
        self._path = path
        self._shards = shards
        self._token_key = token_key
        self._labels = msgspec.json.Encoder()
        self._names = Names(connection)
        self._histories = HistoryWriter(connection)
        self._sweep = Sweep(connection, self._names)

    def take_shards(self) -> ShardEpochs:
        try:
            with self._all_or_nothing():
                self._many(
                    "INSERT INTO shards (shard, epoch) VALUES (?, 0) ON CONFLICT (shard) DO NOTHING",
                    [(shard,) for shard in range(self._shards)],
                )
                self._connection.execute("UPDATE shards SET epoch = epoch + 1")
                epochs = dict(self._connection.execute("SELECT shard, epoch FROM shards ORDER BY shard"))
                newest = self._connection.execute("SELECT max(run_id) FROM executions").fetchone()[0]
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        newest_run_id = None if newest is None else unpacked(newest)
        return ShardEpochs(epochs=epochs, token_key=self._token_key, newest_run_id=newest_run_id)

    # A file belongs to one daemon: whoever has its lock has all of its shards.

    def attend(self, owner: str, lease_seconds: float) -> Attendance:
        raise StoreUnusable(_NOT_SHARED)

    def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs:
        raise StoreUnusable(_NOT_SHARED)

    def release_shards(self, owner: str, epochs: dict[int, int]) -> None:
        raise StoreUnusable(_NOT_SHARED)

    def leave(self, owner: str) -> None:
        raise StoreUnusable(_NOT_SHARED)

    def commit(self, batch: Batch) -> None:
        check_batch(batch)
        try:
            with self._all_or_nothing():
                self._check_fence(batch)
                self._write_runs(batch.runs)
                write_definitions(self._connection, batch.definitions)
                for schedule in batch.all_schedules():
                    write_schedule(self._connection, schedule)
                if purge_runs(self._connection, batch.purges):
                    self._sweep.purged()
        except sqlite3.IntegrityError as error:
            raise _refusal(error) from error
        except (sqlite3.DataError, OverflowError) as error:
            raise BatchRefused(f"a value of this batch is too large for the store: {error}") from error
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def tidy(self, now: Millis) -> Tidied:
        """The room that purged runs leave in the file is written over by the next ones."""
        try:
            with self._all_or_nothing():
                return self._sweep.step()
        except sqlite3.Error as error:
            self._sweep = Sweep(self._connection, self._names)
            raise explain(error, self._path) from error

    def close(self) -> None:
        self._connection.close()

    def _check_fence(self, batch: Batch) -> None:
        owned = batch.owned()
        if not owned:
            return
        epochs: dict[int, int] = dict(self._connection.execute("SELECT shard, epoch FROM shards"))
        fenced = {shard for shard, epoch in owned if epochs.get(shard) != epoch}
        if fenced:
            raise Fenced(sorted(fenced))

    def _write_runs(self, runs: list[RunWrite]) -> None:
        self._append([write for write in runs if write.created is None and write.events and not write.reopened])
        reopened = [write for write in runs if write.reopened]
        for write in reopened:
            self._reopen(write)
        self._append(reopened)
        self._create_runs([write for write in runs if write.created is not None])
        for write in runs:
            if not write.events:
                self._move_wake_up(write)
        self._many(_EVENTS, [row for write in runs for row in self._event_rows(write)])
        self._many(
            _SNAPSHOT,
            [
                (packed(w.run.run_id), w.snapshot.event_id, w.snapshot.fingerprint, w.snapshot.data)
                for w in runs
                if w.snapshot is not None
            ],
        )
        write_tasks(self._connection, runs)
        self._write_effects(runs)
        self._write_results(runs)
        write_letters(self._connection, runs)

    def _place(self, write: RunWrite) -> tuple[Key, int, Key | None]:
        """How a run is named in its rows: run_id, tenant, workflow_id."""
        return packed(write.run.run_id), self._names.number(write.run.tenant), workflow_key(write.run)

    def _reopen(self, write: RunWrite) -> None:
        """A row among the open runs, as it was before it closed; what follows is that of any open run."""
        place, last = self._place(write), write.first_event_id - 1
        if self._connection.execute(_REOPEN_RUN, (_RUNNING, *place, last)).rowcount == 0:
            raise BatchRefused(
                f"run {write.run.run_id}: it is not closed with event {last}, and cannot be opened again"
            )
        self._connection.execute(_OPEN_RUN, (*place, last, None))

    def _append(self, runs: list[RunWrite]) -> None:
        going_on: list[tuple[_Value, ...]] = []
        ended: list[tuple[_Value, ...]] = []
        closed: list[tuple[_Value, ...]] = []
        for write in runs:
            closing = write.closing
            run_id, tenant, workflow_id = self._place(write)
            last = write.first_event_id - 1
            now_last = last + len(write.events)
            if closing is None:
                going_on.append((now_last, write.wake_at, run_id, last, tenant, workflow_id))
            else:
                ended.append((run_id, last, tenant, workflow_id))
                closed.append((NUMBERS[closing.status], closing.error, closing.closed_at, now_last, run_id))
        if self._many(_END_RUN, ended) + self._many(_APPEND, going_on) != len(runs):
            raise BatchRefused("events of this batch do not follow their run's last one, or the run is not open")
        self._many(_CLOSE_RUN, closed)

    def _create_runs(self, runs: list[RunWrite]) -> None:
        created: list[tuple[_Value, ...]] = []
        opened: list[tuple[_Value, ...]] = []
        labels: list[tuple[_Value, ...]] = []
        for write in runs:
            new, closing = write.created, write.closing
            if new is None:
                continue
            run_id, tenant, _ = place = self._place(write)
            if closing is None:
                opened.append((*place, len(write.events), write.wake_at))
            created.append(
                (
                    *place,
                    write.shard,
                    _RUNNING if closing is None else NUMBERS[closing.status],
                    None if closing is None else closing.error,
                    new.started_at,
                    None if closing is None else closing.closed_at,
                    None if closing is None else len(write.events),
                    None if new.workflow is None else self._names.number(new.workflow),
                    new.version,
                    self._names.number(new.definition_hash),
                    new.request_id,
                    self._labels.encode(new.labels).decode() if new.labels else None,
                    None if new.parent is None else packed(new.parent),
                )
            )
            labels += [(tenant, name, value, run_id) for name, value in new.labels.items()]
        self._many(_CREATE_RUN, created)
        self._many(_OPEN_RUN, opened)
        self._many(_LABEL, labels)

    def _move_wake_up(self, write: RunWrite) -> None:
        place = self._place(write)
        if self._connection.execute(_MOVE_WAKE_UP, (write.wake_at, *place)).rowcount == 0:
            known = self._connection.execute(
                "SELECT 1 FROM executions WHERE run_id = ? AND tenant = ? AND workflow_id IS ?", place
            )
            if known.fetchone() is None:
                raise BatchRefused(f"run {write.run.run_id} of {write.run.workflow_id!r} does not exist")

    def _event_rows(self, write: RunWrite) -> Iterator[tuple[_Value, ...]]:
        """Nearly always one. Many or large events are split, so that reading one of them reads little else."""
        run, new, events, first = write.run, write.created, write.events, write.first_event_id
        key = packed(run.run_id)
        names: tuple[str | None, ...] = ()
        if new is not None:
            names = (run.run_id, run.workflow_id, new.definition_hash, new.request_id, new.parent)
        if sum(map(len, events)) <= _ROW_BYTES:
            if events:
                yield key, first, *self._histories.row(events, names)
            return
        start = size = 0
        for index, event in enumerate(events):
            size += len(event)
            if size > _ROW_BYTES and index > start:
                yield key, first + start, *self._histories.row(events[start:index], names)
                start, size = index, len(event)
        yield key, first + start, *self._histories.row(events[start:], names)

    def _write_effects(self, runs: list[RunWrite]) -> None:
        self._many(
            _ADD_EFFECT,
            [(packed(w.run.run_id), e.event_id, w.run.tenant, e.kind, e.data) for w in runs for e in w.effects_added],
        )
        self._many(_REMOVE_EFFECT, [(packed(w.run.run_id), n, w.run.tenant) for w in runs for n in w.effects_removed])

    def _write_results(self, runs: list[RunWrite]) -> None:
        self._many(
            _ADD_RESULT,
            [
                (packed(w.run.run_id), r.map_id, r.status, r.number, w.run.tenant, r.data)
                for w in runs
                for r in w.results_added
            ],
        )
        self._many(_REMOVE_RESULTS, [(packed(w.run.run_id), n, w.run.tenant) for w in runs for n in w.results_removed])

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """One transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._names.forget()
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    def _many(self, statement: str, rows: list[tuple[_Value, ...]]) -> int:
        return self._connection.executemany(statement, rows).rowcount if rows else 0


def _refusal(error: sqlite3.IntegrityError) -> BatchRefused:
    message = str(error)
    for columns, meaning in _REFUSALS.items():
        if message.endswith(columns):
            return BatchRefused(meaning)
    return BatchRefused(f"the store refuses this batch: {message}")
