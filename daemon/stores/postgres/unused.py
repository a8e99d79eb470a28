"""Texts of definitions in the PostgreSQL store that are not registered, and that no run has any more.

Whoever starts a run by such a definition writes its text in the same transaction, whether it is there or not, and so
has the table locked as writers do. To remove some, all of those are waited for and kept out: then every run that has
one of them can be seen, and the next one to come brings the text again.
"""

from __future__ import annotations

import psycopg

from daemon.stores.postgres.columns import columns
from daemon.stores.postgres.limits import Limits

STEP_TEXTS = 500
"""Looked at in one step."""

_IS_UNUSED = """
    NOT EXISTS (SELECT FROM engine.registrations r WHERE r.tenant = d.tenant AND r.hash = d.hash)
    AND NOT EXISTS (SELECT FROM engine.executions e
        WHERE e.tenant = d.tenant AND e.definition_hash = d.hash AND e.workflow IS NULL AND e.parent IS NULL)
"""
# Runs that a Map has started for its items have their parent's definition, and are there no longer than it.
_LOOK = f"""
SELECT d.tenant, d.hash, {_IS_UNUSED} FROM (SELECT tenant, hash FROM engine.definitions
    WHERE (tenant, hash) > (%s, %s) ORDER BY tenant, hash LIMIT %s) d ORDER BY d.tenant, d.hash
"""
_KEEP_WRITERS_OUT = "LOCK TABLE engine.definitions IN SHARE ROW EXCLUSIVE MODE"
_REMOVE = f"""
DELETE FROM engine.definitions d USING unnest(%s, %s) AS w(tenant, hash)
WHERE d.tenant = w.tenant AND d.hash = w.hash AND {_IS_UNUSED}
"""
_FIRST = ("", "")


class UnusedDefinitions:
    """As one connection goes through them, step by step."""

    def __init__(self, connection: psycopg.Connection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._after = _FIRST

    def remove_some(self) -> tuple[int, bool]:
        """How many went, and whether there are more to look at: else the next step begins at the first. Where writers
        do not let go of the table in time, they stay for the next time."""
        more = False
        try:
            with self._limits.transaction():
                rows = self._connection.execute(_LOOK, (*self._after, STEP_TEXTS)).fetchall()
                more = len(rows) == STEP_TEXTS
                self._after = (rows[-1][0], rows[-1][1]) if more else _FIRST
                unused = [(tenant, hash) for tenant, hash, is_unused in rows if is_unused]
                if not unused:
                    return 0, more
                self._connection.execute(_KEEP_WRITERS_OUT)
                return self._connection.execute(_REMOVE, columns("tt", unused)).rowcount, more
        except psycopg.errors.LockNotAvailable:
            return 0, more
