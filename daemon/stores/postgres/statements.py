"""A batch as the statements that write it: each over all of its runs, its rows as columns.

Updates come before insertions, so that a run which closes makes room for the next of its `workflow_id`. A statement
that does not find what it has to change raises in the database (`engine.refuse`). Nothing is sent from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from daemon.stores.postgres.columns import Column, Value, columns, legible
from daemon.stores.rows import Batch, DefinitionWrite, RunWrite, ScheduleWrite

Statement: TypeAlias = tuple[str, list[Column]]

_ROW_BYTES = 64 * 1024
"""Events of one commit beyond this go into several rows, so that reading one of them reads little else."""


def _checked(change: str, wanted: str, found: str, culprit: str, reason: str) -> str:
    """`change` (which makes `found`) has to find all that is `wanted`."""
    return f"""
WITH wanted AS (SELECT * FROM unnest({", ".join(["%s"] * (wanted.count(",") + 1))}) AS w({wanted})),
{change}
SELECT engine.refuse('{reason}', (SELECT {culprit} FROM wanted w WHERE w.{found} IN
        (SELECT {found} FROM wanted EXCEPT SELECT {found} FROM changed) LIMIT 1))
WHERE (SELECT count(*) FROM changed) <> (SELECT count(*) FROM wanted)
"""


_RUN = "'run ' || w.run_id"
_FOLLOWS = """o.tenant = w.tenant AND o.run_id = w.run_id AND o.workflow_id = w.workflow_id
        AND o.last_event_id = w.last_id"""
_NOT_FOLLOWING = "its events do not follow its last one, or it is not open"

_APPEND = _checked(
    f"""changed AS (UPDATE engine.open_runs o SET last_event_id = w.now_last, wake_at = w.wake_at FROM wanted w
    WHERE {_FOLLOWS} RETURNING o.run_id)""",
    "tenant, workflow_id, run_id, last_id, now_last, wake_at",
    "run_id",
    _RUN,
    _NOT_FOLLOWING,
)
_CLOSE = _checked(
    f"""changed AS (DELETE FROM engine.open_runs o USING wanted w WHERE {_FOLLOWS} RETURNING o.run_id),
closed AS (UPDATE engine.executions e
    SET status = w.status, error = w.error, closed_at = w.closed_at, last_event_id = w.now_last
    FROM wanted w WHERE e.tenant = w.tenant AND e.run_id = w.run_id)""",
    "tenant, workflow_id, run_id, last_id, now_last, status, error, closed_at",
    "run_id",
    _RUN,
    _NOT_FOLLOWING,
)
_REOPEN = _checked(
    """changed AS (UPDATE engine.executions e
    SET status = 'RUNNING', error = NULL, closed_at = NULL, last_event_id = NULL FROM wanted w
    WHERE e.tenant = w.tenant AND e.run_id = w.run_id AND e.workflow_id = w.workflow_id
        AND e.last_event_id = w.last_id AND e.closed_at IS NOT NULL RETURNING e.run_id),
