"""The Frontend's calls about schedules: create, list, describe, pause, resume, trigger, delete."""

from __future__ import annotations

from datetime import datetime, timedelta

from daemon.clock import moment
from daemon.execution import schedule as core
from daemon.execution.schedule import Schedule, Spec
from daemon.journal.live import LiveRun
from daemon.journal.schedules import LABEL, no_such_schedule, readable, started_as
from daemon.journal.session import Session
from daemon.journal.zones import cron_of
from daemon.links.interface import Request
from enginekit.messages import schedules as calls
from enginekit.messages.calls import Acknowledged
from enginekit.messages.links import RunRef, ScheduleRef
from enginekit.messages.schedules import TriggerOutcome
from enginekit.messages.status import ErrorStatus, Refused

_MOMENT = timedelta(milliseconds=1)


class ScheduleCalls:
    """Answers calls within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._schedules = session.schedules

    def _now(self) -> datetime:
        return moment(self._session.clock.now())

    # --- changing ---------------------------------------------------------------------------------------------------

    async def create(self, request: Request, call: calls.CreateSchedule) -> None:
        session, caller = self._session, request.caller
        cron = cron_of(call.cron, call.time_zone)
        if LABEL in call.labels:
            raise Refused(
                ErrorStatus.INVALID_ARGUMENT,
                f"labels: `{LABEL}` is the engine's: each execution gets the schedule's id under it",
                {"field": "labels"},
            )
        spec = Spec(
            cron=call.cron,
            time_zone=call.time_zone,
            workflow=call.workflow,
            version=call.version,
            input=call.input,
            labels=call.labels,
            overlap=call.overlap,
            catch_up_seconds=call.catch_up_seconds,
        )
        made = core.create(
            spec,
            cron,
            self._now(),
            by=caller.subject,
            request_id=call.request_id,
            paused=call.paused,
            note=call.note,
        )
        result = calls.CreateScheduleResult(schedule_id=call.schedule_id, next_at=made.next_at)
        await self._check_workflow(caller.tenant, call)
        await session.committer.room()
        async with self._schedules.turn(ScheduleRef(caller.tenant, call.schedule_id)) as turn:
            there = turn.schedule
            if there is not None and call.request_id is not None and there.request_id == call.request_id:
                request.answer(calls.CreateScheduleResult(schedule_id=call.schedule_id, next_at=there.next_at))
                return
            if there is not None:
                raise Refused(
                    ErrorStatus.ALREADY_EXISTS,
                    f'schedule_id: there is a schedule "{call.schedule_id}" already; delete it, or choose another id',
                )
            self._schedules.gather(turn, made)
            self._schedules.answer(request, result)

    async def _check_workflow(self, tenant: str, call: calls.CreateSchedule) -> None:
        field = "workflow" if call.version is None else "version"
        try:
            await self._session.definitions.row(tenant, call.workflow, call.version)
        except Refused as refused:
            message = f"{field}: {refused.message}; register it first"
            raise Refused(refused.status, message, {"field": field}) from refused

    async def pause(self, request: Request, call: calls.PauseSchedule) -> None:
        async with self._schedules.turn(ScheduleRef(request.caller.tenant, call.schedule_id)) as turn:
            self._schedules.gather(turn, core.pause(turn.existing, call.note))
            self._schedules.answer(request, Acknowledged())

    async def resume(self, request: Request, call: calls.ResumeSchedule) -> None:
        async with self._schedules.turn(ScheduleRef(request.caller.tenant, call.schedule_id)) as turn:
            cron = readable(turn.existing)
            self._schedules.gather(turn, core.resume(turn.existing, cron, self._now(), call.note))
            self._schedules.answer(request, Acknowledged())

    async def delete(self, request: Request, call: calls.DeleteSchedule) -> None:
        async with self._schedules.turn(ScheduleRef(request.caller.tenant, call.schedule_id)) as turn:
            self._schedules.gather(turn, None)
            self._schedules.answer(request, Acknowledged())

    async def trigger(self, request: Request, call: calls.TriggerSchedule) -> None:
        schedules, subject = self._schedules, request.caller.subject
        await self._session.committer.room()
        async with schedules.turn(ScheduleRef(request.caller.tenant, call.schedule_id)) as turn:
            schedule = turn.existing
            repeated = await self._repeated(turn.ref, schedule, call)
            if repeated is not None:
                request.answer(repeated)
                return
            running = await schedules.running(turn.ref, schedule)
            decision = core.trigger(schedule, self._now(), running, by=subject, request_id=call.request_id)
            if decision.start is not None:
                run = await schedules.start(turn.ref, decision.schedule, decision.start)
                live = run if isinstance(run, LiveRun) else None
                started = started_as(decision.start, run)
                schedules.gather(turn, core.started(decision.schedule, started), live)
                schedules.answer(request, _started(started.workflow_id, started.run_id), live)
                return
            live = await schedules.cancel(turn.ref, decision.schedule) if decision.cancel else None
            schedules.gather(turn, decision.schedule, live)
            schedules.answer(request, calls.TriggerScheduleResult(outcome=TriggerOutcome.BUFFERED), live)

    async def _repeated(
        self, ref: ScheduleRef, schedule: Schedule, call: calls.TriggerSchedule
    ) -> calls.TriggerScheduleResult | None:
        """What the same request has come to before."""
        if call.request_id is None:
            return None
        firing = core.Firing(at=schedule.created_at, by="", request_id=call.request_id)
        if schedule.buffered is not None and schedule.buffered.request_id == call.request_id:
            return calls.TriggerScheduleResult(outcome=TriggerOutcome.BUFFERED)
        name = core.request_id(schedule, ref.schedule_id, firing)
        found: RunRef | None = (await self._session.store.start_check(ref.tenant, "", name)).requested
        return None if found is None else _started(found.workflow_id, found.run_id)

    # --- reading ----------------------------------------------------------------------------------------------------

    async def list(self, request: Request, call: calls.ListSchedules) -> None:
        session, tenant = self._session, request.caller.tenant
        page_bytes = session.settings.history.page_bytes
        page = await session.store.list_schedules(tenant, call.page_size, call.page_token, page_bytes)
        last = page[-1].schedule.schedule_id if page else None
        more = last is not None and bool(await session.store.list_schedules(tenant, 1, last, 1))
        request.answer(
            calls.ListSchedulesResult(
                schedules=[_summary(row.schedule.schedule_id, core.load(row.data)) for row in page],
                next_page_token=last if more else None,
            )
        )

    async def describe(self, request: Request, call: calls.DescribeSchedule) -> None:
        row = await self._session.store.schedule(request.caller.tenant, call.schedule_id)
        if row is None:
            raise no_such_schedule(call.schedule_id)
        schedule = core.load(row.data)
        since = self._now() if schedule.next_at is None else schedule.next_at - _MOMENT
        spec, last = schedule.spec, schedule.last
        request.answer(
            calls.DescribeScheduleResult(
                schedule_id=call.schedule_id,
                cron=spec.cron,
                time_zone=spec.time_zone,
                workflow=spec.workflow,
                version=spec.version,
                input=spec.input,
                labels=spec.labels,
                overlap=spec.overlap,
                catch_up_seconds=spec.catch_up_seconds,
                paused=schedule.paused,
                note=schedule.note,
                created_at=schedule.created_at,
                created_by=schedule.created_by,
                next_at=schedule.next_at,
                upcoming=readable(schedule).first(since, call.upcoming),
                buffered_at=None if schedule.buffered is None else schedule.buffered.at,
                last_run=None
                if last is None
                else calls.ScheduledRun(at=last.at, workflow_id=last.workflow_id, run_id=last.run_id),
                started=schedule.started,
                skipped=schedule.skipped,
                missed=schedule.missed,
                failed=schedule.failed,
                last_error=schedule.last_error,
                last_error_at=schedule.last_error_at,
            )
        )


def _started(workflow_id: str, run_id: str) -> calls.TriggerScheduleResult:
    return calls.TriggerScheduleResult(outcome=TriggerOutcome.STARTED, workflow_id=workflow_id, run_id=run_id)


def _summary(schedule_id: str, schedule: Schedule) -> calls.ScheduleSummary:
    spec = schedule.spec
    return calls.ScheduleSummary(
        schedule_id=schedule_id,
        cron=spec.cron,
        time_zone=spec.time_zone,
        workflow=spec.workflow,
        version=spec.version,
        overlap=spec.overlap,
        paused=schedule.paused,
        note=schedule.note,
        next_at=schedule.next_at,
        last_at=None if schedule.last is None else schedule.last.at,
        last_error=schedule.last_error,
    )
