"""How long a transaction of the writer's may take, said to the server at its beginning.

A daemon may be stopped or cut off at any point of a transaction. Until the server ends that, its shards' rows stay
locked, and nobody can take them over. So every transaction is bounded, below the lease of whoever has one: in its
statements, in what it waits for, in how long it idles, and (from PostgreSQL 17 on) as a whole, which also covers one of
whose statements only some have arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

_WHOLE_TRANSACTIONS = 170000
_LONGEST_LOCK_SECONDS = 1.0
_SETTINGS = """
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
           WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
    set_config('statement_timeout', %s, true),
    set_config('idle_in_transaction_session_timeout', %s, true),
    set_config('lock_timeout', %s, true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true)
"""
"""Committed is on disk, whatever the server's default is. And every statement finds its rows by their keys: it is
planned once, perhaps when the tables were empty, and has to be right when they are not."""


class Limits:
    """By the call timeout, and by half of the shortest lease, while somebody attends. Several services of a process
    may, each with a lease of its own."""

    def __init__(self, connection: psycopg.Connection, call_timeout_seconds: float) -> None:
        self._connection = connection
        self._whole = connection.info.server_version >= _WHOLE_TRANSACTIONS
        self._call_timeout_seconds = call_timeout_seconds
        self._leases: dict[str, float] = {}

    def attends(self, owner: str, lease_seconds: float) -> None:
        """From now on, whoever writes may be this one."""
        self._leases[owner] = lease_seconds

    def left(self, owner: str) -> None:
        self._leases.pop(owner, None)

    @property
    def takeover_seconds(self) -> float:
        """How long to try to get at shards that somebody holds on to."""
        return self._seconds

    @property
    def _seconds(self) -> float:
        return min(self._call_timeout_seconds, min(self._leases.values(), default=math.inf) / 2)

    def begin(self, cursor: psycopg.Cursor) -> None:
        """Begin a transaction with its settings. Within a pipeline it is sent with the rest."""
        whole = _milliseconds(self._seconds)
        lock = _milliseconds(min(self._seconds / 4, _LONGEST_LOCK_SECONDS))
        # What is checked behind a lock has to be seen as its last holder left it, whatever the server's default is.
        cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        cursor.execute(_SETTINGS, (whole, whole, lock))
        if self._whole:
            cursor.execute("SELECT set_config('transaction_timeout', %s, true)", (whole,))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, committed at the end, undone by an error."""
        try:
            self.begin(self._connection.cursor())
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if not self._connection.closed:
                self._connection.rollback()
            raise


def _milliseconds(seconds: float) -> str:
    return str(max(round(seconds * 1000), 1))
