"""How many runs one answer of `load_runs` has: the same for every backend. Nothing of a backend's own."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.stores.rows import StoredRun


def within(max_bytes: int, runs: Iterable[StoredRun | None]) -> list[StoredRun | None]:
    """The first of them, until they have `max_bytes` between them; none after those is asked for."""
    found: list[StoredRun | None] = []
    taken = 0
    for run in runs:
        found.append(run)
        taken += 0 if run is None else _size(run)
        if taken >= max_bytes:
            break
    return found


def _size(run: StoredRun) -> int:
    kept = 0 if run.snapshot is None else len(run.snapshot.data)
    return kept + sum(len(event) for event in run.tail)
