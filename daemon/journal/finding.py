"""Finding runs: those in memory at once, the others read back from the store, in the order they were asked for in.

A run that cannot be read back, or on which a decision failed, is set aside: whoever asks for it is told why, and
nothing is decided about it until History starts again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog
import trio

from daemon.execution import snapshot
from daemon.execution.history import BrokenHistory
from daemon.journal.definitions import Definitions
from daemon.journal.live import LiveRun, LiveRuns, replayed, restored
from daemon.links.sharding import shard_of_ref
from daemon.logs import about
from daemon.stores.interface import Store
from daemon.stores.rows import StoredRun
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("history")

LOADERS = 3
"""Answers of the store that are under way: while the runs of one are replayed, the store reads those of the next."""

LOADED_RUNS = 64
LOADED_BYTES = 8 * 1024 * 1024
"""What one answer has at most, but for its last run."""

LOADS_WAITING = 1024
"""Runs that may wait to be read back; beyond, no more messages are taken until it is half of that."""

Action = Callable[[LiveRun], None]
Lost = Callable[[Refused], None]


class Finder:
    """Of one session. Loaders are tasks of its nursery and end with it."""

    def __init__(
        self, store: Store, definitions: Definitions, runs: LiveRuns, shards: int, nursery: trio.Nursery
    ) -> None:
        self._store = store
        self._definitions = definitions
        self._runs = runs
        self._shards = shards
        self._nursery = nursery
        self._aside: dict[RunRef, str] = {}
        self._loading: dict[RunRef, list[tuple[Action, Lost]]] = {}
        self._wanted: deque[RunRef] = deque()
        self._loaders = 0
        self._loaded = trio.Event()

    def set_aside(self, ref: RunRef, why: str) -> Refused:
        """This run cannot go on here. What whoever asks for it is told."""
        self._aside[ref] = why
        return Refused(ErrorStatus.INTERNAL, f"run {ref.run_id} is set aside: {why}")

    def set_aside_for(self, ref: RunRef) -> Refused | None:
        """Why the run was set aside, None where it was not."""
        why = self._aside.get(ref)
        return None if why is None else self.set_aside(ref, why)

    def refuse_all(self, refused: Refused) -> None:
        """Whoever waits for a run to be read back is told so."""
        for waiting in self._loading.values():
            for _, lost in waiting:
                lost(refused)

    def when_live(self, ref: RunRef, action: Action, lost: Lost) -> None:
        """Do it to the run: now, where it is in memory, else when it has been read back, in the order asked."""
        problem = self.set_aside_for(ref)
        if problem is not None:
            lost(problem)
            return
        live = self._runs.get(ref.run_id)
        if live is not None:
            if (live.run.ref.tenant, live.run.ref.workflow_id) == (ref.tenant, ref.workflow_id):
                action(live)
            else:
                lost(no_such_run(ref))
            return
        waiting = self._loading.get(ref)
        if waiting is not None:
            waiting.append((action, lost))
            return
        self._loading[ref] = [(action, lost)]
        self._wanted.append(ref)
        if self._loaders < LOADERS:
            self._loaders += 1
            self._nursery.start_soon(self._load)

    def withhold(self, ref: RunRef) -> bool:
        """From now on whoever asks for the run waits, until it is `released`. False where it is being read back."""
        if ref in self._loading:
            return False
        self._loading[ref] = []
        return True

    def release(self, ref: RunRef) -> None:
        """What has become of it is on disk: those who have asked for it meanwhile get what is there now."""
        asked = self._loading.pop(ref)
        self._fewer()
        for action, lost in asked:
            self.when_live(ref, action, lost)

    async def _load(self) -> None:
        """Read back what is wanted, until nothing is."""
        while self._wanted:
            refs = [self._wanted.popleft() for _ in range(min(len(self._wanted), LOADED_RUNS))]
            some = await self._store.load_runs(refs, snapshot.FINGERPRINT, LOADED_BYTES)
            self._wanted.extendleft(reversed(refs[len(some) :]))
            for ref, stored in zip(refs, some, strict=False):
                await self._restore(ref, stored)
            self._runs.shrink()
        self._loaders -= 1

    async def _restore(self, ref: RunRef, stored: StoredRun | None) -> None:
        """Make it live; where another run started it, as soon as that one is."""
        if stored is None or stored.execution.run != ref:
            self._settle(ref, no_such_run(ref))
            return
        try:
            run = replayed(stored)
            parent = run.parent
            machine = await self._definitions.machine(
                ref.tenant, run.definition_hash, None if parent is None else parent.state
            )
        except (BrokenHistory, LookupError) as error:
            log.exception("an execution cannot be read back", **about(ref))
            self._settle(ref, self.set_aside(ref, str(error)))
            return
        shard = shard_of_ref(ref, self._shards)
        if parent is None:
            self._settle(ref, restored(stored, run, machine, shard, None))
            return
        self.when_live(
            RunRef(ref.tenant, parent.workflow_id, parent.run_id),
            lambda found: self._settle(ref, restored(stored, run, machine, shard, found)),
            lambda refused: self._settle(ref, refused),
        )

    def _settle(self, ref: RunRef, outcome: LiveRun | Refused) -> None:
        """It has been read back, or cannot be: tell everybody who asked for it."""
        if isinstance(outcome, LiveRun):
            self._runs.add(outcome)
        waiting = self._loading.pop(ref)
        self._fewer()
        for action, lost in waiting:
            if isinstance(outcome, LiveRun):
                action(outcome)
            else:
                lost(outcome)

    def _fewer(self) -> None:
        if len(self._loading) <= LOADS_WAITING // 2:
            self._loaded.set()

    async def keep_up(self) -> None:
        """Wait while too many runs are being read back."""
        if len(self._loading) > LOADS_WAITING:
            self._loaded = trio.Event()
            await self._loaded.wait()


def no_such_run(ref: RunRef) -> Refused:
    return Refused(ErrorStatus.NOT_FOUND, f'no execution "{ref.workflow_id}" with run {ref.run_id}')
