"""How a store says no. Shared by its two ends: importable without Trio, for the process that hosts the drivers."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """The store cannot be reached, or went away in the middle: what was being written may or may not be on disk."""


class StoreLost(StoreUnavailable):
    """A driver's connection to its database is gone: its process ends with it, and the next one connects anew."""


class StoreUnusable(Exception):
    """The store can not be opened as it is (newer schema, locked, foreign or damaged file, another shard count). The
    message says what to do."""


class Fenced(Exception):
    """Nothing was written: somebody else has taken these shards since."""

    def __init__(self, shards: list[int]) -> None:
        super().__init__(f"shards {shards} have a newer epoch: another History owns them")
        self.shards = shards


class BatchRefused(Exception):
    """Nothing was written: the store refuses this batch's data (a gap in a run's events, a key that is taken)."""


class NoSuchEvent(LookupError):
    """The run does not have this event."""
