"""Which runs of the memory store are to be purged: what `Purge` says, judged by its rows. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from daemon.stores.memory_letters import MemoryLetters
from daemon.stores.memory_rows import Rows, RunRows
from daemon.stores.rows import ExpiredRun, ExpiredRuns, Purge
from enginekit.messages.links import Millis, RunRef


def going(rows: Rows, letters: MemoryLetters, purges: Sequence[Purge]) -> list[RunRef]:
    """Those that go, each once."""
    if not purges:
        return []
    judge = _Judge(rows, letters)
    found: dict[str, RunRef] = {}
    for purge in purges:
        run = rows.runs.get(purge.run.run_id)
        if run is not None and run.execution.run == purge.run and judge.goes(run, purge.closed_before):
            found[purge.run.run_id] = purge.run
    return list(found.values())


def expired_runs(
    rows: Rows,
    letters: MemoryLetters,
    before: Millis,
    until: str,
    limit: int,
    after: str | None,
    shards: Sequence[int] | None,
) -> ExpiredRuns:
    judge = _Judge(rows, letters)
    ordered = (run_id for run_id in sorted(rows.runs) if (after is None or run_id > after) and run_id < until)
    looked_at = list(islice(ordered, limit))
    runs = [rows.runs[run_id] for run_id in looked_at]
    return ExpiredRuns(
        runs=[
            ExpiredRun(run=run.execution.run, request_id=run.execution.request_id, closed_at=run.execution.closed_at)
            for run in runs
            if (shards is None or run.execution.shard in shards)
            and judge.goes(run, before)
            and run.execution.closed_at is not None
        ],
        after=looked_at[-1] if len(looked_at) == limit else None,
    )


def unused_texts(rows: Rows, texts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of definitions, by tenant and hash: those that are not registered, and that no run has."""
    used = {
        (tenant, version.hash) for (tenant, _), versions in rows.definitions.items() for version in versions.values()
    }
    used |= {(run.execution.run.tenant, run.execution.definition_hash) for run in rows.runs.values()}
    return [key for key in texts if key not in used]


class _Judge:
    """By the rows as they are now."""

    def __init__(self, rows: Rows, letters: MemoryLetters) -> None:
        self._rows = rows
        self._parents = {run.execution.parent for run in rows.runs.values()}
        self._letters = letters.runs()

    def goes(self, run: RunRows, before: Millis) -> bool:
        execution = run.execution
        parent = None if execution.parent is None else self._rows.runs.get(execution.parent)
        return (
            _closed(run, before)
            and (parent is None or _closed(parent, before))
            and not run.effects
            and execution.run.run_id not in self._parents
            and self._letters.isdisjoint((execution.run.run_id, execution.parent or ""))
        )


def _closed(run: RunRows, before: Millis) -> bool:
    return run.execution.closed_at is not None and run.execution.closed_at < before
