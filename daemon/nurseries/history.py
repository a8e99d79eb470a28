"""History: the brain. It owns the shards, decides what happens next in every execution, and commits it.

Here is the service itself: how it comes to have shards, and loses them. What it knows of some shards between two losses
is a `Session` (`daemon/journal/`); what an execution does is `daemon/execution/`.

A store that belongs to this daemon alone gives it all shards, and there is one session over them. Of a store that is
shared each daemon has some; there is a session for each of those, so that one may go without the others, and their
commits are written together.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import structlog
import trio

from daemon.clock import Clock
from daemon.journal.committer import Commits
from daemon.journal.definitions import Definitions, NodeCheck
from daemon.journal.identity import RunIds
from daemon.journal.lease import Lease
from daemon.journal.merging import MergedCommits
from daemon.journal.ownership import Ownership
from daemon.journal.serving import serve
from daemon.journal.session import Session
from daemon.links.interface import Link
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.settings import Settings
from daemon.stores.interface import Fenced, Store, StoreUnavailable
from daemon.stores.rows import ShardEpochs
from enginekit.messages.calls import ShardView
from enginekit.messages.links import ToHistory

log = structlog.get_logger("history")

FIRST_PAUSE = 0.05
"""Seconds until the shards are taken again after the store was lost; doubled while they cannot be taken."""

LONGEST_PAUSE = 5.0

FENCED_PAUSE = 10.0
"""Seconds that another owner keeps the shards for. Two owners would otherwise take them from one another for ever."""


class History:
    """The service. `owner` is its name among those that share the store, a new one for each; `entropy` is where its
    ids, tokens' chance and jitter come from; `node_types` are those installed, and `check` asks one of them about
    arguments."""

    def __init__(
        self,
        links: Links,
        store: Store,
        settings: Settings,
        clock: Clock,
        owner: str,
        entropy: random.Random,
        node_types: frozenset[str],
        check: NodeCheck,
        metrics: Metrics,
    ) -> None:
        self._links = links
        self._store = store
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._entropy = entropy
        self._metrics = metrics
        self._definitions = Definitions(store, node_types, check, threads=clock.real)
        self._run_ids: RunIds | None = None
        self._sessions: list[Session] = []
        self._lease = Lease(clock)
        self._ownership: Ownership | None = None
        self._awaits_store = False
        self._taking_up: set[int] = set()
        """Shards that are claimed and whose sessions have not begun."""

    def lacks(self) -> str | None:
        """What it needs before it can answer for what is its. One that shares the store and has no shard lacks nothing:
        others have them all, and it is there to take theirs."""
        if self._ownership is None:
            return "it waits for the store, or for its shards" if self._awaits_store else None
        if not self._lease.holds:
            return "its lease has lapsed, and the store has not renewed it"
        if self._taking_up:
            return f"it takes up the shards {', '.join(map(str, sorted(self._taking_up)))}"
        return None

    def awaits_store(self, seconds: float) -> bool:
        """Whether it waits for the store to come back (or for its shards), or for one commit for as long."""
        since = [session.committer.committing_since for session in self._sessions]
        longest = min((begun for begun in since if begun is not None), default=None)
        return self._awaits_store or (longest is not None and trio.current_time() - longest >= seconds)

    def shards(self) -> list[ShardView]:
        """The shards it owns right now."""
        owned = sorted(place for session in self._sessions for place in session.epochs.items())
        return [ShardView(shard=shard, epoch=epoch) for shard, epoch in owned]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own shards until cancelled; after a loss of the store, own them anew. Reports started at the first session,
        or when it shares the store and has what is its. Cancelled: what is being committed may or may not be on disk;
        nobody was told that it is. Raises StoreUnusable where others have a store that it needs for itself."""
        self._awaits_store = True
        await self._store.wait_ready()
        while True:
            try:
                shared = (await self._store.info()).shared
                break
            except StoreUnavailable:
                await self._store.wait_ready()
                await trio.sleep(FIRST_PAUSE)
        if shared:
            await self._share(task_status)
        else:
            await self._have_all(task_status)

    async def drain(self) -> None:
        """Until everything that was decided is on disk; shared shards are given up."""
        if self._ownership is not None:
            await self._ownership.leave()
        for session in self._sessions:
            await session.committer.flushed()

    # --- a store of its own ------------------------------------------------------------------------------------------

    async def _have_all(self, task_status: trio.TaskStatus[None]) -> None:
        started = False

        def begun(session: Session) -> None:
            nonlocal started
            if not started:
                started = True
                task_status.started()
            log.info("shards taken", epochs=session.epochs)

        pause = FIRST_PAUSE
        while True:
            self._awaits_store = True
            await self._store.wait_ready()
            self._awaits_store = False
            try:
                owned = await self._store.take_shards()
                pause = FIRST_PAUSE
                await self._run_session(owned, self._store, self._links.history, begun)
            except* StoreUnavailable as lost:
                log.warning("the store is gone; every execution is read back", why=str(lost.exceptions[0]))
                # A store may be there and yet not be owned (a full disk): it is not asked without end.
                self._awaits_store = True
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except* Fenced as fenced:
                log.warning("another owner has taken the shards", why=str(fenced.exceptions[0]))
                self._awaits_store = True
                await trio.sleep(FENCED_PAUSE)

    # --- a store that is shared --------------------------------------------------------------------------------------

    async def _share(self, task_status: trio.TaskStatus[None]) -> None:
        alone = not self._links.shared
        self._definitions.alone = alone
        self._awaits_store = False
        merged = MergedCommits(self._store)
        async with trio.open_nursery() as nursery:

            def hold(owned: ShardEpochs) -> _Holding:
                inbox = self._links.history if alone else self._links.shard(next(iter(owned.epochs)))
                holding = _Holding(owned.epochs, self._taking_up)

                async def serve_it() -> None:
                    await self._run_session(owned, self._store if alone else merged, inbox, holding.begun)

                nursery.start_soon(holding.run, serve_it, ownership.look)
                return holding

            ownership = self._ownership = Ownership(
                self._store, self._owner, self._settings.history.lease_seconds, self._lease, hold, alone=alone
            )
            nursery.start_soon(merged.run)
            await ownership.run(task_status=task_status)
            await trio.sleep_forever()  # it has left: what else there is to drain goes on

    # --- a session ---------------------------------------------------------------------------------------------------

    async def _run_session(
        self,
        owned: ShardEpochs,
        commits: Commits,
        inbox: Link[ToHistory],
        begun: Callable[[Session], None],
    ) -> None:
        """From the claim of its shards to their loss. Raises (in a group) StoreUnavailable and Fenced."""
        async with trio.open_nursery() as nursery:
            shards = (await self._store.info()).shards
            self._run_ids = self._run_ids or RunIds(self._entropy, shards)
            self._run_ids.after(owned.newest_run_id)
            self._definitions.forget_registered()
            session = Session(
                self._links,
                self._store,
                commits,
                self._lease,
                self._settings,
                self._clock,
                self._entropy,
                self._definitions,
                owned,
                shards,
                self._run_ids,
                self._metrics,
                nursery,
            )
            self._sessions.append(session)
            try:
                await session.begin()
                begun(session)
                await serve(session, inbox)
            finally:
                self._sessions.remove(session)
                session.end()


