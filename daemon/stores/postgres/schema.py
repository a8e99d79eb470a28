"""The tables of the PostgreSQL store and how a database of an older version becomes one of this version.

All of it is in a schema of its own, `engine`, and is always named with it: a `search_path` would be a setting of the
session, which a pooler does not keep. `schema_version` has a row for each of MIGRATIONS that the database has been
through. A migration that has been released is never edited: what comes after is another one.

Tenants are in every key. What differs from the SQLite store's tables, and why:

- `events` is partitioned by month, by the time that is in a `run_id` (`partitions.py`), so that what nobody keeps any
  more goes in one stroke instead of row by row. Everything else is small, or goes with its run.
- An update of `open_runs` enters a new version of the row into each of its indexes, so it has as few as can be: that
  one run of a `workflow_id` is open at a time is watched over by an index of `executions`, which is written when a run
  starts and when it closes.
- Tasks and effects say their `workflow_id` themselves: a page of them needs no join, and so no plan that goes wrong
  while the statistics are young.
- Text sorts by its bytes (`COLLATE "C"`), as it does in every store.

`refuse` and `check_epochs` are how a batch is judged in the database: a statement that finds something wrong raises,
and what stands behind it in the pipeline, COMMIT included, is not executed.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from daemon.stores.faults import StoreUnusable
from daemon.stores.postgres.failures import FENCED, REFUSED

_VERSION_1 = f"""
CREATE TABLE engine.meta (
    key text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE engine.shards (
    shard bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text COLLATE "C"
);

CREATE TABLE engine.members (
    owner text COLLATE "C" PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

CREATE TABLE engine.definitions (
    tenant text COLLATE "C" NOT NULL,
    hash text COLLATE "C" NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (tenant, hash)
);

CREATE TABLE engine.registrations (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    hash text COLLATE "C" NOT NULL,
    registered_at bigint NOT NULL,
    PRIMARY KEY (tenant, name, version)
);

CREATE TABLE engine.executions (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    shard bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    error text,
    started_at bigint NOT NULL,
    closed_at bigint,
    last_event_id bigint,
    workflow text COLLATE "C",
    version bigint,
    definition_hash text COLLATE "C" NOT NULL,
    request_id text COLLATE "C",
    labels text NOT NULL,
    parent uuid,
    purging boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, run_id)
);
CREATE UNIQUE INDEX executions_by_run ON engine.executions (run_id);
CREATE UNIQUE INDEX executions_open ON engine.executions (tenant, workflow_id) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX executions_by_request ON engine.executions (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX executions_by_workflow_id ON engine.executions (tenant, workflow_id, run_id);
CREATE INDEX executions_on_top ON engine.executions (tenant, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_parent ON engine.executions (tenant, parent, run_id) WHERE parent IS NOT NULL;
CREATE INDEX executions_by_status ON engine.executions (tenant, status, run_id) WHERE parent IS NULL;
CREATE INDEX executions_by_workflow ON engine.executions (tenant, workflow, run_id)
    WHERE parent IS NULL AND workflow IS NOT NULL;

CREATE TABLE engine.open_runs (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    last_event_id bigint NOT NULL,
    wake_at bigint,
    PRIMARY KEY (tenant, run_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX open_runs_due ON engine.open_runs (wake_at, run_id) WHERE wake_at IS NOT NULL;

CREATE TABLE engine.labels (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    PRIMARY KEY (tenant, name, value, run_id)
);

CREATE TABLE engine.events (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    first_id bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, run_id, first_id)
) PARTITION BY RANGE (run_id);

CREATE FUNCTION engine.keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM FROM engine.executions WHERE tenant = OLD.tenant AND run_id = OLD.run_id AND purging;
        IF FOUND THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'events are deleted only with their run, once it is marked for purging'
            USING ERRCODE = 'integrity_constraint_violation';
    ELSIF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'events are never truncated: partitions in which no run is kept can be dropped'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RAISE EXCEPTION 'an event is never changed' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE ON engine.events
    FOR EACH ROW EXECUTE FUNCTION engine.keep_events();
CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON engine.events
    FOR EACH STATEMENT EXECUTE FUNCTION engine.keep_events();

CREATE TABLE engine.snapshots (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    event_id bigint NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, run_id)
);

CREATE TABLE engine.tasks (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    event_id bigint NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    rank bigint NOT NULL,
    scheduled_at bigint NOT NULL,
    destination text COLLATE "C",
    started boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, run_id, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX tasks_waiting ON engine.tasks
    (tenant, kind, queue, rank, scheduled_at, run_id, event_id) INCLUDE (destination) WHERE NOT started;

CREATE TABLE engine.effects (
    run_id uuid NOT NULL,
    event_id bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    shard bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (run_id, event_id, tenant)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE engine.map_results (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    map_id bigint NOT NULL,
    status text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, run_id, map_id, status, number)
);

CREATE TABLE engine.schedules (
    tenant text COLLATE "C" NOT NULL,
    schedule_id text COLLATE "C" NOT NULL,
    shard bigint NOT NULL,
    revision bigint NOT NULL,
    next_at bigint,
    waiting boolean NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, schedule_id)
);
CREATE INDEX schedules_due ON engine.schedules (next_at, tenant, schedule_id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_waiting ON engine.schedules (tenant, schedule_id) INCLUDE (shard) WHERE waiting;

CREATE TABLE engine.dead_letters (
    tenant text COLLATE "C" NOT NULL,
    run_id uuid NOT NULL,
    event_id bigint NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    workflow text COLLATE "C",
    node text COLLATE "C" NOT NULL,
    error text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, run_id, event_id)
);
CREATE INDEX dead_letters_by_age ON engine.dead_letters (tenant, at, run_id, event_id);
CREATE INDEX dead_letters_oldest ON engine.dead_letters (at, run_id, event_id);

CREATE FUNCTION engine.refuse(reason text, culprit text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '{REFUSED}', MESSAGE = format('%s: %s', culprit, reason);
END $$;

-- That the caller may write to these shards, until the end of its transaction: their rows are locked in the order of
-- their numbers, shared, and whoever would raise an epoch waits. The advisory locks say who: a row's lock does not tell
-- in which session it is held, and it is that session which has to be ended when it never comes to an end.
CREATE FUNCTION engine.check_epochs(wanted bigint[], epochs bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    stale bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared('engine.shards'::regclass::oid::int, shard::int)
        FROM unnest(wanted) AS w(shard) WHERE shard BETWEEN 0 AND 65535;
    WITH locked AS MATERIALIZED (
        SELECT s.shard, s.epoch FROM engine.shards s WHERE s.shard = ANY (wanted) ORDER BY s.shard FOR SHARE
    )
    SELECT array_agg(DISTINCT w.shard ORDER BY w.shard) INTO stale
        FROM unnest(wanted, epochs) AS w(shard, epoch) LEFT JOIN locked l ON l.shard = w.shard
        WHERE l.epoch IS DISTINCT FROM w.epoch;
    IF stale IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '{FENCED}', MESSAGE = 'fenced', DETAIL = array_to_string(stale, ',');
    END IF;
END $$;
"""

_VERSION_2 = """
-- Which runs have a definition that is not registered: its text goes with the last of them.
CREATE INDEX executions_by_definition ON engine.executions (tenant, definition_hash)
    WHERE workflow IS NULL AND parent IS NULL;
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2)
"""The script at index n brings a database of version n to version n + 1."""

SCHEMA_VERSION = len(MIGRATIONS)

_MIGRATION_LOCK = 0x656E6731
"""`eng1`: one daemon at a time migrates."""


def migrate(connection: psycopg.Connection, shards: int, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the database to the newest version, in one transaction: whoever else wants to waits, and then finds it
    done.

    Raises StoreUnusable for a newer version, and for a schema `engine` that is somebody else's.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        version = _version(connection)
        if version > len(migrations):
            raise StoreUnusable(
                f"its schema has version {version}, this engine knows versions up to {len(migrations)}: start the "
                "newer engine that wrote it"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            connection.execute(script, prepare=False)
            connection.execute("INSERT INTO engine.schema_version (version) VALUES (%s)", (number,))
        if version == 0:
            connection.execute(
                "INSERT INTO engine.shards (shard, epoch) SELECT number, 0 FROM generate_series(0, %s - 1) number",
                (shards,),
            )


def _version(connection: psycopg.Connection) -> int:
    """0 for a database in which nothing of the engine's is yet: what keeps the versions is then made."""
    row = connection.execute("SELECT to_regnamespace('engine'), to_regclass('engine.schema_version')").fetchone()
    namespace, versions = row if row is not None else (None, None)
    if versions is None:
        if namespace is None:
            connection.execute("CREATE SCHEMA engine")
        elif connection.execute("SELECT FROM pg_class WHERE relnamespace = 'engine'::regnamespace").fetchall():
            raise StoreUnusable(
                'its schema "engine" is not this engine\'s: give the engine a database of its own in `[store] url`'
            )
        connection.execute(
            "CREATE TABLE engine.schema_version "
            "(version bigint PRIMARY KEY, migrated_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        return 0
    found = connection.execute("SELECT coalesce(max(version), 0) FROM engine.schema_version").fetchone()
    return int(found[0]) if found is not None else 0
