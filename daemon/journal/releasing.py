"""What leaves once it is on disk: a batch's answers, offers, retirements and wake-ups, in their order. An answer that
would say what is not yet on disk waits for its batch.

What is written, and when, is not known here.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING

import trio

from daemon.journal.batch import Answer, Gathering
from daemon.journal.lease import lapsed
from daemon.journal.letters import log_letter
from daemon.journal.live import LiveRun
from daemon.links.interface import Request
from daemon.stores.interface import StoreUnavailable
from enginekit.messages.calls import Result
from enginekit.messages.json import NotJSON
from enginekit.messages.links import ArmSchedule, ArmTimer, CancelTasks, Millis, OutcomesRecorded, RetireTasks
from enginekit.messages.status import ErrorStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.session import Session


class Releases:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def answer(self, request: Request, outcome: Result | Refused, *about: LiveRun) -> None:
        """Answer, or refuse, as soon as everything that the answer may know of these runs is on disk."""
        session = self._session
        batch: Gathering | None = None
        for live in about:
            if live.batch is not None and batch is not session.committer.gathering:
                batch = live.batch
        if batch is None and not session.lease.holds:
            # It would be read off memory, and somebody else may have written since.
            outcome = lapsed()
        answer = Answer(request, outcome, tuple(live.run.ref for live in about))
        if batch is None:
            answer.give()
        else:
            batch.answers.append(answer)

    def finish(self, request: Request, rest: Coroutine[None, None, None]) -> None:
        """Do the part of an answer that waits for the store. Whatever becomes of it, the request is ended."""
        self._session.nursery.start_soon(self._finish, request, rest)

    async def _finish(self, request: Request, rest: Coroutine[None, None, None]) -> None:
        try:
            await rest
        except Refused as refused:
            # What a run may not do is read off memory like what it is.
            self.answer(request, refused)
        except NotJSON as error:
            request.refuse(Refused(ErrorStatus.INVALID_ARGUMENT, f"params: {error}"))
        except LookupError as error:
            request.refuse(Refused(ErrorStatus.INTERNAL, str(error)))
        except (StoreUnavailable, trio.Cancelled):
            request.refuse(
                Refused(ErrorStatus.UNAVAILABLE, "History is starting again; ask again", {"retry_after_seconds": 0.5})
            )
            raise

    def release(self, batch: Gathering, wakes: list[tuple[LiveRun, Millis]]) -> None:
        """The batch is on disk."""
        session = self._session
        for pending in batch.writes.values():
            live = pending.live
            live.committed_id = pending.first_event_id + len(pending.events) - 1
            if live.batch is batch:
                live.batch = None
        for written in batch.definitions:
            session.definitions.written(written)
        for name in batch.held:
            session.held.pop(name).set()
        for purge in batch.purges:
            session.finder.release(purge.run)
        for answer in batch.answers:
            answer.give()
        if batch.canceled:
            session.matching.put(RetireTasks(batch.canceled, cancel=True))
        if batch.retired:
            session.matching.put(RetireTasks(batch.retired))
        for queue, tasks in batch.taken.items():
            session.matching.put(RetireTasks(tasks, queue=queue))
        # After the retirements: a task may have been started and given back within one batch.
        for live, task_id, offer in batch.offers:
            if task_id in live.run.tasks:
                session.matching.put(offer)
        for worker, tasks in batch.called_off.items():
            session.worker.put(CancelTasks(worker, tasks))
        for worker, tasks in batch.recorded.items():
            session.worker.put(OutcomesRecorded(worker, tasks))
        for live, wake_at in wakes:
            session.timer.put(ArmTimer(live.run.ref, wake_at))
        for schedule in batch.all_schedules():
            if schedule.next_at is not None:
                session.timer.put(ArmSchedule(schedule.schedule, schedule.next_at))
        for pending in batch.writes.values():
            live = pending.live
            for letter in pending.letters_added:
                log_letter(live.run, letter)
            if live.waiters:
                session.waiters.committed(live)
            if pending.created is not None:
                session.metrics.execution_started()
            for _ in pending.letters_added:
                session.metrics.dead_lettered()
            if pending.created is not None or pending.reopened or (live.closed and pending.events):
                session.watch.changed(live)
            if live.closed and pending.events:
                session.pulses.pop(live.run.ref.run_id, None)
                session.metrics.execution_closed(live.run.status)
                session.schedules.closed(live.run)
        for live in batch.unfinished:
            session.stepper.add(live)
        for ref, number in batch.obliged:
            session.children.due(ref, number)
        for live, mapping, data in batch.stopped:
            session.mappings.stop(live.run.ref, live.shard, mapping, data)
        batch.committed.set()
        session.runs.shrink()
