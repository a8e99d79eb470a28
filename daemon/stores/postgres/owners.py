"""Who has which shard, in the PostgreSQL store: rows with an epoch and an owner, and a row with a lease a member.

Times are the database's (`clock_timestamp()`). A renewal writes the member's row alone and never touches a shard's,
which commits lock. A shard is free when its owner has no lease that still holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psycopg

from daemon.stores.postgres.limits import Limits
from daemon.stores.rows import Attendance, ShardPlace

_HAS_LEASE = "SELECT FROM engine.members m WHERE m.owner = %s AND m.lease_until > clock_timestamp()"
_FREE = """
s.shard = ANY (%s::bigint[]) AND NOT EXISTS
    (SELECT FROM engine.members m WHERE m.owner = s.owner AND m.lease_until > clock_timestamp())
"""
_RENEW = """
INSERT INTO engine.members AS m (owner, lease_until) VALUES (%s, clock_timestamp() + %s * interval '1 second')
ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until
"""
_FORGET = """
DELETE FROM engine.members WHERE owner IN
    (SELECT owner FROM engine.members WHERE lease_until <= clock_timestamp() FOR UPDATE SKIP LOCKED)
"""
_PLACES = """
SELECT s.shard, s.epoch, m.owner FROM engine.shards s
    LEFT JOIN engine.members m ON m.owner = s.owner AND m.lease_until > clock_timestamp() ORDER BY s.shard
"""
_LOCK = "SELECT s.shard FROM engine.shards s WHERE s.shard = ANY (%s::bigint[]) ORDER BY s.shard FOR UPDATE"
_CLAIM = f"""
UPDATE engine.shards s SET epoch = s.epoch + 1, owner = %s WHERE {_FREE} RETURNING s.shard, s.epoch
"""
_RELEASE = """
UPDATE engine.shards s SET owner = NULL FROM unnest(%s::bigint[], %s::bigint[]) AS w(shard, epoch)
WHERE s.shard = w.shard AND s.epoch = w.epoch AND s.owner = %s
"""
_END_WRITERS = """
SELECT pg_terminate_backend(l.pid) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = 'engine.shards'::regclass::oid AND l.objid = ANY (%s::bigint[]::oid[]) AND l.objsubid = 2
    AND l.granted AND l.pid <> pg_backend_pid()
"""


class PostgresOwners:
    """The owners' part of `Writer`, over the write lane's connection."""

    def __init__(self, connection: psycopg.Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits

    def take_all(self) -> dict[int, int]:
        """Every shard at the next epoch, whoever has it."""

        def raise_all(shards: list[int]) -> dict[int, int]:
            self._connection.execute(_LOCK, (shards,))
            rows = self._connection.execute(
                "UPDATE engine.shards SET epoch = epoch + 1 RETURNING shard, epoch"
            ).fetchall()
            return dict(sorted(rows))

        return self._holding(self._all, raise_all)

    def attend(self, owner: str, lease_seconds: float) -> Attendance:
        self._limits.attends(owner, lease_seconds)
        with self._limits.transaction():
            self._connection.execute(_RENEW, (owner, lease_seconds))
            self._connection.execute(_FORGET)
        with self._limits.transaction():
            members = self._connection.execute(
                "SELECT owner FROM engine.members WHERE lease_until > clock_timestamp() ORDER BY owner"
            ).fetchall()
            places = self._connection.execute(_PLACES).fetchall()
        return Attendance(
            members=[name for (name,) in members],
            shards=[ShardPlace(shard=shard, epoch=epoch, owner=name) for shard, epoch, name in places],
        )

    def claim(self, owner: str, shards: Sequence[int]) -> dict[int, int]:
        """The epochs of those that were to be had."""
        wanted = list(shards)

        def free() -> list[int]:
            if self._connection.execute(_HAS_LEASE, (owner,)).fetchone() is None:
                return []
            rows = self._connection.execute(f"SELECT s.shard FROM engine.shards s WHERE {_FREE}", (wanted,))
            return [shard for (shard,) in rows.fetchall()]

        def take(found: list[int]) -> dict[int, int]:
            self._connection.execute(_LOCK, (found,))
            return dict(sorted(self._connection.execute(_CLAIM, (owner, found)).fetchall()))

        return self._holding(free, take)

    def release(self, owner: str, epochs: dict[int, int]) -> None:
        with self._limits.transaction():
            self._connection.execute(_LOCK, (list(epochs),))
            self._connection.execute(_RELEASE, (list(epochs), list(epochs.values()), owner))

    def leave(self, owner: str) -> None:
        self._limits.left(owner)
        with self._limits.transaction():
            self._connection.execute("DELETE FROM engine.members WHERE owner = %s", (owner,))
        with self._limits.transaction():
            self._connection.execute(
                "WITH mine AS (SELECT shard FROM engine.shards WHERE owner = %s ORDER BY shard FOR UPDATE) "
                "UPDATE engine.shards s SET owner = NULL FROM mine WHERE s.shard = mine.shard",
                (owner,),
            )

    def _all(self) -> list[int]:
        return [shard for (shard,) in self._connection.execute("SELECT shard FROM engine.shards").fetchall()]

    def _holding(self, which: Callable[[], list[int]], change: Callable[[list[int]], dict[int, int]]) -> dict[int, int]:
        """Change these shards' rows with nobody writing under them.

        Whoever does gets the time of a lock's wait to finish. One that has not (a daemon that was stopped, or cut off,
        in the middle of sending) has its session ended by the server, which undoes what it wrote.
        """
        deadline = time.monotonic() + self._limits.takeover_seconds
        while True:
            try:
                with self._limits.transaction():
                    found = which()
                    return change(found) if found else {}
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() >= deadline:
                    raise
                self._connection.execute(_END_WRITERS, (which(),))