opened AS (INSERT INTO engine.open_runs (tenant, workflow_id, run_id, last_event_id)
    SELECT w.tenant, w.workflow_id, w.run_id, w.last_id FROM wanted w JOIN changed c ON c.run_id = w.run_id)""",
    "tenant, workflow_id, run_id, last_id",
    "run_id",
    _RUN,
    "it is not closed with the event before these, and cannot be opened again",
)
_CREATE = """
INSERT INTO engine.executions (tenant, run_id, workflow_id, shard, status, error, started_at, closed_at, last_event_id,
                               workflow, version, definition_hash, request_id, labels, parent)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_OPEN = """
INSERT INTO engine.open_runs (tenant, workflow_id, run_id, last_event_id, wake_at)
SELECT * FROM unnest(%s, %s, %s, %s, %s)
"""
_LABEL = "INSERT INTO engine.labels (tenant, name, value, run_id) SELECT * FROM unnest(%s, %s, %s, %s)"
_WAKE = _checked(
    """moved AS (UPDATE engine.open_runs o SET wake_at = w.wake_at FROM wanted w
    WHERE o.tenant = w.tenant AND o.run_id = w.run_id AND o.workflow_id = w.workflow_id
        AND o.wake_at IS DISTINCT FROM w.wake_at),
changed AS (SELECT w.run_id FROM wanted w JOIN engine.executions e
    ON e.tenant = w.tenant AND e.run_id = w.run_id AND e.workflow_id = w.workflow_id)""",
    "tenant, workflow_id, run_id, wake_at",
    "run_id",
    _RUN,
    "it does not exist",
)
_EVENTS = "INSERT INTO engine.events (tenant, run_id, first_id, data) SELECT * FROM unnest(%s, %s, %s, %s)"
_SNAPSHOT = """
INSERT INTO engine.snapshots (tenant, run_id, event_id, fingerprint, data) SELECT * FROM unnest(%s, %s, %s, %s, %s)
ON CONFLICT (tenant, run_id) DO UPDATE
    SET event_id = excluded.event_id, fingerprint = excluded.fingerprint, data = excluded.data
"""
_ADD_TASK = """
INSERT INTO engine.tasks (tenant, run_id, event_id, workflow_id, kind, queue, rank, scheduled_at, destination)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_NUMBERED = "unnest(%s, %s, %s) AS w(tenant, run_id, number) WHERE x.tenant = w.tenant AND x.run_id = w.run_id"
_START_TASK = f"UPDATE engine.tasks x SET started = true FROM {_NUMBERED} AND x.event_id = w.number AND NOT x.started"
_RETURN_TASK = f"UPDATE engine.tasks x SET started = false FROM {_NUMBERED} AND x.event_id = w.number AND x.started"
_REMOVE_TASK = f"DELETE FROM engine.tasks x USING {_NUMBERED} AND x.event_id = w.number"
_ADD_EFFECT = """
INSERT INTO engine.effects (tenant, run_id, event_id, workflow_id, shard, kind, data)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s)
"""
_REMOVE_EFFECT = f"DELETE FROM engine.effects x USING {_NUMBERED} AND x.event_id = w.number"
_ADD_RESULT = """
INSERT INTO engine.map_results (tenant, run_id, map_id, status, number, data)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s)
"""
_REMOVE_RESULTS = f"DELETE FROM engine.map_results x USING {_NUMBERED} AND x.map_id = w.number"
_REMOVE_LETTER = f"DELETE FROM engine.dead_letters x USING {_NUMBERED} AND x.event_id = w.number"
_ADD_LETTER = """
INSERT INTO engine.dead_letters (tenant, run_id, event_id, workflow_id, workflow, node, error, at, data)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_DEFINITION = """
INSERT INTO engine.definitions (tenant, hash, text) SELECT * FROM unnest(%s, %s, %s)
ON CONFLICT (tenant, hash) DO NOTHING
"""
_REGISTRATION = """
INSERT INTO engine.registrations (tenant, name, version, hash, registered_at) SELECT * FROM unnest(%s, %s, %s, %s, %s)
"""
_ADD_SCHEDULE = """
INSERT INTO engine.schedules (tenant, schedule_id, shard, revision, next_at, waiting, data)
SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s)
"""
_SAME_SCHEDULE = "s.tenant = w.tenant AND s.schedule_id = w.schedule_id AND s.revision = w.revision - 1"
_CHANGE_SCHEDULE = _checked(
    f"""changed AS (UPDATE engine.schedules s
    SET shard = w.shard, revision = w.revision, next_at = w.next_at, waiting = w.waiting, data = w.data FROM wanted w
    WHERE {_SAME_SCHEDULE} RETURNING s.tenant, s.schedule_id)""",
    "tenant, schedule_id, shard, revision, next_at, waiting, data",
    "schedule_id",
    "'schedule ' || w.schedule_id",
    "its revision does not follow the last",
)
_REMOVE_SCHEDULE = _checked(
    f"""changed AS (DELETE FROM engine.schedules s USING wanted w
    WHERE {_SAME_SCHEDULE} RETURNING s.tenant, s.schedule_id)""",
    "tenant, schedule_id, revision",
    "schedule_id",
    "'schedule ' || w.schedule_id",
    "its revision does not follow the last",
)

_labels = msgspec.json.Encoder()
_events = msgspec.msgpack.Encoder()


def statements(batch: Batch) -> Iterator[Statement]:
    """In the order in which they are to be executed. Raises BatchRefused for values that no column takes."""
    runs = batch.runs
    reopened = [write for write in runs if write.reopened]
    yield from _append([write for write in runs if write.created is None and write.events and not write.reopened])
    yield from _some(_REOPEN, "ttri", [(*_named(w), w.first_event_id - 1) for w in reopened])
    yield from _append(reopened)
    yield from _create([write for write in runs if write.created is not None])
    yield from _some(_WAKE, "ttri", [(*_named(w), w.wake_at) for w in runs if not w.events])
    yield from _some(_EVENTS, "trib", [row for write in runs for row in _event_rows(write)])
    yield from _some(
        _SNAPSHOT,
        "tritb",
        [
            (w.run.tenant, w.run.run_id, w.snapshot.event_id, w.snapshot.fingerprint, w.snapshot.data)
            for w in runs
            if w.snapshot is not None
        ],
    )
    yield from _tasks(runs)
    yield from _effects(runs)
    yield from _letters(runs)
    yield from _definitions(batch.definitions)
    yield from _schedules(batch.all_schedules())


def _some(statement: str, kinds: str, rows: Sequence[Sequence[Value]]) -> Iterator[Statement]:
    if rows:
        yield statement, columns(kinds, rows)


def _named(write: RunWrite) -> tuple[str, str, str]:
    return write.run.tenant, write.run.workflow_id, write.run.run_id


def _append(runs: list[RunWrite]) -> Iterator[Statement]:
    going_on: list[tuple[Value, ...]] = []
    closed: list[tuple[Value, ...]] = []
    for write in runs:
        last, closing = write.first_event_id - 1, write.closing
        row = (*_named(write), last, last + len(write.events))
        if closing is None:
            going_on.append((*row, write.wake_at))
        else:
            error = None if closing.error is None else legible(closing.error)
            closed.append((*row, closing.status.value, error, closing.closed_at))
    yield from _some(_CLOSE, "ttriitti", closed)
    yield from _some(_APPEND, "ttriii", going_on)


