"""What PostgreSQL's errors mean for a store, and how its messages are told without a password in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from daemon.stores.faults import BatchRefused, Fenced, StoreLost, StoreUnavailable, StoreUnusable

FENCED = "EE001"
"""Raised by `engine.check_epochs`: the detail names the shards."""
REFUSED = "EE002"
"""Raised by `engine.refuse`: the message says which run, and why."""

_TAKEN = {
    "executions_pkey": "a run of this batch exists already",
    "executions_by_run": "a run of this batch exists already",
    "executions_open": "another run of this workflow_id is open",
    "open_runs_pkey": "a run of this batch is open already",
    "executions_by_request": "this request_id has started a run already",
    "registrations_pkey": "this name has this version already",
    "tasks_pkey": "a task of this batch is there already",
    "map_results_pkey": "a result is there already",
    "effects_pkey": "an effect of this batch is there already",
    "schedules_pkey": "a schedule of this id is there already",
    "dead_letters_pkey": "a dead letter of this batch is there already",
}
_DATA, _INTEGRITY = "22", "23"
_DAMAGED = ("XX001", "XX002")
_STATEMENT_POOLING = "statement pooling mode"
"""PgBouncer closes the connection that begins a transaction, and would do so again."""
_PASSING_CLASSES = ("08", "40", "53", "55", "57", "58")
"""Connections, rollbacks, resources, locks, an operator's doing, the system's: they may pass."""
_PASSING = ("25006", "25P02", "25P03", "25P04")
"""A server that has become a standby, a transaction that was ended for lasting too long."""

_HOPELESS = (
    (
        r"password authentication failed|no password supplied|SCRAM|authentication failed",
        "check the user and the password in `[store] url` (or PGPASSWORD, or the password file)",
    ),
    (
        r"no pg_hba\.conf entry",
        "allow this user and address in the server's pg_hba.conf, or use TLS (`sslmode=require`)",
    ),
    (r'role ".*" does not exist', "create the role, or correct the user in `[store] url`"),
    (r'role ".*" is not permitted to log in', "ALTER ROLE ... LOGIN, or use another user in `[store] url`"),
    (r'database ".*" does not exist', "create it (`createdb`), or correct the name in `[store] url`"),
    (r"permission denied for database", "GRANT CONNECT on it to the user in `[store] url`"),
    (r"does not support SSL|certificate|SSL error", "correct `sslmode` and the certificates in `[store] url`"),
)
"""What a server says to one whom it will not let in, however often it is asked, and what to do. In another language it
is waited for, and told as it was said."""


def refused_for_good(message: str) -> str | None:
    """What to do about a connection that was refused, None where it may pass."""
    for pattern, what_to_do in _HOPELESS:
        if re.search(pattern, message):
            return what_to_do
    return None


@contextmanager
def explained(connection: psycopg.Connection, name: str) -> Iterator[None]:
    """Errors come out as what they mean: Fenced, BatchRefused, StoreUnavailable, StoreLost when the connection went
    with them, StoreUnusable for damage; else the error itself, which ends the driver process."""
    try:
        yield
    except psycopg.Error as error:
        raise _meaning(error, connection, name) from error


def _meaning(error: psycopg.Error, connection: psycopg.Connection, name: str) -> Exception:
    if _STATEMENT_POOLING in str(error):
        return StoreUnusable(
            f"{name} is behind a PgBouncer that pools statements, so there are no transactions ({one_line(error)}): "
            "set pool_mode = session or transaction there"
        )
    if connection.closed:
        return StoreLost(f"the connection to {name} was lost: {one_line(error)}")
    code = error.sqlstate or ""
    if code == FENCED:
        return Fenced([int(shard) for shard in (error.diag.message_detail or "").split(",")])
    if code == REFUSED:
        return BatchRefused(error.diag.message_primary or "the store refuses this batch")
    if code[:2] == _INTEGRITY:
        constraint = error.diag.constraint_name or ""
        fallback = "an event of this number is there already" if constraint.startswith("events") else one_line(error)
        detail = error.diag.message_detail
        return BatchRefused(f"{_TAKEN.get(constraint, fallback)}{f' ({detail})' if detail else ''}")
    if code[:2] == _DATA or isinstance(error, psycopg.DataError):
        return BatchRefused(f"a value of this batch cannot be stored: {one_line(error)}")
    if code in _DAMAGED:
        return StoreUnusable(
            f"{name} is damaged ({one_line(error)}). Stop the daemons and restore the database from a backup"
        )
    if code[:2] in _PASSING_CLASSES or code in _PASSING or not code:
        return StoreUnavailable(f"{name} could not be written or read: {one_line(error)}")
    return error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
