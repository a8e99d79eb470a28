"""The partitions of `events`: a month each, by the time in a run's id; made before they are needed, dropped when
no run of theirs is left.

There is no default partition: what had strayed into it would have to be moved out, under a lock that stops all writing,
before the month that it belongs to could be made. The writer knows the month
of every run that it creates, and makes what is missing first.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import psycopg

from daemon.stores.faults import BatchRefused
from daemon.stores.postgres.limits import Limits
from enginekit.messages.links import Millis

_LAST_YEAR = 9999


class Partitions:
    """Which months are there, as one connection knows it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._known: set[tuple[int, int]] = set()

    def ensure(self, run_id: str) -> None:
        """That the run's events have a place; and those of the next month, so that nobody waits when it begins.

        Raises BatchRefused for a time that no calendar has.
        """
        month = _month_of(uuid.UUID(run_id).int >> 80)
        if month is None or month[0] >= _LAST_YEAR:
            raise BatchRefused(f"run {run_id}: no calendar has the time in its run_id")
        if month in self._known:
            return
        for each in (month, _after(month)):
            self._make(each)
        self._known.add(month)

    def forget(self) -> None:
        """One of them is not there any more."""
        self._known.clear()

    def _make(self, month: tuple[int, int]) -> None:
        """Made beside the table and then attached to it, which lets others go on writing meanwhile."""
        name = _name(month)
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock('engine.events'::regclass::oid::int, 0)")
            there = self._connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
            if there is not None and there[0] is not None:
                return
            self._connection.execute(f"CREATE TABLE {name} (LIKE engine.events INCLUDING ALL)")
            self._connection.execute(
                f"ALTER TABLE engine.events ATTACH PARTITION {name} "
                f"FOR VALUES FROM ('{_first_id(month)}') TO ('{_first_id(_after(month))}')"
            )
            self._connection.execute(
                f"CREATE TRIGGER events_are_never_truncated BEFORE TRUNCATE ON {name} "
                "FOR EACH STATEMENT EXECUTE FUNCTION engine.keep_events()"
            )


def drop_partitions(connection: psycopg.Connection, limits: Limits, now: Millis) -> list[str]:
    """Drop the partitions of past months from which no run is left, by its state, its letters or otherwise; whose names
    are in the answer. Neither that of `now` nor a later one. Several may do it at once.

    Writers wait while one is dropped. Where they do not let go of the table in time, it stays for the next time.
    """
    dropped: list[str] = []
    current = _month_of(now)
    for month in _there(connection):
        if current is None or month >= current or _kept(connection, month):
            continue
        try:
            with limits.transaction():
                connection.execute("LOCK TABLE engine.events IN ACCESS EXCLUSIVE MODE")
                if _name(month) in map(_name, _there(connection)) and not _kept(connection, month):
                    connection.execute(f"DROP TABLE {_name(month)}")
                    dropped.append(_name(month))
        except psycopg.errors.LockNotAvailable:
            break
    return dropped


def _kept(connection: psycopg.Connection, month: tuple[int, int]) -> bool:
    """Whether there is a run of that month: as long as there is one, its events are."""
    row = connection.execute(
        "SELECT FROM engine.executions WHERE run_id >= %s::uuid AND run_id < %s::uuid LIMIT 1",
        (_first_id(month), _first_id(_after(month))),
    ).fetchone()
    return row is not None


def _there(connection: psycopg.Connection) -> list[tuple[int, int]]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'engine.events'::regclass ORDER BY c.relname"
    ).fetchall()
    return [(int(name[7:11]), int(name[12:14])) for (name,) in rows]


def _name(month: tuple[int, int]) -> str:
    return f"engine.events_{month[0]:04d}_{month[1]:02d}"


def _month_of(milliseconds: Millis) -> tuple[int, int] | None:
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment.year, moment.month


def _after(month: tuple[int, int]) -> tuple[int, int]:
    year, number = month
    return (year, number + 1) if number < 12 else (year + 1, 1)


def _first_id(month: tuple[int, int]) -> uuid.UUID:
    """The least UUID of that month."""
    begins = datetime(*month, 1, tzinfo=UTC)
    return uuid.UUID(int=(int(begins.timestamp()) * 1000) << 80)
