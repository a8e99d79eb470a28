"""Names that stand in many rows (tenants, workflows, hashes of definitions) and are written there as numbers: the
write lane's side of the table `names`. Readers find them by SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

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
        self._given: set[int] | None = None
        """While somebody watches: all that were given out."""

    def number(self, name: str) -> int:
        """A name's number; a new one where it had none."""
        number = self._numbers.get(name)
        if number is None:
            self._connection.execute("INSERT INTO names (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,))
            number = int(self._connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()[0])
            if len(self._numbers) >= _CACHED:
                self._numbers.clear()
            self._numbers[name] = number
        if self._given is not None:
            self._given.add(number)
        return number

    def forget(self) -> None:
        """The transaction was rolled back: what it gave out is not there."""
        self._numbers.clear()

    def watch(self) -> None:
        """Remember from now on what is given out, until `unwatch`."""
        self._given = set()

    def given(self) -> set[int]:
        """Since `watch`: what may stand in rows that were not there then."""
        assert self._given is not None
        return self._given

    def unwatch(self) -> None:
        self._given = None

    def remove(self, numbers: Sequence[int]) -> None:
        """They stand in no row. A number may be given to another name later."""
        self._connection.executemany("DELETE FROM names WHERE id = ?", [(number,) for number in numbers])
        gone = set(numbers)
        self._numbers = {name: number for name, number in self._numbers.items() if number not in gone}