class _Holding:
    """A session over shards that were claimed, as Ownership sees it. They are among `taking_up` until it has begun."""

    def __init__(self, epochs: dict[int, int], taking_up: set[int]) -> None:
        self.epochs = epochs
        self._taking_up = taking_up
        taking_up.update(epochs)
        self.ended = False
        self._session: Session | None = None
        self._scope = trio.CancelScope()
        self._done = trio.Event()

    def begun(self, session: Session) -> None:
        self._session = session
        self._taking_up.difference_update(self.epochs)

    async def run(self, serve_it: Callable[[], Awaitable[None]], look: Callable[[], None]) -> None:
        """From its beginning to its end, whatever that is."""
        try:
            with self._scope:
                await serve_it()
        except* StoreUnavailable as lost:
            log.warning("the store is gone; every execution is read back", why=str(lost.exceptions[0]), **self._about())
        except* Fenced as fenced:
            log.warning("another owner has taken the shard", why=str(fenced.exceptions[0]), **self._about())
        finally:
            self.ended = True
            self._taking_up.difference_update(self.epochs)
            self._done.set()
            look()

    async def flush(self) -> None:
        if self._session is not None and not self.ended:
            await self._session.committer.flushed()

    async def end(self) -> None:
        self._scope.cancel()
        await self._done.wait()

    def _about(self) -> dict[str, list[int]]:
        return {"shards": sorted(self.epochs)}
