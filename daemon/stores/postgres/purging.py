"""Runs of the PostgreSQL store that are to be purged: which those are, and the statements that take them out.

Pages go through the runs in the order of their ids, which is that of their beginnings, and look at so many at once. An
index by the time of closing would save looking at those that stay, and would be written for every run that closes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import psycopg

from daemon.stores.postgres.columns import Value, columns, legible, run_id_bytes
from daemon.stores.postgres.lists import Query
from daemon.stores.postgres.statements import Statement
from daemon.stores.rows import ExpiredRun, ExpiredRuns, Purge
from enginekit.messages.links import Millis, RunRef


def _goes(before: str) -> str:
    """SQL for whether the run `e` is one that a Purge takes."""
    return f"""(
    e.closed_at < {before}
    AND NOT EXISTS (SELECT FROM engine.effects f WHERE f.run_id = e.run_id)
    AND NOT EXISTS (SELECT FROM engine.dead_letters d WHERE d.tenant = e.tenant AND d.run_id = e.run_id)
    AND NOT EXISTS (SELECT FROM engine.dead_letters d WHERE d.tenant = e.tenant AND d.run_id = e.parent)
    AND NOT EXISTS (SELECT FROM engine.executions p
        WHERE p.run_id = e.parent AND (p.closed_at IS NULL OR p.closed_at >= {before}))
    AND NOT EXISTS (SELECT FROM engine.executions c WHERE c.tenant = e.tenant AND c.parent = e.run_id)
)"""


_LEAST_RUN_ID = "00000000-0000-0000-0000-000000000000"
_LOOK = f"""
SELECT e.tenant, e.workflow_id, e.run_id::text, e.request_id, e.closed_at,
    (%s::bigint[] IS NULL OR e.shard = ANY (%s::bigint[])) AND {_goes("%s")}
FROM (SELECT * FROM engine.executions WHERE run_id > %s::uuid AND run_id < %s::uuid ORDER BY run_id LIMIT %s) e
ORDER BY e.run_id
"""
_LABELS = """
SELECT e.tenant, e.run_id::text, e.labels FROM unnest(%s, %s) AS w(tenant, run_id)
JOIN engine.executions e ON e.tenant = w.tenant AND e.run_id = w.run_id WHERE e.labels <> '{}'
"""
_MARK = f"""
UPDATE engine.executions e SET purging = true FROM unnest(%s, %s, %s, %s) AS w(tenant, workflow_id, run_id, before)
WHERE e.tenant = w.tenant AND e.run_id = w.run_id AND e.workflow_id = w.workflow_id AND {_goes("w.before")}
"""
_OF_A_RUN = ("events", "snapshots", "tasks", "map_results")
_REMOVE = """
DELETE FROM engine.{table} x USING unnest(%s, %s) AS w(tenant, run_id), engine.executions e
WHERE x.tenant = w.tenant AND x.run_id = w.run_id AND e.tenant = w.tenant AND e.run_id = w.run_id AND e.purging
"""
_REMOVE_LABEL = """
DELETE FROM engine.labels x USING unnest(%s, %s, %s, %s) AS w(tenant, name, value, run_id), engine.executions e
WHERE x.tenant = w.tenant AND x.name = w.name AND x.value = w.value AND x.run_id = w.run_id
    AND e.tenant = w.tenant AND e.run_id = w.run_id AND e.purging
"""
_REMOVE_RUN = """
DELETE FROM engine.executions e USING unnest(%s, %s) AS w(tenant, run_id)
WHERE e.tenant = w.tenant AND e.run_id = w.run_id AND e.purging
"""

_labels = msgspec.json.Decoder(dict[str, str])


def expired_runs(
    query: Query, before: Millis, until: str, limit: int, after: str | None, shards: Sequence[int] | None
) -> ExpiredRuns:
    of = None if shards is None else list(shards)
    rows = query(_LOOK, (of, of, before, before, after or _LEAST_RUN_ID, until, limit))
    return ExpiredRuns(
        runs=[
            ExpiredRun(run=RunRef(*run), request_id=request_id, closed_at=closed_at)
            for *run, request_id, closed_at, goes in rows
            if goes
        ],
        after=rows[-1][2] if len(rows) == limit else None,
    )


def labels_of(connection: psycopg.Connection, purges: Sequence[Purge]) -> list[tuple[str, str, str, str]]:
    """The rows of `labels` that these runs have, which are found by their names. They never change: those of a run that
    may not go after all are left alone by the statements."""
    if not purges:
        return []
    found = connection.execute(_LABELS, columns("tr", _named(purges))).fetchall()
    return [
        (tenant, name, value, run_id)
        for tenant, run_id, labels in found
        for name, value in _labels.decode(labels).items()
    ]


def purging(purges: Sequence[Purge], labels: Sequence[tuple[str, str, str, str]]) -> Iterator[Statement]:
    """All are marked before any goes, which is what lets their events go."""
    if not purges:
        return
    named = _named(purges)
    yield (
        _MARK,
        columns("ttri", [(p.run.tenant, p.run.workflow_id, p.run.run_id, p.closed_before) for p in _known(purges)]),
    )
    if labels:
        rows = [(tenant, legible(name), legible(value), run_id) for tenant, name, value, run_id in labels]
        yield _REMOVE_LABEL, columns("tttr", rows)
    for table in _OF_A_RUN:
        yield _REMOVE.format(table=table), columns("tr", named)
    yield _REMOVE_RUN, columns("tr", named)


def _named(purges: Sequence[Purge]) -> list[tuple[Value, ...]]:
    return [(purge.run.tenant, purge.run.run_id) for purge in _known(purges)]


def _known(purges: Sequence[Purge]) -> list[Purge]:
    """Without names that are no run's."""
    return [purge for purge in purges if run_id_bytes(purge.run.run_id) is not None]
