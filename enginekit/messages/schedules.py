"""The calls of the wire about schedules: what starts executions by the clock. As those in `calls.py`, which they join.

The cron text is five fields (minute, hour, day of the month, month, day of the week) or six, with the second before
them. Firings are named by their nominal time: when they are due, whatever they are late by.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta, Raw

from enginekit.messages.calls import Call, Id, Labels, PageSize, Reason, Result
from enginekit.messages.json import EMPTY_OBJECT

ScheduleId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:@/-]{1,200}\Z")]
"""Shorter than other ids: executions are named by it and a time."""

CATCH_UP_SECONDS = 365 * 86_400.0
"""How late a firing may be, unless the schedule says otherwise."""


class Overlap(str, Enum):
    """What comes of a firing while the execution that the schedule started last is running."""

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    ALLOW = "allow"
    CANCEL_OTHER = "cancel_other"


class TriggerOutcome(str, Enum):
    """What came of a trigger."""

    STARTED = "started"
    BUFFERED = "buffered"


class CreateSchedule(Call, frozen=True, kw_only=True):
    """Without a `version` each firing starts the newest one that is registered then. Firings that were missed by no
    more than `catch_up_seconds` are made up for."""

    schedule_id: ScheduleId
    cron: Annotated[str, Meta(min_length=1, max_length=255)]
    workflow: Id
    version: Annotated[int, Meta(ge=1)] | None = None
    time_zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    input: Raw = EMPTY_OBJECT
    labels: Labels = {}
    overlap: Overlap = Overlap.SKIP
    catch_up_seconds: Annotated[float, Meta(ge=10, le=99999999)] = CATCH_UP_SECONDS
    paused: bool = False
    note: Reason = ""
    request_id: Id | None = None


class CreateScheduleResult(Result, frozen=True, kw_only=True):
    """`next_at` is the first firing; none while it is paused."""

    schedule_id: str
    next_at: datetime | None


class ListSchedules(Call, frozen=True, kw_only=True):
    page_size: PageSize = 100
    page_token: ScheduleId | None = None


class ScheduleSummary(Result, frozen=True, kw_only=True):
    schedule_id: str
    cron: str
    time_zone: str
    workflow: str
    version: int | None
    overlap: Overlap
    paused: bool
    note: str
    next_at: datetime | None
    last_at: datetime | None
    """The nominal time of the firing that started an execution last."""
    last_error: str | None


class ListSchedulesResult(Result, frozen=True, kw_only=True):
    """In the order of their ids."""

    schedules: list[ScheduleSummary]
    next_page_token: str | None = None


class DescribeSchedule(Call, frozen=True, kw_only=True):
    """With its next `upcoming` firings, also of one that is paused (as if it were resumed now)."""

    schedule_id: ScheduleId
    upcoming: Annotated[int, Meta(ge=0, le=100)] = 10


class ScheduledRun(Result, frozen=True, kw_only=True):
    """The execution that a firing has started."""

    at: datetime
    workflow_id: str
    run_id: str


class DescribeScheduleResult(Result, frozen=True, kw_only=True):
    """`started`, `skipped` (because of the overlap policy), `missed` (later than the catch-up window, or than can be
    counted) and `failed` count firings. `buffered_at` is the one that waits for the last execution to close."""

    schedule_id: str
    cron: str
    time_zone: str
    workflow: str
    version: int | None
    input: Raw
    labels: dict[str, str]
    overlap: Overlap
    catch_up_seconds: float
    paused: bool
    note: str
    created_at: datetime
    created_by: str | None
    next_at: datetime | None
    upcoming: list[datetime]
    buffered_at: datetime | None
    last_run: ScheduledRun | None
    started: int
    skipped: int
    missed: int
    failed: int
    last_error: str | None
    last_error_at: datetime | None


class PauseSchedule(Call, frozen=True, kw_only=True):
    """`note` says why; without one the old note stays."""

    schedule_id: ScheduleId
    note: Reason | None = None


class ResumeSchedule(Call, frozen=True, kw_only=True):
    """Firings during the pause are not made up for."""

    schedule_id: ScheduleId
    note: Reason | None = None


class TriggerSchedule(Call, frozen=True, kw_only=True):
    """Fire now, also while it is paused; the overlap policy holds."""

    schedule_id: ScheduleId
    request_id: Id | None = None


class TriggerScheduleResult(Result, frozen=True, kw_only=True):
    """`workflow_id` and `run_id` of what was started; none where it was buffered."""

    outcome: TriggerOutcome
    workflow_id: str | None = None
    run_id: str | None = None


class DeleteSchedule(Call, frozen=True, kw_only=True):
    """What it has started goes on."""

    schedule_id: ScheduleId
