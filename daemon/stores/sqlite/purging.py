"""Runs of the SQLite store that are to be purged: which those are, and taking them out, with all their rows.

Pages go through the runs in the order of their ids, which is that of their beginnings, and look at so many at once. An
index by the time of closing would save looking at those that stay, and would be written for every run that closes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from daemon.stores.rows import ExpiredRun, ExpiredRuns, Purge
from daemon.stores.sqlite.keys import FIRST, packed, run_ref, unpacked, workflow_key
from daemon.stores.sqlite.names import name_of
from enginekit.messages.links import Millis

_GOES = f"""(
    e.closed_at < :before
    AND NOT EXISTS (SELECT 1 FROM effects f WHERE f.run_id = e.run_id)
    AND NOT EXISTS (SELECT 1 FROM dead_letters d
        WHERE d.tenant = {name_of("e.tenant")} AND d.run_id IN (e.run_id, e.parent))
    AND NOT EXISTS (SELECT 1 FROM executions p
        WHERE p.run_id = e.parent AND (p.closed_at IS NULL OR p.closed_at >= :before))
    AND NOT EXISTS (SELECT 1 FROM executions c WHERE c.tenant = e.tenant AND c.parent = e.run_id)
)"""
_LOOK = f"""
SELECT {name_of("e.tenant")}, e.workflow_id, e.run_id, e.request_id, e.closed_at, {_GOES}
FROM (SELECT * FROM executions WHERE run_id > :after AND run_id < :until ORDER BY run_id LIMIT :limit) e
ORDER BY e.run_id
"""
_MARK = f"""
UPDATE executions AS e SET purging = 1
WHERE run_id = :run_id AND tenant = (SELECT id FROM names WHERE name = :tenant) AND workflow_id IS :workflow_id
    AND {_GOES}
"""
_MARKED = "SELECT run_id, tenant, labels FROM executions WHERE run_id = ? AND purging = 1"
_OF_A_RUN = ("events", "snapshots", "tasks", "map_results", "executions")
_LABEL = "DELETE FROM labels WHERE tenant = ? AND name = ? AND value = ? AND run_id = ?"

_labels = msgspec.json.Decoder(dict[str, str])


def expired_runs(
    connection: sqlite3.Connection, before: Millis, until: str, limit: int, after: str | None
) -> ExpiredRuns:
    place = FIRST if after is None else packed(after)
    rows = connection.execute(
        _LOOK, {"before": before, "after": place, "until": packed(until), "limit": limit}
    ).fetchall()
    return ExpiredRuns(
        runs=[
            ExpiredRun(run=run_ref(*run), request_id=request_id, closed_at=closed_at)
            for *run, request_id, closed_at, goes in rows
            if goes
        ],
        after=unpacked(rows[-1][2]) if len(rows) == limit else None,
    )


def purge_runs(connection: sqlite3.Connection, purges: Sequence[Purge]) -> int:
    """Take out those that may go: all are marked before any goes, which is what lets their events go. How many went."""
    for purge in purges:
        values = {
            "run_id": packed(purge.run.run_id),
            "tenant": purge.run.tenant,
            "workflow_id": workflow_key(purge.run),
            "before": purge.closed_before,
        }
        connection.execute(_MARK, values)
    marked = [row for purge in purges for row in connection.execute(_MARKED, (packed(purge.run.run_id),)).fetchall()]
    connection.executemany(
        _LABEL,
        [
            (tenant, name, value, run_id)
            for run_id, tenant, labels in marked
            if labels is not None
            for name, value in _labels.decode(labels).items()
        ],
    )
    for table in _OF_A_RUN:
        connection.executemany(f"DELETE FROM {table} WHERE run_id = ?", [(run_id,) for run_id, *_ in marked])
    return len(marked)