def _create(runs: list[RunWrite]) -> Iterator[Statement]:
    created: list[tuple[Value, ...]] = []
    opened: list[tuple[Value, ...]] = []
    labels: list[tuple[Value, ...]] = []
    for write in runs:
        run, new, closing = write.run, write.created, write.closing
        if new is None:
            continue
        if closing is None:
            opened.append((*_named(write), len(write.events), write.wake_at))
        created.append(
            (
                run.tenant,
                run.run_id,
                run.workflow_id,
                write.shard,
                "RUNNING" if closing is None else closing.status.value,
                None if closing is None or closing.error is None else legible(closing.error),
                new.started_at,
                None if closing is None else closing.closed_at,
                None if closing is None else len(write.events),
                new.workflow,
                new.version,
                new.definition_hash,
                new.request_id,
                _labels.encode(new.labels).decode(),
                new.parent,
            )
        )
        labels += [(run.tenant, legible(name), legible(value), run.run_id) for name, value in new.labels.items()]
    yield from _some(_CREATE, "trtittiiititttr", created)
    yield from _some(_OPEN, "ttrii", opened)
    yield from _some(_LABEL, "tttr", labels)


def _event_rows(write: RunWrite) -> Iterator[tuple[Value, ...]]:
    """Nearly always one."""
    run, events, first = write.run, write.events, write.first_event_id
    start = size = 0
    for index, event in enumerate(events):
        size += len(event)
        if size > _ROW_BYTES and index > start:
            yield run.tenant, run.run_id, first + start, _events.encode(events[start:index])
            start, size = index, len(event)
    if events:
        yield run.tenant, run.run_id, first + start, _events.encode(events[start:] if start else events)


def _tasks(runs: list[RunWrite]) -> Iterator[Statement]:
    added = [
        (
            w.run.tenant,
            w.run.run_id,
            task.task.event_id,
            w.run.workflow_id,
            task.queue.kind.value,
            task.queue.name,
            -task.priority,
            task.scheduled_at,
            task.destination,
        )
        for w in runs
        for task in w.tasks_added
    ]
    yield from _some(_ADD_TASK, "tritttiit", added)
    yield from _some(_START_TASK, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.tasks_started])
    yield from _some(_RETURN_TASK, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.tasks_returned])
    yield from _some(_REMOVE_TASK, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.tasks_removed])


def _effects(runs: list[RunWrite]) -> Iterator[Statement]:
    added = [
        (w.run.tenant, w.run.run_id, e.event_id, w.run.workflow_id, w.shard, e.kind, e.data)
        for w in runs
        for e in w.effects_added
    ]
    yield from _some(_ADD_EFFECT, "trititb", added)
    yield from _some(_REMOVE_EFFECT, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.effects_removed])
    results = [
        (w.run.tenant, w.run.run_id, r.map_id, r.status, r.number, r.data) for w in runs for r in w.results_added
    ]
    yield from _some(_ADD_RESULT, "tritib", results)
    yield from _some(_REMOVE_RESULTS, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.results_removed])


def _letters(runs: list[RunWrite]) -> Iterator[Statement]:
    yield from _some(_REMOVE_LETTER, "tri", [(w.run.tenant, w.run.run_id, n) for w in runs for n in w.letters_removed])
    added = [
        (
            w.run.tenant,
            w.run.run_id,
            row.event_id,
            w.run.workflow_id,
            row.workflow,
            legible(row.node),
            legible(row.error),
            row.at,
            row.data,
        )
        for w in runs
        for row in w.letters_added
    ]
    yield from _some(_ADD_LETTER, "trittttib", added)


def _definitions(definitions: list[DefinitionWrite]) -> Iterator[Statement]:
    """In the order of their keys: two daemons that write the same ones wait for one another in turn."""
    ordered = sorted(definitions, key=lambda each: (each.tenant, each.hash))
    yield from _some(_DEFINITION, "ttt", [(d.tenant, d.hash, d.text) for d in ordered])
    named = [(d.tenant, d.name, d.version, d.hash, d.registered_at) for d in definitions if d.name is not None]
    yield from _some(_REGISTRATION, "ttiti", named)


def _schedules(writes: list[ScheduleWrite]) -> Iterator[Statement]:
    added: list[tuple[Value, ...]] = []
    changed: list[tuple[Value, ...]] = []
    removed: list[tuple[Value, ...]] = []
    for write in writes:
        name = (write.schedule.tenant, write.schedule.schedule_id)
        if write.data is None:
            removed.append((*name, write.revision))
            continue
        row = (*name, write.shard, write.revision, write.next_at, write.waiting, write.data)
        (added if write.revision == 1 else changed).append(row)
    yield from _some(_REMOVE_SCHEDULE, "tti", removed)
    yield from _some(_CHANGE_SCHEDULE, "ttiiifb", changed)
    yield from _some(_ADD_SCHEDULE, "ttiiifb", added)
