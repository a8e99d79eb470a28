"""Who watches executions, and what they have not been told yet.

A tenant is watched while somebody asks for its changes; nobody's changes are kept otherwise, and noting one costs a
dictionary's entry. What is kept is the newest state of each run that has changed, a bounded number of them: whoever
asks too seldom misses some, and is told how many.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final

import trio

from daemon.execution.state import Run
from enginekit.messages.calls import ExecutionSummary
from enginekit.messages.subscriptions import WatchExecutions, WatchExecutionsResult

if TYPE_CHECKING:
    from daemon.journal.live import LiveRun
    from daemon.journal.session import Session
    from daemon.links.interface import Request

KEPT: Final = 2000
"""Changed runs that are kept for a tenant's watchers."""
ANSWERED: Final = 100
"""And told of at once, the oldest first: with all their labels they are a megabyte."""
UNWATCHED_SECONDS: Final = 60.0
"""So long after the last question a tenant is watched no longer."""
MARGIN_SECONDS: Final = 0.25


class _Watched:
    """One tenant's changes, oldest first, numbered within `name`. `forgotten` has the numbers of those that were
    dropped, `floor` the last."""

    __slots__ = ("asked_at", "changes", "floor", "forgotten", "name", "seq", "some")

    def __init__(self, name: str) -> None:
        self.name = name
        self.changes: OrderedDict[str, tuple[int, ExecutionSummary]] = OrderedDict()
        self.seq = 0
        self.floor = 0
        self.forgotten: list[int] = []
        self.some = trio.Event()
        self.asked_at = 0.0


class Watch:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._watched: dict[str, _Watched] = {}

    def changed(self, live: LiveRun) -> None:
        """A run was started, opened again or closed, and that is on disk."""
        if not self._watched or live.run.parent is not None or live.run.parent_task is not None:
            return
        run = live.run
        watched = self._watched.get(run.ref.tenant)
        if watched is None:
            return
        if trio.current_time() - watched.asked_at > UNWATCHED_SECONDS:
            del self._watched[run.ref.tenant]
            return
        watched.seq += 1
        watched.changes[run.ref.run_id] = watched.seq, summary_of(run)
        watched.changes.move_to_end(run.ref.run_id)
        if len(watched.changes) > KEPT:
            _, (number, _) = watched.changes.popitem(last=False)
            watched.floor = number
            watched.forgotten.append(number)
            del watched.forgotten[:-KEPT]
        watched.some.set()

    async def ask(self, request: Request, call: WatchExecutions) -> None:
        watched = self._watched.get(request.caller.tenant)
        if watched is None:
            # Never the name of one before: who comes back with its numbers is to begin anew.
            name = self._session.run_ids.make(self._session.clock.now(), 0)
            watched = self._watched[request.caller.tenant] = _Watched(name)
        watched.asked_at = trio.current_time()
        if call.watch != watched.name:
            self._session.answer(request, WatchExecutionsResult(watch=watched.name, seq=[watched.seq]))
            return
        (after,) = call.after
        until = min(trio.current_time() + call.wait_seconds, request.deadline - MARGIN_SECONDS)
        with trio.move_on_at(until):
            while watched.seq <= after:
                if watched.some.is_set():
                    watched.some = trio.Event()
                await watched.some.wait()
        watched.asked_at = trio.current_time()
        news = (change for change in watched.changes.values() if change[0] > after)
        found = list(islice(news, ANSWERED))
        missed = sum(number > after for number in watched.forgotten)
        seq = found[-1][0] if found else max(after, watched.floor)
        executions = [summary for _, summary in found]
        self._session.answer(
            request, WatchExecutionsResult(watch=watched.name, seq=[seq], executions=executions, missed=missed)
        )


def summary_of(run: Run) -> ExecutionSummary:
    return ExecutionSummary(
        workflow_id=run.ref.workflow_id,
        run_id=run.ref.run_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        error=run.error,
        labels=run.labels,
        started_at=run.started_at,
        closed_at=run.closed_at,
    )
