"""One schedule: what is to be fired at a given time, and what becomes of it then. Pure, as all of the core.

A schedule is not event-sourced: it is one small record that is replaced as a whole. `next_at` is the nominal time of
the firing that has not been dealt with yet, so that whoever looks late, after a downtime, finds all that was missed.
Firings that are due together count as overlapping: the first of them starts, and the others meet its execution as
running, however short it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Raw

from daemon.execution.cron import Cron
from enginekit.messages.schedules import Overlap
from enginekit.messages.status import ErrorStatus, Refused

COUNTED = 1000
"""Of more firings that are due at once, the rest is not counted."""

_SECOND = timedelta(seconds=1)
_encoder = msgspec.json.Encoder()


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for."""

    cron: str
    time_zone: str
    workflow: str
    version: int | None
    input: Raw
    labels: dict[str, str]
    overlap: Overlap
    catch_up_seconds: float


class Firing(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is its nominal time. Somebody's trigger has that one's `by`, and the id of the request where it had one."""

    at: datetime
    by: str | None = None
    request_id: str | None = None

    @property
    def manual(self) -> bool:
        return self.by is not None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that a firing has started."""

    at: datetime
    workflow_id: str
    run_id: str


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` counts its changes, from 1. The counts are of firings."""

    spec: Spec
    created_at: datetime
    created_by: str | None
    request_id: str | None
    revision: int = 1
    paused: bool = False
    note: str = ""
    next_at: datetime | None = None
    buffered: Firing | None = None
    last: Started | None = None
    triggered_at: datetime | None = None
    started: int = 0
    skipped: int = 0
    missed: int = 0
    failed: int = 0
    last_error: str | None = None
    last_error_at: datetime | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule as it is from now on; the firing that starts an execution; whether the last one is canceled."""

    schedule: Schedule
    start: Firing | None = None
    cancel: bool = False


def dump(schedule: Schedule) -> bytes:
    return _encoder.encode(schedule)


load = msgspec.json.Decoder(Schedule).decode


def create(
    spec: Spec, cron: Cron, now: datetime, *, by: str | None, request_id: str | None, paused: bool, note: str
) -> Schedule:
    """A new one. Raises Refused where it would never fire."""
    first = cron.after(now)
    if first is None:
        raise Refused(
            ErrorStatus.INVALID_ARGUMENT,
            f"cron: {spec.cron!r} never fires: there is no such day in the next fifty years",
            {"field": "cron"},
        )
    return Schedule(
        spec=spec,
        created_at=now,
        created_by=by,
        request_id=request_id,
        paused=paused,
        note=note,
        next_at=None if paused else first,
    )


def pause(schedule: Schedule, note: str | None) -> Schedule:
    """Nothing fires by the clock, and what the clock had buffered is skipped."""
    dropped = schedule.buffered is not None and not schedule.buffered.manual
    return _changed(
        schedule,
        paused=True,
        note=schedule.note if note is None else note,
        next_at=None,
        buffered=None if dropped else schedule.buffered,
        skipped=schedule.skipped + dropped,
    )


def resume(schedule: Schedule, cron: Cron, now: datetime, note: str | None) -> Schedule:
    """From now on. What fell into the pause is gone."""
    return _changed(
        schedule,
        paused=False,
        note=schedule.note if note is None else note,
        next_at=cron.after(now) if schedule.paused else schedule.next_at,
    )


def trigger(schedule: Schedule, now: datetime, running: bool, *, by: str, request_id: str | None) -> Decision:
    """Somebody wants it to fire now. Raises Refused where the overlap policy forbids it."""
    if schedule.triggered_at is not None:
        now = max(now, schedule.triggered_at + timedelta(milliseconds=1))
    firing = Firing(at=now, by=by, request_id=request_id)
    changed = _changed(schedule, triggered_at=now)
    match schedule.spec.overlap:
        case Overlap.CANCEL_OTHER if running:
            return Decision(schedule=_buffer(changed, firing), cancel=True)
        case Overlap.BUFFER_ONE if running and schedule.buffered is None:
            return Decision(schedule=_buffer(changed, firing))
        case Overlap.BUFFER_ONE if running:
            raise _overlapping(schedule, "and one firing waits for it already")
        case Overlap.SKIP if running:
            raise _overlapping(schedule, "and its overlap policy is `skip`")
        case _:
            return Decision(schedule=changed, start=firing)


def fire(schedule: Schedule, cron: Cron, now: datetime, running: bool) -> Decision | None:
    """What the time asks for; None where it is nothing. `running`: the last execution is. To be asked again as soon
    as what it says is on disk: there may be more."""
    if schedule.buffered is not None and not running:
        return Decision(schedule=_changed(schedule, buffered=None), start=schedule.buffered)
    at = schedule.next_at
    if at is None or at > now:
        return None
    oldest = now - timedelta(seconds=schedule.spec.catch_up_seconds)
    if at < oldest:
        missed = cron.until(at - _SECOND, oldest - _SECOND / 1000, COUNTED)
        next_at = cron.after(oldest - _SECOND / 1000)
        return Decision(schedule=_changed(schedule, next_at=next_at, missed=schedule.missed + len(missed)))
    if schedule.spec.overlap is Overlap.ALLOW:
        return Decision(schedule=_changed(schedule, next_at=cron.after(at)), start=Firing(at=at))
    return _overlap(_changed(schedule, next_at=cron.after(now)), at, _later(cron, at, now), running)


def _later(cron: Cron, at: datetime, now: datetime) -> list[datetime]:
    """What is due after `at`: the first of them, and in any case the last."""
    later = cron.until(at, now, COUNTED)
    if len(later) == COUNTED:
        later += cron.until(max(later[-1], now - COUNTED * _SECOND), now, COUNTED)[-1:]
    return later


def _overlap(schedule: Schedule, at: datetime, later: list[datetime], running: bool) -> Decision:
    """Of firings that are due together, by the overlap policy."""
    policy = schedule.spec.overlap
    if policy is Overlap.CANCEL_OTHER:
        # The last one wins.
        last = Firing(at=later[-1] if later else at)
        schedule = _skip(schedule, len(later))
        if running:
            return Decision(schedule=_buffer(schedule, last), cancel=True)
        return Decision(schedule=schedule, start=last)
    start = None if running else Firing(at=at)
    waiting = [at, *later] if running else later
    if policy is Overlap.BUFFER_ONE and waiting and schedule.buffered is None:
        schedule = _buffer(schedule, Firing(at=waiting[0]))
        waiting = waiting[1:]
    return Decision(schedule=_skip(schedule, len(waiting)), start=start)


def started(schedule: Schedule, run: Started) -> Schedule:
    """A firing has started this execution."""
    return msgspec.structs.replace(schedule, last=run, started=schedule.started + 1)


def failed(schedule: Schedule, firing: Firing, why: str, now: datetime) -> Schedule:
    """A firing could not start anything. It is not tried again."""
    return msgspec.structs.replace(
        schedule, failed=schedule.failed + 1, last_error=f"{_stamp(firing)}: {why}", last_error_at=now
    )


def rest(schedule: Schedule, why: str, now: datetime) -> Schedule:
    """It cannot be read any more, and does nothing until it is resumed."""
    return _changed(schedule, next_at=None, paused=True, buffered=None, last_error=why, last_error_at=now)


def workflow_id(schedule_id: str, firing: Firing) -> str:
    """What the execution is called: the schedule and the nominal time."""
    return f"{schedule_id}-{_stamp(firing)}"


def request_id(schedule: Schedule, schedule_id: str, firing: Firing) -> str:
    """The name of the start, the same however often it is tried. No caller's: those do not begin with `~`."""
    if firing.manual:
        named = f"trigger/{firing.request_id}" if firing.request_id is not None else f"trigger@{_stamp(firing)}"
    else:
        named = _stamp(firing)
    return f"{PREFIX}{schedule_id}/{_text(schedule.created_at)}/{named}"


PREFIX = "~schedule/"


def _stamp(firing: Firing) -> str:
    """Firings of a cron text fall on whole seconds; those of a trigger say their milliseconds."""
    return _text(firing.at) if firing.manual else f"{firing.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _buffer(schedule: Schedule, firing: Firing) -> Schedule:
    """In place of what waited before, if anything did."""
    return msgspec.structs.replace(_skip(schedule, schedule.buffered is not None), buffered=firing)


def _skip(schedule: Schedule, count: int) -> Schedule:
    return msgspec.structs.replace(schedule, skipped=schedule.skipped + count)


def _changed(schedule: Schedule, **fields: object) -> Schedule:
    return msgspec.structs.replace(schedule, revision=schedule.revision + 1, **fields)


def _overlapping(schedule: Schedule, why: str) -> Refused:
    last = schedule.last
    assert last is not None
    return Refused(
        ErrorStatus.FAILED_PRECONDITION,
        f'the execution "{last.workflow_id}" that it started last is running, {why}',
        {"workflow_id": last.workflow_id, "run_id": last.run_id},
    )
