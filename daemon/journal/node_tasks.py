"""Tasks of nodes that Workers in other processes run: their start, their leases, and what is given back.

How they end is a report like that of any Worker (`reports.py`).
"""

from __future__ import annotations

from functools import partial

from daemon.clock import moment
from daemon.execution import tasks
from daemon.execution.commands import ReturnTask, StartTask
from daemon.journal.handout import spec_of, task_of
from daemon.journal.live import LiveRun
from daemon.journal.reports import HANDED_BYTES, Reports
from daemon.journal.session import Session
from daemon.links.interface import Request
from enginekit.messages.json import size
from enginekit.messages.links import (
    CancelTasks,
    GiveBackTasks,
    RenewTasks,
    RetireTasks,
    StartedNode,
    StartNodes,
    StartNodesResult,
    TaskRef,
)
from enginekit.messages.status import ErrorStatus, Refused


class NodeTasks:
    """Within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reports = Reports(session)

    async def start(self, request: Request, call: StartNodes) -> None:
        """Record the start of those that still wait, all in one commit, and hand them out. Whoever asks again for what
        it was given, since the answer was lost, is given it again."""
        session = self._session
        pinned = [live for ref in call.tasks if (live := await self._reports.pin(ref)) is not None]
        lives = {live.run.ref: live for live in pinned}
        handed: list[tuple[LiveRun, int]] = []
        stale: list[TaskRef] = []
        rest: list[TaskRef] = []
        room = HANDED_BYTES
        try:
            for ref in call.tasks:
                live = lives.get(ref.run)
                found = None if live is None else tasks.running(live.run, ref.event_id)
                if live is None or found is None:
                    stale.append(ref)
                    continue
                task = found[1]
                needed = size(task.input.raw)
                if needed > room and handed:
                    rest.append(ref)
                    continue
                if not tasks.has(task, call.worker_id):
                    decision = session.act_quietly(live, StartTask(task=ref.event_id, worker=call.worker_id))
                    if decision is None or not decision.started:
                        stale.append(ref)
                        continue
                room -= needed
                handed.append((live, ref.event_id))
            started = [self._started(live, task_id) for live, task_id in handed]
            session.answer(request, StartNodesResult(tasks=started, rest=rest), *lives.values())
        finally:
            for live in pinned:
                live.waiters -= 1
        if stale and session.lease.holds:
            session.matching.put(RetireTasks(stale))

    def _started(self, live: LiveRun, task_id: int) -> StartedNode:
        _, task = task_of(live, task_id)
        lease_seconds = self._session.defaults.lease_seconds if task.lease_seconds is None else task.lease_seconds
        return StartedNode(spec_of(live, task_id), task.returns, lease_seconds)

    def renew(self, message: RenewTasks) -> None:
        """No event, as with heartbeats. A Worker is told of what is not its own (any more)."""
        for ref in message.tasks:
            self._session.when_live(
                ref.run, partial(self._renew, message.worker, ref), partial(self._lost, message.worker, ref)
            )

    def _renew(self, worker: str, ref: TaskRef, live: LiveRun) -> None:
        session = self._session
        found = tasks.running(live.run, ref.event_id)
        if found is not None and tasks.has(found[1], worker):
            session.pulse(live).leases[ref.event_id] = moment(session.clock.now())
        elif live.batch is None:
            # Without the lease somebody else may know better: the next renewal goes there.
            if session.lease.holds:
                session.worker.put(CancelTasks(worker, [ref]))
        else:
            live.batch.called_off.setdefault(worker, []).append(ref)

    def _lost(self, worker: str, ref: TaskRef, refused: Refused) -> None:
        if refused.status is ErrorStatus.NOT_FOUND:
            self._session.worker.put(CancelTasks(worker, [ref]))

    def give_back(self, message: GiveBackTasks) -> None:
        """Each goes to another worker, as the same attempt; one that is not this Worker's stays where it is."""
        for ref in message.tasks:
            self._session.when_live(ref.run, partial(self._give_back, message, ref), _nobody)

    def _give_back(self, message: GiveBackTasks, ref: TaskRef, live: LiveRun) -> None:
        found = tasks.running(live.run, ref.event_id)
        if found is not None and tasks.has(found[1], message.worker):
            returned = ReturnTask(task=ref.event_id, returns=found[1].returns, reason=message.reason)
            self._session.act_quietly(live, returned)


def _nobody(refused: Refused) -> None:
    """Nobody waits for this to be done."""
