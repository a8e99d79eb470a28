"""The tables of the SQLite store and how a file of an older version becomes one of this version.

`PRAGMA application_id` says that a file is ours, `PRAGMA user_version` how many of MIGRATIONS it has been through. A
migration that has been released is never edited: what comes after is another one.

Tenants are on every row, or on the row of `executions` that its `run_id` leads to. The tables are laid out for what a
transition of an execution costs (one append to `events`, one update of `open_runs`, a task in and a task out), which
decides how much the store can take, and for what an execution that waits takes on the disk:

- A row of `events` holds the consecutive events that one commit gave a run, the first numbered `first_id`, as
  `histories.py` writes and reads them: compressed with the dictionary of that number, or plain (`dictionary` 0). Rows
  go to the end of the table, whichever run they are of, so that a commit of many runs writes few pages: three times as
  many transitions a second as with a row an event, kept in the order of (run_id, id).
- What every transition changes of a run (its last event, its next wake-up) is in `open_runs`, which is narrow and has
  open runs only. A row of `executions` is written when its run starts and when it closes.
- `run_id`s grow with time, so that the rows of the runs that are under way stand together.
- Ids and statuses stand as `keys.py` has them: a UUID as its 16 bytes, a `workflow_id` that is the `run_id` as NULL. In
  `executions`, `open_runs` and `labels`, which have rows for every execution there is, names (tenants, workflows,
  hashes of definitions) are numbers, those of the table `names`.
- All times are milliseconds since 1970 UTC.

For people with a `sqlite3` shell there is the view `readable_executions`; `engine history --store` reads histories.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from daemon.stores.sqlite.keys import NUMBERS

APPLICATION_ID = 0x656E6731
"""`eng1`."""


def _id_as_text(column: str) -> str:
    """SQL for an id of a key."""
    parts = " || '-' || ".join(
        f"substr(hex({column}), {start}, {length})" for start, length in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    )
    return f"CASE typeof({column}) WHEN 'blob' THEN lower({parts}) ELSE {column} END"


def _time_as_text(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')"


_STATUS_AS_TEXT = " ".join(f"WHEN {number} THEN '{status.value}'" for status, number in NUMBERS.items())

_VERSION_1 = f"""
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE shards (
    shard INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
);

CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE definitions (
    tenant TEXT NOT NULL,
    hash TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (tenant, hash)
);

CREATE TABLE registrations (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    hash TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, version)
) WITHOUT ROWID;

