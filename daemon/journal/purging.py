"""The end of executions that have been closed for as long as `[history] retention_days` says.

Each session looks through the runs of its shards, page by page, and has those that may go purged by its next commit,
fenced like any other. What may go is the store's to say (`Purge`), and is judged again in that commit; what is in use
in memory is left for the next look. Without the setting none of this runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.journal.identity import uuid_of
from daemon.stores.rows import ExpiredRun, Purge

if TYPE_CHECKING:
    from daemon.journal.session import Session

log = structlog.get_logger("history")

DAY_SECONDS: Final = 86_400.0
LOOK_SECONDS: Final = 3600.0
"""How often executions are looked for that have been kept for long enough."""
PAGE_RUNS: Final = 500
"""How many are looked at in one read, and purged at most by one commit."""
TIDIED_BY: Final = 0
"""Who has this shard gives back what is left of past times, for all."""


async def purge_expired(session: Session, retention_days: float) -> None:
    """Purge what has been kept for as long as it is to be, until cancelled."""
    while True:
        # A run that started others can go when they are gone: until a look finds nothing, there may be more.
        while await _look(session, retention_days):
            pass
        if TIDIED_BY in session.epochs:
            await _tidy(session)
        await trio.sleep(LOOK_SECONDS)


async def _tidy(session: Session) -> None:
    """Step by step, between which others get at the store."""
    partitions: list[str] = []
    definitions = names = 0
    more = True
    while more:
        tidied = await session.store.tidy(session.clock.now())
        partitions += tidied.partitions
        definitions += tidied.definitions
        names += tidied.names
        more = tidied.more
    if partitions or definitions or names:
        log.info(
            "what nobody refers to any more is removed", partitions=partitions, definitions=definitions, names=names
        )


async def _look(session: Session, retention_days: float) -> int:
    """Through all runs that can be old enough. How many were purged, and are on disk no more."""
    before = session.clock.now() - round(retention_days * DAY_SECONDS * 1000)
    # A run's id is no greater than the time of its closing, but for a clock that was set back: then it stays longer.
    until = str(uuid_of(max(before, 0), 0, 0))
    after: str | None = None
    found = 0
    while True:
        page = await session.store.expired_runs(before, until, PAGE_RUNS, after, session.some)
        batch = session.committer.gathering
        going = [expired for expired in page.runs if _purge(session, expired, before)]
        if going:
            await batch.committed.wait()
            late = [(before - expired.closed_at) / 1000 for expired in going]
            session.metrics.purged(late)
            log.info(
                "executions have outlived their retention",
                purged=len(going),
                in_use=len(page.runs) - len(going),
                retention_days=retention_days,
                latest_seconds=round(max(late)),
            )
        found += len(going)
        after = page.after
        if after is None:
            return found


def _purge(session: Session, expired: ExpiredRun, before: int) -> bool:
    """Into the open batch, unless it is in use: nobody loads it, starts another one of its names, or redrives it before
    that is on disk."""
    ref = expired.run
    names = [(ref.tenant, f"workflow {ref.workflow_id}")]
    if expired.request_id is not None:
        names.append((ref.tenant, f"request {expired.request_id}"))
    live = session.runs.get(ref.run_id)
    in_use = live is not None and (live.batch is not None or live.waiters > 0 or not live.closed)
    if in_use or not session.across.owns(ref) or any(name in session.held for name in names):
        return False
    if not session.finder.withhold(ref):
        return False
    session.runs.remove(ref.run_id)
    for name in names:
        session.held[name] = trio.Event()
    batch = session.committer.gathering
    batch.held += names
    batch.purges.append(
        Purge(shard=session.shard(ref), epoch=session.epochs[session.shard(ref)], run=ref, closed_before=before)
    )
    session.committer.touch()
    return True
