"""What one schedule fires at a given time: the catch-up window, firings that are due together, the overlap policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.execution import schedule as core
from daemon.execution.cron import Cron
from daemon.execution.schedule import Firing, Schedule, Spec
from enginekit.messages.json import EMPTY_OBJECT
from enginekit.messages.schedules import Overlap
from enginekit.messages.status import Refused

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
HOURLY = Cron("0 * * * *", UTC)
SECONDLY = Cron("* * * * * *", UTC)


def at(hours: float) -> datetime:
    return BEGUN + timedelta(hours=hours)


def made(overlap: Overlap = Overlap.SKIP, catch_up_hours: float = 24.0, cron: Cron = HOURLY) -> Schedule:
    spec = Spec(
        cron="0 * * * *",
        time_zone="UTC",
        workflow="w",
        version=None,
        input=EMPTY_OBJECT,
        labels={},
        overlap=overlap,
        catch_up_seconds=catch_up_hours * 3600,
    )
    return core.create(spec, cron, BEGUN, by="me", request_id=None, paused=False, note="")


def settle(schedule: Schedule, now: datetime, running: bool, cron: Cron = HOURLY) -> tuple[Schedule, list[Firing], int]:
    """All that the time asks for: what was started, and how often the last one was canceled. A run that is started
    goes on; one that is canceled ends at once."""
    firings: list[Firing] = []
    canceled = 0
    while (decision := core.fire(schedule, cron, now, running)) is not None:
        assert decision.schedule.revision == schedule.revision + 1
        schedule = decision.schedule
        if decision.cancel:
            assert running
            running, canceled = False, canceled + 1
        if decision.start is not None:
            firings.append(decision.start)
            running = schedule.spec.overlap is not Overlap.ALLOW
    return schedule, firings, canceled


def hours(firings: list[Firing]) -> list[float]:
    return [(firing.at - BEGUN).total_seconds() / 3600 for firing in firings]


def test_nothing_is_due_before_its_time() -> None:
    schedule = made()
    assert schedule.next_at == at(1)
    assert core.fire(schedule, HOURLY, at(1) - timedelta(milliseconds=1), False) is None


@pytest.mark.parametrize(
    ("overlap", "running", "started", "buffered", "skipped", "canceled"),
    [
        (Overlap.SKIP, False, [1], None, 4, 0),
        (Overlap.SKIP, True, [], None, 5, 0),
        (Overlap.BUFFER_ONE, False, [1], 2, 3, 0),
        (Overlap.BUFFER_ONE, True, [], 1, 4, 0),
        (Overlap.ALLOW, False, [1, 2, 3, 4, 5], None, 0, 0),
        (Overlap.CANCEL_OTHER, False, [5], None, 4, 0),
        (Overlap.CANCEL_OTHER, True, [5], None, 4, 1),
    ],
)
def test_what_was_missed_in_a_downtime_is_made_up_for_as_if_it_were_due_together(
    overlap: Overlap, running: bool, started: list[float], buffered: float | None, skipped: int, canceled: int
) -> None:
    """Five firings, and the daemon comes back after the fifth."""
    schedule, firings, cancels = settle(made(overlap), at(5.5), running)
    assert hours(firings) == started
    assert schedule.buffered == (None if buffered is None else Firing(at=at(buffered)))
    assert (schedule.skipped, schedule.missed, cancels) == (skipped, 0, canceled)
    assert schedule.next_at == at(6)


@pytest.mark.parametrize(
    ("catch_up_hours", "started", "missed"),
    [(24, [1, 2, 3, 4, 5], 0), (2.5, [3, 4, 5], 2), (0.5, [5], 4), (0.49, [], 5)],
)
def test_what_is_later_than_the_window_is_missed(catch_up_hours: float, started: list[float], missed: int) -> None:
    schedule, firings, _ = settle(made(Overlap.ALLOW, catch_up_hours), at(5.5), False)
    assert (hours(firings), schedule.missed, schedule.next_at) == (started, missed, at(6))


@pytest.mark.parametrize(
    ("overlap", "running", "last"),
    [(Overlap.SKIP, False, 1), (Overlap.BUFFER_ONE, True, 0), (Overlap.CANCEL_OTHER, False, 86_400)],
)
def test_a_day_of_seconds_is_passed_over_in_bounded_steps(overlap: Overlap, running: bool, last: int) -> None:
    schedule, firings, _ = settle(made(overlap, cron=SECONDLY), at(24), running, SECONDLY)
    assert [round((firing.at - BEGUN).total_seconds()) for firing in firings] == ([last] if last else [])
    assert schedule.next_at == at(24) + timedelta(seconds=1)
    assert core.COUNTED - 1 <= schedule.skipped <= core.COUNTED + 1, "what is beyond is not counted"


def test_a_year_of_seconds_is_missed_in_one_step() -> None:
    late = at(24 * 365)
    schedule, firings, _ = settle(made(Overlap.SKIP, 1 / 360, SECONDLY), late, False, SECONDLY)
    assert len(firings) == 1
    assert firings[0].at == late - timedelta(seconds=10)
    assert schedule.missed == core.COUNTED


def test_what_waits_starts_before_what_is_due_since() -> None:
    waiting, _, _ = settle(made(Overlap.BUFFER_ONE), at(2), True)
    assert waiting.buffered == Firing(at=at(1))
    schedule, firings, _ = settle(waiting, at(3.5), False)
    assert hours(firings) == [1]
    assert (schedule.buffered, schedule.skipped) == (Firing(at=at(3)), 1)


def test_resuming_begins_with_the_next_firing() -> None:
    paused = core.pause(made(), "for a while")
    assert core.fire(paused, HOURLY, at(30), False) is None
    resumed = core.resume(paused, HOURLY, at(30.5), None)
    assert (resumed.next_at, resumed.note, resumed.paused) == (at(31), "for a while", False)


class Never(Cron):
    def after(self, moment: datetime) -> datetime | None:
        return None


def test_one_that_would_never_fire_is_refused() -> None:
    with pytest.raises(Refused, match="'0 \\* \\* \\* \\*' never fires: there is no such day"):
        made(cron=Never("0 * * * *", UTC))


def test_starts_are_named_after_the_firing() -> None:
    schedule = made()
    firing = Firing(at=at(1))
    triggered = Firing(at=at(1) + timedelta(milliseconds=5), by="me")
    asked = Firing(at=at(2), by="me", request_id="r-1")
    assert core.workflow_id("nightly", firing) == "nightly-2026-01-01T01:00:00Z"
    assert core.workflow_id("nightly", triggered) == "nightly-2026-01-01T01:00:00.005Z"
    names = [core.request_id(schedule, "nightly", each) for each in (firing, triggered, asked)]
    assert len(set(names)) == 3
    assert all(name.startswith("~schedule/nightly/") for name in names)
    again = core.create(schedule.spec, HOURLY, at(0.5), by="me", request_id=None, paused=False, note="")
    assert core.request_id(again, "nightly", firing) != names[0], "a schedule made anew is another one"


def test_it_is_read_as_it_was_written() -> None:
    schedule = core.started(made(), core.Started(at=at(1), workflow_id="w", run_id="r"))
    schedule = core.failed(schedule, Firing(at=at(1), by="me", request_id="x"), "why", at(2))
    assert core.load(core.dump(schedule)) == schedule


@given(
    overlap=st.sampled_from(list(Overlap)),
    looks=st.lists(st.tuples(st.integers(1, 18_000), st.booleans()), min_size=1, max_size=12),
    catch_up_hours=st.floats(0.1, 30),
)
def test_every_firing_is_started_or_accounted_for_once(
    overlap: Overlap, looks: list[tuple[int, bool]], catch_up_hours: float
) -> None:
    """However irregularly it is looked at: firings start in order, none twice, and the counts add up."""
    schedule = made(overlap, catch_up_hours)
    now, begun = 0, []
    for seconds_later, running in looks:
        now += seconds_later
        schedule, firings, _ = settle(schedule, BEGUN + timedelta(seconds=now), running)
        begun += hours(firings)
    assert begun == sorted(set(begun))
    due = now // 3600
    waiting = schedule.buffered is not None
    assert len(begun) + schedule.skipped + schedule.missed + waiting == due
    assert schedule.next_at == at(due + 1)
