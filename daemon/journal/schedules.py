"""Schedules within one session: what is asked about them, and what they fire.

Nothing of a schedule is kept in memory. One thing at a time happens to it, from the look into the store to the commit
of what came of it, and what it starts or cancels is in that very commit: a firing is neither lost nor made twice,
whatever dies. The Timer says when one is due; that the execution a firing waits for has closed is heard of when that is
on disk, and a session begins by looking at all schedules with a firing that waits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemon.clock import millis, moment
from daemon.execution import schedule as core
from daemon.execution.commands import Cancel
from daemon.execution.cron import Cron
from daemon.execution.schedule import Decision, Firing, Schedule
from daemon.execution.state import Run
from daemon.journal.batch import Answer
from daemon.journal.live import LiveRun
from daemon.journal.starting import Wanted
from daemon.journal.zones import cron_of
from daemon.links.interface import Request
from daemon.links.sharding import shard_of, shard_of_schedule
from daemon.stores.rows import ScheduleWrite
from enginekit.messages.calls import Result
from enginekit.messages.links import RunRef, ScheduleRef, StartRun, WakeSchedules
from enginekit.messages.schedules import Overlap
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.session import Session

log = structlog.get_logger("history")

LABEL: Final = "schedule"
"""The label that executions have which a schedule has started."""

FIRING: Final = 32
"""Schedules that are fired at once."""

RETRY_SECONDS: Final = 1.0
"""Until a firing is tried again that another shard's owner could not be asked for."""

_PASSING: Final = frozenset({ErrorStatus.UNAVAILABLE, ErrorStatus.RESOURCE_EXHAUSTED})


class Turn:
    """A schedule's, with how it is in the store. `gathered` once something was decided about it."""

    def __init__(self, ref: ScheduleRef, schedule: Schedule | None) -> None:
        self.ref = ref
        self.schedule = schedule
        self.gathered = False

    @property
    def existing(self) -> Schedule:
        """Raises Refused NOT_FOUND."""
        if self.schedule is None:
            raise no_such_schedule(self.ref.schedule_id)
        return self.schedule