CREATE TABLE executions (
    run_id NOT NULL PRIMARY KEY,
    tenant INTEGER NOT NULL,
    workflow_id,
    shard INTEGER NOT NULL,
    status INTEGER NOT NULL,
    error TEXT,
    started_at INTEGER NOT NULL,
    closed_at INTEGER,
    last_event_id INTEGER,
    workflow INTEGER,
    version INTEGER,
    definition INTEGER NOT NULL,
    request_id TEXT,
    labels TEXT,
    parent,
    purging INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX executions_by_workflow_id ON executions (tenant, workflow_id, run_id) WHERE workflow_id IS NOT NULL;
CREATE UNIQUE INDEX executions_by_request ON executions (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX executions_on_top ON executions (tenant, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_parent ON executions (tenant, parent, run_id) WHERE parent IS NOT NULL;
CREATE INDEX executions_by_status ON executions (tenant, status, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_workflow ON executions (tenant, workflow, run_id)
    WHERE parent IS NULL AND workflow IS NOT NULL;

CREATE TABLE open_runs (
    run_id NOT NULL PRIMARY KEY,
    tenant INTEGER NOT NULL,
    workflow_id,
    last_event_id INTEGER NOT NULL,
    wake_at INTEGER
) WITHOUT ROWID;
CREATE UNIQUE INDEX open_runs_by_workflow_id ON open_runs (tenant, workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX open_runs_due ON open_runs (wake_at, run_id) WHERE wake_at IS NOT NULL;
-- A run whose workflow_id is its run_id is not in that index.
CREATE TRIGGER open_runs_of_their_own_name BEFORE INSERT ON open_runs
WHEN NEW.workflow_id IS NULL
    AND EXISTS (SELECT 1 FROM open_runs WHERE tenant = NEW.tenant AND workflow_id = NEW.run_id)
    OR EXISTS (SELECT 1 FROM open_runs WHERE run_id = NEW.workflow_id AND workflow_id IS NULL AND tenant = NEW.tenant)
BEGIN
    SELECT RAISE(ABORT, 'another run of this workflow_id is open');
END;

CREATE TABLE labels (
    tenant INTEGER NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run_id NOT NULL,
    PRIMARY KEY (tenant, name, value, run_id)
) WITHOUT ROWID;

CREATE TABLE dictionaries (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TRIGGER dictionaries_are_never_changed BEFORE UPDATE ON dictionaries
BEGIN
    SELECT RAISE(ABORT, 'a dictionary is never changed: events are read by it');
END;
CREATE TRIGGER dictionaries_are_never_deleted BEFORE DELETE ON dictionaries
BEGIN
    SELECT RAISE(ABORT, 'a dictionary is never deleted: events are read by it');
END;

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    run_id NOT NULL,
    first_id INTEGER NOT NULL,
    dictionary INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (run_id, first_id)
);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'an event is never changed');
END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM executions WHERE run_id = OLD.run_id AND purging = 1)
BEGIN
    SELECT RAISE(ABORT, 'events are deleted only with their run, once it is marked for purging');
END;

CREATE TABLE snapshots (
    run_id NOT NULL PRIMARY KEY,
    event_id INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    data BLOB NOT NULL
);

CREATE TABLE tasks (
    run_id NOT NULL,
    event_id INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    rank INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0,
    destination TEXT,
    PRIMARY KEY (run_id, event_id)
) WITHOUT ROWID;
-- With all that is asked of waiting tasks: those of destinations that are not to be called now are passed over in it.
CREATE INDEX tasks_waiting ON tasks
    (tenant, kind, queue, rank, scheduled_at, run_id, event_id, destination, started) WHERE started = 0;

CREATE TABLE effects (
    run_id NOT NULL,
    event_id INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, event_id)
) WITHOUT ROWID;

CREATE TABLE map_results (
    run_id NOT NULL,
    map_id INTEGER NOT NULL,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, map_id, status, number)
);

CREATE TABLE schedules (
    tenant TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    shard INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    next_at INTEGER,
    waiting INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (tenant, schedule_id)
);
CREATE INDEX schedules_due ON schedules (next_at, tenant, schedule_id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_waiting ON schedules (tenant, schedule_id) WHERE waiting = 1;

CREATE TABLE dead_letters (
    tenant TEXT NOT NULL,
    run_id NOT NULL,
    event_id INTEGER NOT NULL,
    workflow_id TEXT NOT NULL,
    workflow TEXT,
    node TEXT NOT NULL,
    error TEXT NOT NULL,
    at INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (tenant, run_id, event_id)
);
CREATE INDEX dead_letters_by_age ON dead_letters (tenant, at, run_id);

CREATE VIEW readable_executions AS SELECT
    t.name AS tenant,
    {_id_as_text("coalesce(e.workflow_id, e.run_id)")} AS workflow_id,
    {_id_as_text("e.run_id")} AS run_id,
    CASE e.status {_STATUS_AS_TEXT} END AS status,
    e.error,
    {_time_as_text("e.started_at")} AS started_at,
    {_time_as_text("e.closed_at")} AS closed_at,
    {_time_as_text("o.wake_at")} AS wake_at,
    coalesce(o.last_event_id, e.last_event_id) AS last_event_id,
    w.name AS workflow,
    e.version,
    d.name AS definition_hash,
    e.request_id,
    e.labels,
    {_id_as_text("e.parent")} AS parent
FROM executions e JOIN names t ON t.id = e.tenant JOIN names d ON d.id = e.definition
    LEFT JOIN names w ON w.id = e.workflow LEFT JOIN open_runs o ON o.run_id = e.run_id;
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1,)
"""The script at index n brings a file of version n to version n + 1."""

SCHEMA_VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, version: int, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a file of `version` (0: an empty one) to the newest. Each step is one transaction with its version, so
    that a crash leaves a file of some version, never one between two."""
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise
