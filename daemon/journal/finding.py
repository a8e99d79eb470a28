"""Finding runs: those in memory at once, the others read back from the store, in the order they were asked for in.

A run that cannot be read back, or on which a decision failed, is set aside: whoever asks for it is told why, and
nothing is decided about it until History starts again.
"""

from __future__ import annotations

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
from enginekit.messages.events import Parent
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, Refused

log = structlog.get_logger("history")

LOADS = 64
"""Runs that are read back at once."""

LOADS_WAITING = 1024
"""Runs that may wait to be read back; beyond, no more messages are taken until it is half of that."""

Action = Callable[[LiveRun], None]
Lost = Callable[[Refused], None]


class Finder:
    """Of one session. Loads are tasks of its nursery and end with it."""

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
        self._loads = trio.CapacityLimiter(LOADS)
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
        self._nursery.start_soon(self._load, ref)

    async def _load(self, ref: RunRef) -> None:
        problem: Refused | None = None
        live: LiveRun | None = None
        async with self._loads:
            stored = await self._store.load_run(ref.tenant, ref.run_id, snapshot.FINGERPRINT)
            if stored is None or stored.execution.run != ref:
                problem = no_such_run(ref)
            else:
                try:
                    run = replayed(stored)
                    machine = await self._definitions.machine(
                        ref.tenant, run.definition_hash, None if run.parent is None else run.parent.state
                    )
                except (BrokenHistory, LookupError) as error:
                    log.exception("an execution cannot be read back", **about(ref))
                    problem = self.set_aside(ref, str(error))
        if stored is not None and problem is None:
            # Not while holding one of the loads: the parent may need one too.
            try:
                parent = None if run.parent is None else await self._parent(ref, run.parent)
                live = restored(stored, run, machine, shard_of_ref(ref, self._shards), parent)
                self._runs.add(live)
            except Refused as refused:
                problem = refused
        waiting = self._loading.pop(ref)
        if len(self._loading) <= LOADS_WAITING // 2:
            self._loaded.set()
        for action, lost in waiting:
            if live is not None:
                action(live)
            else:
                assert problem is not None
                lost(problem)
        self._runs.shrink()

    async def _parent(self, ref: RunRef, parent: Parent) -> LiveRun:
        """The run that started this one. Raises Refused where it cannot be read back."""
        found: list[LiveRun | Refused] = []
        done = trio.Event()

        def have(outcome: LiveRun | Refused) -> None:
            found.append(outcome)
            done.set()

        self.when_live(RunRef(ref.tenant, parent.workflow_id, parent.run_id), have, have)
        await done.wait()
        if isinstance(found[0], Refused):
            raise found[0]
        return found[0]

    async def keep_up(self) -> None:
        """Wait while too many runs are being read back."""
        if len(self._loading) > LOADS_WAITING:
            self._loaded = trio.Event()
            await self._loaded.wait()


def no_such_run(ref: RunRef) -> Refused:
    return Refused(ErrorStatus.NOT_FOUND, f'no execution "{ref.workflow_id}" with run {ref.run_id}')