class Schedules:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: set[ScheduleRef] = set()
        self._firing = trio.CapacityLimiter(FIRING)

    # --- one at a time ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def turn(self, ref: ScheduleRef) -> AsyncIterator[Turn]:
        """Until the block ends, or what was gathered in it is on disk, nothing else happens to the schedule."""
        held = self._session.held
        name = _name(ref)
        while name in held:
            await held[name].wait()
        held[name] = trio.Event()
        turn = Turn(ref, None)
        try:
            row = await self._session.store.schedule(ref.tenant, ref.schedule_id)
            turn.schedule = None if row is None else core.load(row.data)
            yield turn
        finally:
            if not turn.gathered:
                held.pop(name).set()

    def gather(self, turn: Turn, schedule: Schedule | None, live: LiveRun | None = None) -> None:
        """It is so from now on (None: gone), together with what the same batch has about a run."""
        session, ref = self._session, turn.ref
        shard = self._shard(ref)
        place = ScheduleWrite(
            shard=shard,
            epoch=session.epochs[shard],
            schedule=ref,
            revision=turn.existing.revision + 1 if schedule is None else schedule.revision,
            next_at=None if schedule is None or schedule.next_at is None else millis(schedule.next_at),
            waiting=schedule is not None and schedule.buffered is not None,
            data=None if schedule is None else core.dump(schedule),
        )
        batch = session.committer.gathering
        pending = None if live is None else batch.writes.get(live.run.ref.run_id)
        if pending is None:
            batch.schedules.append(place)
        else:
            pending.schedule = place
        batch.bytes += len(place.data or b"")
        batch.held.append(_name(ref))
        turn.gathered = True
        session.committer.touch()

    def answer(self, request: Request, result: Result, live: LiveRun | None = None) -> None:
        """Once what has been gathered is on disk."""
        about = () if live is None else (live.run.ref,)
        self._session.committer.gathering.answers.append(Answer(request, result, about))

    def _shard(self, ref: ScheduleRef) -> int:
        return shard_of_schedule(ref, self._session.shards)

    # --- what is due ------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Look at all that wait for an execution: it may have closed unheard."""
        after: ScheduleRef | None = None
        while page := await self._session.store.waiting_schedules(1000, after, self._session.some):
            for ref in page:
                self.wake(ref)
            after = page[-1]

    def wake(self, ref: ScheduleRef) -> None:
        """Something may be due."""
        if ref not in self._asked and self._shard(ref) in self._session.epochs:
            self._asked.add(ref)
            self._session.nursery.start_soon(self._fire, ref)

    def closed(self, run: Run) -> None:
        """A run has closed, and that is on disk: a schedule may have waited for it."""
        if run.request_id is None or not run.request_id.startswith(core.PREFIX):
            return
        ref = ScheduleRef(run.ref.tenant, run.labels[LABEL])
        if self._shard(ref) in self._session.epochs:
            self.wake(ref)
        else:
            # Where this is lost, the schedule's next firing finds that it has closed.
            self._session.history.offer(WakeSchedules([ref]))

    async def _fire(self, ref: ScheduleRef) -> None:
        """Until nothing more is due: one firing a commit."""
        async with self._firing:
            self._asked.discard(ref)
            written = 0
            while True:
                async with self.turn(ref) as turn:
                    schedule = turn.schedule
                    if schedule is None:
                        return
                    if schedule.revision < written:
                        log.error("a firing could not be written; it is tried again later", **_about(ref))
                        return
                    decision = await self._due(ref, schedule)
                    if decision is None:
                        return
                    try:
                        await self._carry_out(turn, decision)
                    except Refused as refused:
                        log.info("a firing waits for another shard's owner", why=refused.message, **_about(ref))
                        self._session.nursery.start_soon(self._wake_later, ref)
                        return
                    written = decision.schedule.revision

    async def _wake_later(self, ref: ScheduleRef) -> None:
        await trio.sleep(RETRY_SECONDS)
        self.wake(ref)

    async def _due(self, ref: ScheduleRef, schedule: Schedule) -> Decision | None:
        now = moment(self._session.clock.now())
        try:
            cron = cron_of(schedule.spec.cron, schedule.spec.time_zone)
        except Refused as refused:
            log.error("a schedule cannot be read any more; it rests", why=refused.message, **_about(ref))
            return Decision(schedule=core.rest(schedule, refused.message, now))
        return core.fire(schedule, cron, now, await self.running(ref, schedule))

    async def _carry_out(self, turn: Turn, decision: Decision) -> None:
        """Raises Refused where another shard's owner cannot be asked now."""
        schedule, firing = decision.schedule, decision.start
        live: LiveRun | None = None
        if firing is not None:
            try:
                run = await self.start(turn.ref, schedule, firing)
            except (Refused, LookupError) as error:
                if isinstance(error, Refused) and error.status in _PASSING:
                    raise
                why = error.message if isinstance(error, Refused) else str(error)
                log.warning("a schedule could not start its workflow", why=why, at=str(firing.at), **_about(turn.ref))
                schedule = core.failed(schedule, firing, why, moment(self._session.clock.now()))
            else:
                live = run if isinstance(run, LiveRun) else None
                schedule = core.started(schedule, started_as(firing, run))
        elif decision.cancel:
            live = await self.cancel(turn.ref, schedule)
        self.gather(turn, schedule, live)

    # --- runs -------------------------------------------------------------------------------------------------------

    async def running(self, ref: ScheduleRef, schedule: Schedule) -> bool:
        """Whether what it started last has not closed, as far as that is on disk. Not asked where it makes no
        difference."""
        last = schedule.last
        if last is None or schedule.spec.overlap is Overlap.ALLOW:
            return False
        live = self._session.runs.get(last.run_id)
        if live is not None:
            return not live.closed
        row = await self._session.store.execution(ref.tenant, last.run_id)
        return row is not None and row.status is ExecutionStatus.RUNNING

    async def start(self, ref: ScheduleRef, schedule: Schedule, firing: Firing) -> LiveRun | RunRef:
        """What a firing starts, gathered; or what this very firing has started before.

        Raises Refused and LookupError where it cannot be started.
        """
        session, spec = self._session, schedule.spec
        name, request = core.workflow_id(ref.schedule_id, firing), core.request_id(schedule, ref.schedule_id, firing)
        by, labels = firing.by or f"schedule:{ref.schedule_id}", {**spec.labels, LABEL: ref.schedule_id}
        if shard_of(ref.tenant, name, session.shards) not in session.epochs:
            call = StartRun(
                workflow=spec.workflow,
                version=spec.version,
                input=spec.input,
                workflow_id=name,
                request_id=request,
                by=by,
                labels=labels,
            )
            there = await session.across.start(call, ref.tenant)
            return RunRef(ref.tenant, there.workflow_id, there.run_id)
        found = await session.definitions.registered(ref.tenant, spec.workflow, spec.version)
        return await session.starts.start(
            Wanted(
                tenant=ref.tenant,
                by=by,
                definition=found.definition,
                definition_hash=found.hash,
                input=spec.input,
                workflow=spec.workflow,
                version=found.version,
                workflow_id=name,
                request_id=request,
                labels=labels,
            )
        )

    async def cancel(self, ref: ScheduleRef, schedule: Schedule) -> LiveRun | None:
        """Ask what it started last to end: gathered, unless it has closed meanwhile."""
        last = schedule.last
        assert last is not None
        found: list[LiveRun] = []
        done = trio.Event()

        def have(live: LiveRun) -> None:
            live.waiters += 1
            found.append(live)
            done.set()

        run = RunRef(ref.tenant, last.workflow_id, last.run_id)
        command = Cancel(reason=f'schedule "{ref.schedule_id}" has its next firing', request_id=None)
        by = f"schedule:{ref.schedule_id}"
        if not self._session.across.owns(run):
            await self._session.across.act(run, command, by)
            return None
        self._session.when_live(run, have, _then(done.set))
        await done.wait()
        if not found:
            return None
        live = found[0]
        live.waiters -= 1
        if not live.run.status.closed:
            self._session.act_quietly(live, command, by)
        return live


def started_as(firing: Firing, run: LiveRun | RunRef) -> core.Started:
    """For the record."""
    ref = run.run.ref if isinstance(run, LiveRun) else run
    return core.Started(at=firing.at, workflow_id=ref.workflow_id, run_id=ref.run_id)


def no_such_schedule(schedule_id: str) -> Refused:
    return Refused(ErrorStatus.NOT_FOUND, f'no schedule "{schedule_id}"')


def readable(schedule: Schedule) -> Cron:
    """Its cron text. Raises Refused where it cannot be read any more."""
    return cron_of(schedule.spec.cron, schedule.spec.time_zone)


def _name(ref: ScheduleRef) -> tuple[str, str]:
    return ref.tenant, f"schedule {ref.schedule_id}"


def _about(ref: ScheduleRef) -> dict[str, str]:
    return {"tenant": ref.tenant, "schedule": ref.schedule_id}


def _then(action: Callable[[], None]) -> Callable[[Refused], None]:
    return lambda refused: action()
