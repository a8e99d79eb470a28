"""Runs in memory: their states as decided, which may be ahead of the store by what is being committed.

What is not here is read back when something happens to it: a waiting execution is a row, not memory. Only runs whose
every event is on disk, and that nobody waits for, may be forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from daemon.execution import snapshot
from daemon.execution.evolve import evolve, replay
from daemon.execution.history import BrokenHistory
from daemon.execution.state import Run
from daemon.language import Machine
from daemon.stores.rows import StoredRun
from enginekit.messages.events import decode_event

if TYPE_CHECKING:
    from daemon.journal.batch import Gathering

RUN_BYTES = 4096
"""What a run costs at least."""

STATE_BYTES_LIMIT = 4 * 1024 * 1024
"""Above this a longer history does not count as a larger state."""


class LiveRun:
    """A run's state, and the newest batch that has not been committed and touches it."""

    __slots__ = (
        "batch",
        "committed_id",
        "definition",
        "parent",
        "run",
        "shard",
        "size",
        "snapshot_at",
        "snapshot_size",
        "waiters",
    )

    def __init__(self, run: Run, definition: Machine, shard: int, parent: LiveRun | None = None) -> None:
        """`parent` is the run that started it, which is in memory as long as this one is."""
        self.run = run
        self.parent = parent
        self.definition = definition
        self.shard = shard
        self.batch: Gathering | None = None
        self.committed_id = 0
        self.snapshot_at = 0
        """`history_bytes` when the last snapshot was taken."""
        self.snapshot_size = 0
        self.waiters = 0
        self.size = RUN_BYTES

    @property
    def closed(self) -> bool:
        """It has closed, and all of it is on disk."""
        return self.run.status.closed and self.committed_id == self.run.last_event_id

    def measure(self) -> int:
        """Roughly its bytes in memory."""
        return RUN_BYTES + min(self.run.history_bytes, STATE_BYTES_LIMIT)


class LiveRuns:
    """The runs in memory, least recently used first, by run_id and by the workflow_id of the open one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._open: dict[tuple[str, str], str] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: str) -> LiveRun | None:
        live = self._runs.get(run_id)
        if live is not None:
            self._runs.move_to_end(run_id)
        return live

    def open_run(self, tenant: str, workflow_id: str) -> str | None:
        """The run_id of the open run of this workflow_id, where it is in memory."""
        return self._open.get((tenant, workflow_id))

    def all(self) -> list[LiveRun]:
        return list(self._runs.values())

    def add(self, live: LiveRun) -> None:
        ref = live.run.ref
        live.size = live.measure()
        self._bytes += live.size
        self._runs[ref.run_id] = live
        if live.parent is not None:
            live.parent.waiters += 1
        if not live.run.status.closed:
            self._open[ref.tenant, ref.workflow_id] = ref.run_id

    def changed(self, live: LiveRun) -> None:
        """After a decision: its size, and whether it is open."""
        size = live.measure()
        self._bytes += size - live.size
        live.size = size
        ref = live.run.ref
        if not live.run.status.closed:
            self._open[ref.tenant, ref.workflow_id] = ref.run_id
        elif self._open.get((ref.tenant, ref.workflow_id)) == ref.run_id:
            del self._open[ref.tenant, ref.workflow_id]

    def remove(self, run_id: str) -> None:
        live = self._runs.pop(run_id, None)
        if live is None:
            return
        self._bytes -= live.size
        if live.parent is not None:
            live.parent.waiters -= 1
        ref = live.run.ref
        if self._open.get((ref.tenant, ref.workflow_id)) == run_id:
            del self._open[ref.tenant, ref.workflow_id]

    def shrink(self) -> None:
        """Forget what was not used for longest, down to the limit."""
        excess = self._bytes - self._limit
        victims: list[str] = []
        for run_id, live in self._runs.items():
            if excess <= 0:
                break
            if live.batch is None and not live.waiters:
                victims.append(run_id)
                excess -= live.size
        for run_id in victims:
            self.remove(run_id)


def replayed(stored: StoredRun) -> Run:
    """The state of what the store has: the snapshot, evolved by the events after it.

    Raises BrokenHistory when they do not add up.
    """
    kept = stored.snapshot
    tail = stored.tail
    try:
        if kept is None:
            run = replay([(decode_event(data), len(data)) for data in tail])
        else:
            run = snapshot.load(kept.data)
            for data in tail:
                evolve(run, decode_event(data), len(data))
    except (msgspec.MsgspecError, IndexError) as error:
        raise BrokenHistory(f"run {stored.execution.run.run_id} cannot be read: {error}") from error
    if run.last_event_id != stored.execution.last_event_id:
        raise BrokenHistory(
            f"run {stored.execution.run.run_id} has {stored.execution.last_event_id} events, {run.last_event_id} of "
            "them could be read"
        )
    return run


def restored(stored: StoredRun, run: Run, definition: Machine, shard: int, parent: LiveRun | None) -> LiveRun:
    """The live run of what was replayed."""
    live = LiveRun(run, definition, shard, parent)
    live.committed_id = run.last_event_id
    kept, tail = stored.snapshot, stored.tail
    if kept is not None:
        live.snapshot_size = len(kept.data)
        live.snapshot_at = run.history_bytes - sum(len(data) for data in tail)
    return live
