"""Schedules, what they are about to do, and what came of it."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from console import colours
from console.cells import Cell
from console.dialogs.dialog import Dialog
from console.pages.polled import PolledPage
from console.state import ConsoleState
from console.widgets.lines import Lines
from console.widgets.table import Column, VirtualTable
from console.words import day, since, until
from enginekit.messages.schedules import (
    DescribeSchedule,
    DescribeScheduleResult,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
    ScheduleSummary,
    TriggerSchedule,
)

UPCOMING = 5
PAGE = 500


class SchedulesPage(PolledPage):
    NAME = "Schedules"
    HELP = (
        "What starts executions by the clock, in the order of their ids. Below, the next firings of the one under the "
        "cursor and what came of the earlier ones. `p` pauses and resumes it, `t` fires it now."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "Pause/resume"),
        Binding("t", "trigger", "Trigger"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._schedules: list[ScheduleSummary] = []
        self._detail: DescribeScheduleResult | None = None
        self._known = False

    def compose_body(self) -> ComposeResult:
        yield VirtualTable(
            [
                Column("schedule", 0),
                Column("cron", 16),
                Column("time zone", 14),
                Column("workflow", 14),
                Column("next", 16, True),
            ],
            empty="reading …",
            id="schedules",
        )
        yield Static("Next firings", classes="heading")
        yield Lines(id="firings")

    async def read(self) -> None:
        found: list[ScheduleSummary] = []
        query = ListSchedules(page_size=PAGE)
        while True:
            page = await self.source.call(query)
            found += page.schedules
            if page.next_page_token is None:
                break
            query = msgspec.structs.replace(query, page_token=page.next_page_token)
        self._schedules, self._known = found, True
        current = self._current()
        if current is None and found:
            current = found[0]
        if current is not None:
            call = DescribeSchedule(schedule_id=current.schedule_id, upcoming=UPCOMING)
            self._detail = await self.source.call(call)

    def show(self, state: ConsoleState, now: float) -> None:
        schedules = self._schedules
        empty = self.problem or ("none" if self._known else "reading …")
        self.query_one(VirtualTable).show(
            [each.schedule_id for each in schedules], lambda row: _schedule(schedules[row], now), empty
        )
        self.query_one("#firings", Lines).show(_firings(self._detail, now) if self._detail else [])

    @on(VirtualTable.Moved)
    def _moved(self) -> None:
        current = self._current()
        if current is not None and (self._detail is None or self._detail.schedule_id != current.schedule_id):
            self.read_now()

    def _current(self) -> ScheduleSummary | None:
        key = self.query_one(VirtualTable).current
        return next((each for each in self._schedules if each.schedule_id == key), None)

    @work(exclusive=True, group="acting")
    async def action_pause(self) -> None:
        current = self._current()
        if current is None:
            return
        verb = "Resume" if current.paused else "Pause"
        if await self.app.push_screen_wait(Dialog(f"{verb} {current.schedule_id}?")) is not None:
            call = (ResumeSchedule if current.paused else PauseSchedule)(schedule_id=current.schedule_id)
            await self.attempt(self.source.call(call))
            self.read_now()

    @work(exclusive=True, group="acting")
    async def action_trigger(self) -> None:
        current = self._current()
        if current is None:
            return
        if await self.app.push_screen_wait(Dialog(f"Fire {current.schedule_id} now?")) is not None:
            done = await self.attempt(self.source.call(TriggerSchedule(schedule_id=current.schedule_id)))
            if done is not None:
                self.notify(f"{done.outcome.value} {done.workflow_id or ''}", markup=False)
            self.read_now()


def _schedule(each: ScheduleSummary, now: float) -> list[Cell]:
    if each.paused:
        following: Cell = ("paused", colours.WAITING)
    else:
        following = (until(each.next_at, now), "") if each.next_at else ("never", colours.QUIET)
    return [
        (each.schedule_id, "bold"),
        (each.cron, ""),
        (each.time_zone, colours.QUIET),
        (f"{each.workflow}{f' v{each.version}' if each.version else ''}", ""),
        following,
    ]


def _firings(seen: DescribeScheduleResult, now: float) -> list[list[Cell]]:
    lines: list[list[Cell]] = [[(f"{day(at)} UTC", ""), (f"  {until(at, now)}", colours.BUSY)] for at in seen.upcoming]
    counts = f"{seen.started:,} started, {seen.skipped:,} skipped, {seen.missed:,} missed, {seen.failed:,} failed"
    lines.append([(f"so far {counts}; overlap {seen.overlap.value}", colours.QUIET)])
    if seen.last_run is not None:
        lines.append([(f"last {seen.last_run.workflow_id}, {since(seen.last_run.at, now)}", "")])
    if seen.note:
        lines.append([(f"note {seen.note}", "")])
    if seen.last_error is not None:
        lines.append([(f"last error {seen.last_error}", colours.BAD)])
    return lines
