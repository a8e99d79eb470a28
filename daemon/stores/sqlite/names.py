"""Names that stand in many rows (tenants, workflows, hashes of definitions) and are written there as numbers: the
write lane's side of the table `names`. Readers find them by SQL."""

from __future__ import annotations

import sqlite3

_CACHED = 10_000

NUMBER = "(SELECT id FROM names WHERE name = ?)"
"""SQL for the number of a name: NULL, which equals nothing, where no row has it."""


def name_of(column: str) -> str:
    """SQL for the name of a number."""
    return f"(SELECT name FROM names WHERE id = {column})"


class Names:
    """The numbers of names, given out within the transaction under way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """A name's number; a new one where it had none."""
        known = self._numbers.get(name)
        if known is not None:
            return known
        self._connection.execute("INSERT INTO names (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,))
        number = int(self._connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()[0])
        if len(self._numbers) >= _CACHED:
            self._numbers.clear()
        self._numbers[name] = number
        return number

    def forget(self) -> None:
        """The transaction was rolled back: what it gave out is not there."""
        self._numbers.clear()
