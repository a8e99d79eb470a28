"""The tasks of one queue that wait for the circuit breaker of their destination, bounded.

They are not among the queue's other tasks, so that they neither stand in their way nor take their places. Memory holds
some of them, which is enough to have probes; the rest is *left* to the store, whose pages are read without the
destinations that have enough here, and is pulled when their breaker closes.

Pure: no I/O, no clock. Which destinations are to be spared is said by their breakers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from daemon.dispatch.entry import Entry, Ranked, Whereabouts
from enginekit.messages.links import Millis


class _Parked:
    __slots__ = ("left", "tasks")

    def __init__(self) -> None:
        self.tasks = Ranked(Whereabouts.PARKED)
        self.left = False


class Parking:
    """At most `limit` tasks and, of each destination, `each` whatever the others have."""

    __slots__ = ("_each", "_limit", "_parked", "_total")

    def __init__(self, limit: int, each: int) -> None:
        self._limit = limit
        self._each = each
        self._parked: dict[str, _Parked] = {}
        self._total = 0

    def __len__(self) -> int:
        """Tasks that are parked in memory."""
        return self._total

    def count(self, destination: str) -> int:
        """How many tasks of this destination are parked in memory."""
        parked = self._parked.get(destination)
        return len(parked.tasks) if parked is not None else 0

    def takes(self, destination: str) -> bool:
        """Whether there is room for one more; if not, it has to be left to the store with `leave`."""
        return self._total < self._limit or self.count(destination) < self._each

    def add(self, destination: str, entry: Entry) -> None:
        self._of(destination).tasks.add(entry, entry.since)
        self._total += 1

    def remove(self, destination: str, entry: Entry) -> None:
        """A parked task is over."""
        self._parked[destination].tasks.remove(entry)
        self._total -= 1

    def take(self, destination: str, most: int) -> list[Entry]:
        """The first tasks of a destination, no longer parked."""
        taken: list[Entry] = []
        parked = self._parked.get(destination)
        while parked is not None and len(taken) < most and (entry := parked.tasks.take()) is not None:
            taken.append(entry)
        self._total -= len(taken)
        return taken

    def release(self, destination: str) -> tuple[list[Entry], bool]:
        """All tasks of a destination that may be called again, and whether the store has more of them."""
        parked = self._parked.get(destination)
        if parked is None:
            return [], False
        taken = self.take(destination, len(parked.tasks))
        del self._parked[destination]
        return taken, parked.left

    # --- what the store has ------------------------------------------------------------------------------------------

    def leave(self, destination: str) -> None:
        """The store may have tasks of this destination that are not here."""
        self._of(destination).left = True

    def waits(self, destination: str) -> bool:
        """Whether any of its tasks are here, or may be in the store."""
        parked = self._parked.get(destination)
        return parked is not None and (bool(parked.tasks) or parked.left)

    def wants(self, destination: str) -> bool:
        """Whether more of its tasks are to be brought from the store, so that there are some to probe with."""
        parked = self._parked.get(destination)
        return parked is not None and parked.left and len(parked.tasks) < self._each

    @property
    def any_left(self) -> bool:
        return any(parked.left for parked in self._parked.values())

    def begin_pull(self) -> None:
        """The queue is read from its first task on: what is left is found out anew."""
        for parked in self._parked.values():
            parked.left = False

    def end_pull(self, complete: bool) -> None:
        """`complete`: to the queue's end."""
        if not complete:
            for parked in self._parked.values():
                parked.left = True
        for destination in [name for name, parked in self._parked.items() if not parked.left and not parked.tasks]:
            del self._parked[destination]

    def passed_over(self) -> list[str]:
        """The destinations whose tasks the next page is read without: they have enough of them here."""
        full = [name for name, parked in self._parked.items() if len(parked.tasks) >= self._each]
        for name in full:
            self._parked[name].left = True
        return full

    # --- what it looks like ------------------------------------------------------------------------------------------

    def destinations(self) -> Iterator[str]:
        """That of each task that is parked in memory."""
        for name, parked in self._parked.items():
            yield from repeat(name, len(parked.tasks))

    def oldest(self) -> Millis | None:
        """When the task that has waited longest in memory was scheduled."""
        times = (parked.tasks.oldest() for parked in self._parked.values())
        return min((at for at in times if at is not None), default=None)

    def _of(self, destination: str) -> _Parked:
        parked = self._parked.get(destination)
        if parked is None:
            parked = self._parked[destination] = _Parked()
        return parked
