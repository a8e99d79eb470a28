"""Timer under the mock clock: when runs are fired, what is held, what a lost message costs, how often the store is
asked."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.clock import TrioClock
from daemon.links.interface import Caller
from daemon.links.memory import MemoryLink
from daemon.links.table import Links, memory_links
from daemon.nurseries import timer as timer_module
from daemon.nurseries.timer import Timer
from daemon.settings import TimerSettings
from daemon.stores.faults import StoreUnavailable
from daemon.stores.memory import MemoryStore
from daemon.stores.rows import Batch, DueRun, NewExecution, RunWrite, ScheduleWrite
from enginekit.messages.calls import Acknowledged, Hello
from enginekit.messages.links import (
    ArmSchedule,
    ArmTimer,
    LookAtClock,
    Millis,
    RescanTimers,
    RunRef,
    ScheduleRef,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.status import Refused
from tests.hypothesis_profiles import examples


class Clock:
    """Trio's time plus whatever the machine's clock was stepped by."""

    def __init__(self) -> None:
        self.trio = TrioClock()
        self.step: Millis = 0

    def now(self) -> Millis:
        return self.trio.now() + self.step

    def elapsed(self) -> Millis:
        return self.trio.elapsed()


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__(shards=1, token_key=b"key")
        self.looks = 0
        self.away = False

    async def due_runs(self, before: Millis, limit: int, after: DueRun | None = None) -> list[DueRun]:
        if self.away:
            raise StoreUnavailable("the store is away")
        self.looks += after is None
        return await super().due_runs(before, limit, after)


class Bench:
    """The test plays History. Wake-ups are in seconds from its start."""

    def __init__(self) -> None:
        self.links: Links = memory_links()
        self.store = CountingStore()
        self.clock = Clock()
        self.start_at = self.clock.now()
        self.begun = trio.current_time()
        self.known: set[str] = set()
        self.fired: list[tuple[float, str]] = []
        self.answers = True
        self.told_of_steps = 0

    def at(self, seconds: float) -> Millis:
        return self.start_at + round(seconds * 1000)

    async def commit(self, name: str, wake_at: float | None, *, hint: bool = True) -> None:
        """Move a run's `wake_at`, creating it where there is none, and say so."""
        if not self.known:
            await self.store.take_shards()
        run = RunRef("acme", name, name)
        new = name not in self.known
        self.known.add(name)
        created = NewExecution(
            workflow=None, version=None, definition_hash="h", labels={}, request_id=None, started_at=0
        )
        write = RunWrite(
            shard=0,
            epoch=1,
            run=run,
            first_event_id=1 if new else 2,
            events=[b"{}"] if new else [],
            wake_at=None if wake_at is None else self.at(wake_at),
            created=created if new else None,
        )
        await self.store.commit(Batch(runs=[write]))
        if hint and wake_at is not None:
            self.hint(name, wake_at)

    def hint(self, name: str, wake_at: float) -> None:
        assert self.links.timer.offer(ArmTimer(RunRef("acme", name, name), self.at(wake_at)))

    async def history(self) -> None:
        """Take what is fired, note when, and clear the wake-ups as History would, unless told not to."""
        while True:
            for message in await self.links.history.receive():
                if isinstance(message, LookAtClock):
                    self.told_of_steps += 1
                    continue
                assert isinstance(message, WakeRuns)
                for run in message.runs:
                    self.fired.append((round(trio.current_time() - self.begun, 3), run.run_id))
                    if self.answers:
                        await self.commit(run.run_id, None)

    async def start(self, nursery: trio.Nursery, **how: float) -> trio.CancelScope:
        timer = Timer(self.links, self.store, TimerSettings(**how), self.clock)
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await timer.run(task_status=task_status)

        nursery.start_soon(self.history)
        await nursery.start(run)
        await wait_all_tasks_blocked()
        return scope


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_runs_are_fired_when_they_are_due(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    for name, wake_at in (("b", 20.5), ("a", 3.25), ("far", 5000), ("past", -4)):
        await bench.commit(name, wake_at)
    await trio.sleep(6000)
    assert bench.fired == [(0, "past"), (3.25, "a"), (20.5, "b"), (5000, "far")]


async def test_what_the_store_has_is_fired_after_a_restart(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    for name, wake_at in (("overdue", -100), ("near", 5), ("far", 500)):
        await bench.commit(name, wake_at, hint=False)
    first = await bench.start(nursery)
    await trio.sleep(1)
    first.cancel()
    await trio.sleep(10)
    await bench.start(nursery)
    await trio.sleep(1000)
    assert bench.fired == [(0, "overdue"), (11, "near"), (500, "far")]


async def test_years_later_it_is_fired_to_the_millisecond(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    due = 30 * 365 * 86_400 + 0.123
    first = await bench.start(nursery)
    await bench.commit("far", due)
    await trio.sleep(3600)
    first.cancel()
    await trio.sleep(due - 3 * 3600)
    await bench.start(nursery)
    await trio.sleep(4 * 3600)
    assert bench.fired == [(due, "far")]


async def test_a_later_hint_replaces_an_earlier_one(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.commit("sooner", 40)
    await bench.commit("later", 10)
    await bench.commit("much later", 10)
    await trio.sleep(1)
    await bench.commit("sooner", 5)
    await bench.commit("later", 30)
    await bench.commit("much later", 3000)
    await trio.sleep(4000)
    assert bench.fired == [(5, "sooner"), (30, "later"), (3000, "much later")]


async def test_a_hint_wins_over_what_the_timer_read_before(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.commit("a", 10, hint=False)
    await bench.start(nursery)
    await bench.commit("a", 20)
    await trio.sleep(100)
    assert bench.fired == [(20, "a")]


async def test_runs_that_are_due_together_are_fired_together(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    for number in range(600):
        await bench.commit(f"r{number:03}", 10, hint=False)
    bench.answers = False
    timer = Timer(bench.links, bench.store, TimerSettings(), bench.clock)
    nursery.start_soon(timer.run)
    await trio.sleep(11)
    batches = await bench.links.history.receive()
    assert [len(batch.runs) for batch in batches if isinstance(batch, WakeRuns)] == [256, 256, 88]


async def test_three_days_cost_little(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    await bench.commit("a", 3 * 86400)
    await trio.sleep(4 * 86400)
    assert bench.fired == [(3 * 86400, "a")]
    assert bench.store.looks < 1500


async def test_many_waiting_runs_are_left_in_the_store(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    for number in range(2000):
        await bench.commit(f"r{number:04}", 3600 + number, hint=False)
    await bench.start(nursery)
    looks = bench.store.looks
    await trio.sleep(300)
    assert bench.store.looks - looks <= 5
    await trio.sleep(3600)
    looks = bench.store.looks
    await trio.sleep(300)
    assert [name for _, name in bench.fired] == [f"r{n:04}" for n in range(len(bench.fired))]
    assert len(bench.fired) >= 600
    assert bench.store.looks - looks <= 300 / 15 + 1, "one wake-up a second does not mean one look a second"


async def test_a_lost_hint_is_found_within_a_scan_while_there_is_traffic(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await bench.commit("busy", 100)
    await trio.sleep(100)
    await bench.commit("lost", 102, hint=False)
    await trio.sleep(50)
    (_, (at, name)) = bench.fired
    assert name == "lost"
    assert at <= 116


async def test_a_lost_hint_is_found_in_the_end_when_there_is_none(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await trio.sleep(10_000)
    await bench.commit("lost", 10_001, hint=False)
    await trio.sleep(TimerSettings().scan_limit_seconds + 1)
    assert [name for _, name in bench.fired] == ["lost"]


async def test_history_says_when_hints_may_be_lost(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await trio.sleep(10_000)
    await bench.commit("lost", 10_003, hint=False)
    assert bench.links.timer.offer(RescanTimers())
    await trio.sleep(10)
    assert bench.fired == [(10_003, "lost")]


async def test_hints_that_found_a_full_link_are_found_within_a_scan(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    await trio.sleep(10_000)
    number = 0
    while bench.links.timer.offer(ArmTimer(RunRef("acme", f"n{number}", f"n{number}"), bench.at(1e6))):
        number += 1
    await bench.commit("lost", 10_001, hint=False)
    await trio.sleep(17)
    assert [name for _, name in bench.fired] == ["lost"]


async def test_a_wake_up_that_history_lost_is_fired_again(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    bench.answers = False
    await bench.commit("a", 10)
    await trio.sleep(30)
    assert bench.fired == [(10, "a")], "one look later History may still be writing it down"
    await trio.sleep(15)
    assert [name for _, name in bench.fired] == ["a", "a"]
    bench.answers = True
    await trio.sleep(100)
    assert [name for _, name in bench.fired] == ["a", "a", "a"]


async def test_a_history_that_restarts_gets_at_once_what_is_overdue(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    bench.answers = False
    await bench.commit("a", 10)
    await trio.sleep(12)
    bench.answers = True
    bench.links.timer.offer(RescanTimers())
    await trio.sleep(100)
    assert bench.fired == [(10, "a"), (12, "a")]


async def test_a_run_may_be_due_again_at_the_very_same_moment(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.start(nursery)
    bench.answers = False
    await bench.commit("a", 10)
    await trio.sleep(10)
    await wait_all_tasks_blocked()
    await bench.commit("a", 10)
    bench.answers = True
    await trio.sleep(1)
    assert bench.fired == [(10, "a"), (10, "a")]


@pytest.mark.parametrize("seconds", [5000.0, -5000.0])
async def test_the_machines_clock_may_step(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, seconds: float
) -> None:
    await bench.start(nursery)
    await bench.commit("near", 30)
    await bench.commit("far", 4000)
    await trio.sleep(10)
    bench.clock.step = round(seconds * 1000)
    await trio.sleep(1.5)
    assert bench.told_of_steps == 1, "History is told while it matters"
    await trio.sleep(TimerSettings().scan_limit_seconds + 0.5)
    if seconds > 0:
        (near_at, near), (far_at, far) = bench.fired
        assert (near, far) == ("near", "far")
        assert near_at <= 11
        assert far_at <= 11 + TimerSettings().scan_limit_seconds
    else:
        assert bench.fired == []
        bench.clock.step = 0
        await trio.sleep(400)
        assert [name for _, name in bench.fired] == ["near"]


async def test_a_store_that_is_away_is_waited_for(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    await bench.commit("a", 5, hint=False)
    bench.store.away = True
    timer = Timer(bench.links, bench.store, TimerSettings(), bench.clock)
    await nursery.start(timer.run)
    nursery.start_soon(bench.history)
    await trio.sleep(50)
    assert bench.fired == []
    bench.store.away = False
    await trio.sleep(5)
    assert [name for _, name in bench.fired] == ["a"]


async def test_no_more_is_held_than_may_be(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_module, "HELD_RUNS", 50)
    monkeypatch.setattr(timer_module, "PAGE_RUNS", 20)
    for number in range(300):
        await bench.commit(f"r{number:03}", 10 + number / 10, hint=False)
    await bench.start(nursery)
    for number in range(300, 600):
        await bench.commit(f"r{number:03}", 10 + number / 10)
    await trio.sleep(1)
    looks = bench.store.looks
    await trio.sleep(5)
    assert bench.store.looks - looks <= 5
    await trio.sleep(200)
    assert sorted(name for _, name in bench.fired) == [f"r{n:03}" for n in range(600)]
    late = [at - (10 + int(name[1:]) / 10) for at, name in bench.fired]
    assert min(late) >= 0
    assert max(late) <= 2 * timer_module.CROWDED_SECONDS


async def test_a_full_history_link_holds_it_up_and_loses_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer_module, "FIRE_RUNS", 1)
    bench.links = Links(
        history=MemoryLink("History", 1),
        matching=bench.links.matching,
        worker=bench.links.worker,
        timer=bench.links.timer,
    )
    for name in "abcdef":
        await bench.commit(name, 5, hint=False)
    timer = Timer(bench.links, bench.store, TimerSettings(), bench.clock)
    await nursery.start(timer.run)
    await trio.sleep(100)
    nursery.start_soon(bench.history)
    await trio.sleep(1)
    assert sorted(name for _, name in bench.fired) == list("abcdef")


async def test_ten_thousand_that_are_due_within_a_second_are_fired_once_each_and_in_order(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench
) -> None:
    """Half of them hinted at, half of them found in the store."""
    await bench.start(nursery)
    for number in range(10_000):
        await bench.commit(f"r{number:05}", 1000 + number / 10_000, hint=number % 2 == 0)
    await trio.sleep(1010)
    assert [name for _, name in bench.fired] == [f"r{number:05}" for number in range(10_000)]
    assert all(at > 1000 + int(name[1:]) / 10_000 - 0.001 for at, name in bench.fired), "none of them early"


async def test_schedules_are_fired_as_runs_are(
    autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from the store, or hinted at; a later hint replaces an earlier one; no more is held than may be."""
    monkeypatch.setattr(timer_module, "HELD_RUNS", 20)
    monkeypatch.setattr(timer_module, "PAGE_RUNS", 7)
    await bench.store.take_shards()
    await bench.store.commit(
        Batch(
            schedules=[
                ScheduleWrite(
                    shard=0,
                    epoch=1,
                    schedule=ScheduleRef("acme", f"s{number:02}"),
                    revision=1,
                    next_at=bench.at(100 + number),
                    data=b"",
                )
                for number in range(40)
            ]
        )
    )
    fired: list[tuple[float, str]] = []

    async def history() -> None:
        while True:
            for message in await bench.links.history.receive():
                assert isinstance(message, WakeSchedules)
                at = round(trio.current_time() - bench.begun, 3)
                for schedule in message.schedules:
                    fired.append((at, schedule.schedule_id))
                    write = ScheduleWrite(shard=0, epoch=1, schedule=schedule, revision=2, data=b"")
                    await bench.store.commit(Batch(schedules=[write]))

    nursery.start_soon(history)
    await nursery.start(Timer(bench.links, bench.store, TimerSettings(), bench.clock).run)
    await trio.sleep(10)
    hinted = ScheduleRef("acme", "hinted")
    for next_at in (20, 50):
        bench.links.timer.offer(ArmSchedule(hinted, bench.at(next_at)))
    await bench.store.commit(
        Batch(schedules=[ScheduleWrite(shard=0, epoch=1, schedule=hinted, revision=1, next_at=bench.at(50), data=b"")])
    )
    await trio.sleep(200)
    late = [at - (50 if name == "hinted" else 100 + int(name[1:])) for at, name in fired]
    assert [name for _, name in fired] == ["hinted", *(f"s{number:02}" for number in range(40))]
    assert min(late) >= 0
    assert max(late) <= 2 * timer_module.CROWDED_SECONDS


async def test_requests_are_refused(autojump_clock: MockClock, nursery: trio.Nursery, bench: Bench) -> None:
    await bench.start(nursery)
    with pytest.raises(Refused, match="Timer does not answer Hello"):
        await bench.links.timer.request(Caller("acme", "me"), Hello(), Acknowledged, timeout=1)


@settings(max_examples=examples(60), deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.floats(0, 120),
            st.sampled_from("abcd"),
            st.one_of(st.none(), st.floats(-10, 400)),
            st.booleans(),
        ),
        max_size=15,
    )
)
def test_every_run_is_fired_after_its_time_and_not_long_after(
    moves: list[tuple[float, str, float | None, bool]],
) -> None:
    """Against a model: whatever is scheduled, moved or cleared, with its hint lost or not, no wake-up that stood in
    the store is early, forgotten, or later than the safety scans allow."""

    async def scenario() -> None:
        bench = Bench()
        due: dict[str, tuple[float, bool]] = {}
        lateness: list[tuple[float, bool]] = []

        async def history() -> None:
            while True:
                for message in await bench.links.history.receive():
                    assert isinstance(message, WakeRuns)
                    for run in message.runs:
                        now = trio.current_time() - bench.begun
                        if run.run_id in due and due[run.run_id][0] <= now + 0.001:
                            wanted, hinted = due.pop(run.run_id)
                            lateness.append((now - wanted, hinted))
                            await bench.commit(run.run_id, None)

        async with trio.open_nursery() as nursery:
            timer = Timer(bench.links, bench.store, TimerSettings(), bench.clock)
            await nursery.start(timer.run)
            nursery.start_soon(history)
            for pause, name, ahead, hinted in moves:
                await trio.sleep(pause)
                now = trio.current_time() - bench.begun
                if ahead is None:
                    due.pop(name, None)
                    await bench.commit(name, None)
                else:
                    wake_at = now + ahead
                    due[name] = (max(wake_at, now), hinted)
                    await bench.commit(name, wake_at, hint=hinted)
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        assert due == {}
        for late, hinted in lateness:
            assert late <= (0.01 if hinted else TimerSettings().scan_limit_seconds + 1)

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
