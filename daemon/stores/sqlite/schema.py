"""The tables of the SQLite store and how a file of an older version becomes one of this version.

`PRAGMA application_id` says that a file is ours, `PRAGMA user_version` how many of MIGRATIONS it has been through. A
migration that has been released is never edited: what comes after is another one.

Tenants are on every row. The tables are laid out for what a transition of an execution costs (one append to `events`,
one update of `open_runs`, a task in and a task out), which decides how much the store can take:

- A row of `events` holds the consecutive events that one commit gave a run, as a MessagePack array, the first numbered
  `first_id`. Rows go to the end of the table, whichever run they are of, so that a commit of many runs writes few
  pages: three times as many transitions a second as with a row an event, kept in the order of (run_id, id).
- What every transition changes of a run (its last event, its next wake-up) is in `open_runs`, which is narrow and has
  open runs only. A row of `executions` is written when its run starts and when it closes.
- `run_id`s grow with time, so that the rows of the runs that are under way stand together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

APPLICATION_ID = 0x656E6731
"""`eng1`."""

_VERSION_1 = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE shards (
    shard INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
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
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    shard INTEGER NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    started_at INTEGER NOT NULL,
    closed_at INTEGER,
    last_event_id INTEGER,
    workflow TEXT,
    version INTEGER,
    definition_hash TEXT NOT NULL,
    request_id TEXT,
    labels TEXT NOT NULL,
    parent TEXT,
    purging INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, run_id)
) WITHOUT ROWID;
CREATE INDEX executions_by_workflow_id ON executions (tenant, workflow_id, run_id);
CREATE UNIQUE INDEX executions_by_request ON executions (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX executions_on_top ON executions (tenant, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_parent ON executions (tenant, parent, run_id) WHERE parent IS NOT NULL;
CREATE INDEX executions_by_status ON executions (tenant, status, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_workflow ON executions (tenant, workflow, run_id)
    WHERE parent IS NULL AND workflow IS NOT NULL;

CREATE TABLE open_runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    last_event_id INTEGER NOT NULL,
    wake_at INTEGER,
    UNIQUE (tenant, workflow_id)
) WITHOUT ROWID;
CREATE INDEX open_runs_due ON open_runs (wake_at, run_id) WHERE wake_at IS NOT NULL;

CREATE TABLE labels (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (tenant, name, value, run_id)
) WITHOUT ROWID;

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    run_id TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (run_id, first_id)
);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'an event is never changed');
END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM executions WHERE tenant = OLD.tenant AND run_id = OLD.run_id AND purging = 1)
BEGIN
    SELECT RAISE(ABORT, 'events are deleted only with their run, once it is marked for purging');
END;

CREATE TABLE snapshots (
    run_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    event_id INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    data BLOB NOT NULL
);

CREATE TABLE tasks (
    run_id TEXT NOT NULL,
    event_id INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    queue TEXT NOT NULL,
    rank INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, event_id)
) WITHOUT ROWID;
CREATE INDEX tasks_waiting ON tasks (tenant, kind, queue, rank, scheduled_at, run_id, event_id) WHERE started = 0;

CREATE TABLE effects (
    run_id TEXT NOT NULL,
    event_id INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, event_id)
) WITHOUT ROWID;

CREATE TABLE map_results (
    run_id TEXT NOT NULL,
    map_id INTEGER NOT NULL,
    status TEXT NOT NULL,
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, map_id, status, number)
);
"""

_VERSION_2 = """
ALTER TABLE tasks ADD COLUMN destination TEXT;
DROP INDEX tasks_waiting;
-- With all that is asked of waiting tasks: those of destinations that are not to be called now are passed over in it.
CREATE INDEX tasks_waiting ON tasks
    (tenant, kind, queue, rank, scheduled_at, run_id, event_id, destination, started) WHERE started = 0;

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
    run_id TEXT NOT NULL,
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
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2)
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
