"""When cron texts fire, daylight saving included, and what is said of those that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.execution.cron import Cron, CronRefused

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana"]


def local(text: str, zone: ZoneInfo, after: datetime, count: int) -> list[str]:
    return [f"{at.astimezone(zone):%d %H:%M:%S %z}" for at in Cron(text, zone).first(after, count)]


BEFORE_SUMMER = datetime(2026, 3, 28, 23, 50, tzinfo=UTC)
"""On the 29th, the hour from 2 to 3 is left out in Berlin."""
BEFORE_WINTER = datetime(2026, 10, 24, 23, 50, tzinfo=UTC)
"""On the 25th, the hour from 2 to 3 comes twice."""


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        # What falls into the hour that is left out fires when that is over, all at once.
        ("30 2 * * *", BEFORE_SUMMER, ["29 03:00:00 +0200", "30 02:30:00 +0200"]),
        ("0,30 2 * * *", BEFORE_SUMMER, ["29 03:00:00 +0200", "30 02:00:00 +0200"]),
        ("30 2,3 * * *", BEFORE_SUMMER, ["29 03:00:00 +0200", "29 03:30:00 +0200", "30 02:30:00 +0200"]),
        # What falls into the hour that comes twice fires the first time.
        ("30 2 * * *", BEFORE_WINTER, ["25 02:30:00 +0200", "26 02:30:00 +0100"]),
        # Every so often stays every so often.
        ("*/30 * * * *", BEFORE_SUMMER, ["29 01:00:00 +0100", "29 01:30:00 +0100", "29 03:00:00 +0200"]),
        (
            "*/30 * * * *",
            BEFORE_WINTER,
            ["25 02:00:00 +0200", "25 02:30:00 +0200", "25 02:00:00 +0100", "25 02:30:00 +0100", "25 03:00:00 +0100"],
        ),
        ("0 * * * *", BEFORE_WINTER, ["25 02:00:00 +0200", "25 02:00:00 +0100", "25 03:00:00 +0100"]),
        # With a field of seconds nothing is moved: the hour that is left out has no firings, the other has twice.
        ("0 30 2 * * *", BEFORE_SUMMER, ["30 02:30:00 +0200"]),
        ("0 30 2 * * *", BEFORE_WINTER, ["25 02:30:00 +0200", "25 02:30:00 +0100", "26 02:30:00 +0100"]),
    ],
)
def test_daylight_saving(text: str, after: datetime, expected: list[str]) -> None:
    assert local(text, BERLIN, after, len(expected)) == expected


def test_an_hour_that_comes_twice_is_not_begun_again_by_who_looks_in_the_middle_of_it() -> None:
    second_time = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert local("30 2 * * *", BERLIN, second_time, 1) == ["26 02:30:00 +0100"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 12 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 12 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 12 * * fri#2", ["2026-01-09", "2026-02-13", "2026-03-13"]),
        ("0 12 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 12 13 * fri", ["2026-01-02", "2026-01-09", "2026-01-13"]),
        ("0 12 29 feb *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
    ],
)
def test_days(text: str, expected: list[str]) -> None:
    found = Cron(text, UTC).first(datetime(2026, 1, 1, tzinfo=UTC), 3)
    assert [f"{at:%Y-%m-%d}" for at in found] == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' has 0 fields; a cron text has five (minute, hour, day of the month, month, day of the week)"),
        ("@daily", "'@daily' has 1 field; a cron text has five"),
        ("1 2 3 4 5 6 7", "has 7 fields"),
        ("60 * * * *", "'60' is no minute: that is *, or 0-59, with lists, ranges and steps of them"),
        ("60 * * * * *", "'60' is no second"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month"),
        ("* * * 13 *", "'13' is no month: that is *, or 1-12 or JAN-DEC"),
        ("* * * * moonday", "'MOONDAY' is no day of the week"),
        ("5-1 * * * *", "'5-1' is no minute"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("0 0 31 2 *", "'0 0 31 2 *' never fires: no month of it has such a day"),
        ("0 0 30,31 feb *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
    ],
)
def test_what_cannot_be_read_is_told_field_by_field(text: str, why: str) -> None:
    with pytest.raises(CronRefused) as refused:
        Cron(text, UTC)
    assert why in str(refused.value)


def test_the_end_of_time_is_an_end() -> None:
    assert Cron("0 0 1 1 *", UTC).after(datetime(9999, 6, 1, tzinfo=UTC)) is None


@given(st.text(alphabet="0123456789*/,-#LWMONJAFEB @x٣", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_cron_text_or_is_refused(text: str) -> None:
    try:
        cron = Cron(text, BERLIN)
    except CronRefused:
        return
    cron.after(BEFORE_SUMMER)


FIELDS = [
    st.sampled_from(["*", "*/7", "0", "30", "59", "0,30", "10-40/5"]),
    st.sampled_from(["*", "*/5", "0", "1", "2", "3", "23", "1-3"]),
    st.sampled_from(["*", "1", "29", "L", "LW", "8-14"]),
    st.sampled_from(["*", "3", "10", "4,11", "JAN-JUN"]),
    st.sampled_from(["*", "0", "7", "MON-FRI", "SUN#1", "0L"]),
]


@given(
    text=st.tuples(*FIELDS).map(" ".join),
    zone=st.sampled_from(ZONES),
    begin=st.datetimes(min_value=datetime(2025, 1, 1), max_value=datetime(2027, 12, 31), timezones=st.just(UTC)),
)
def test_firings_go_forward_and_are_the_same_wherever_one_begins(text: str, zone: str, begin: datetime) -> None:
    """However often the daemon restarts: the firings of a while are those found step by step."""
    cron = Cron(text, ZoneInfo(zone))
    found = cron.first(begin, 20)
    assert found == sorted(set(found))
    assert all(at > begin and at.microsecond == 0 for at in found)
    at, stepped = begin, []
    for _ in found:
        following = cron.after(at)
        assert following is not None
        stepped.append(following)
        at = following
    assert stepped == found
    if found:
        assert cron.until(begin, found[-1], 100) == found
        assert cron.until(begin, found[-1] - timedelta(milliseconds=1), 100) == found[:-1]
