"""The breaker's state machine: by example, and against a plain model whatever happens in whatever order."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.dispatch.breaker import BUCKETS, Breaker
from daemon.settings import BreakerSettings
from enginekit.messages.links import RunRef, TaskRef
from enginekit.messages.status import BreakerState
from tests.hypothesis_profiles import examples

SETTINGS = BreakerSettings(window_seconds=10.0, minimum_calls=4, failure_rate=0.5, open_seconds=5.0, probes=2)
RUN = RunRef("acme", "w", "r")


def task(number: int) -> TaskRef:
    return TaskRef(RUN, number)


def report(breaker: Breaker, *healthy: bool, now: float) -> None:
    for each in healthy:
        breaker.report(task(0), each, None, now)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS, now)
    report(breaker, False, False, False, False, now=now)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open() -> Breaker:
    breaker = opened()
    assert breaker.mind(5.0)
    assert (breaker.state, breaker.places) == (BreakerState.HALF_OPEN, 2)
    return breaker


def test_it_opens_by_the_rate_and_not_before_there_are_enough_calls() -> None:
    breaker = Breaker(SETTINGS, 0.0)
    report(breaker, False, False, False, now=0.0)
    assert breaker.closed, "three calls are too few"
    report(breaker, True, now=0.0)
    assert breaker.state is BreakerState.OPEN, "three of four failed"
    assert breaker.failure_rate(1.0) == 0.75
    breaker = Breaker(SETTINGS, 0.0)
    report(breaker, True, True, True, False, False, now=0.0)
    assert breaker.closed
    assert breaker.failure_rate(1.0) == 0.4
    report(breaker, False, now=1.0)
    assert breaker.state is BreakerState.OPEN


def test_what_was_before_the_window_does_not_count() -> None:
    breaker = Breaker(SETTINGS, 0.0)
    report(breaker, False, False, False, now=0.0)
    report(breaker, False, False, False, now=10.0)
    assert breaker.closed
    report(breaker, False, now=19.0)
    assert breaker.state is BreakerState.OPEN, "within the window there are four"
    breaker = Breaker(SETTINGS, 0.0)
    report(breaker, False, False, False, now=0.0)
    assert (breaker.failure_rate(9.0), breaker.failure_rate(10.0)) == (1.0, 0.0)


def test_open_it_waits_and_then_lets_a_few_through() -> None:
    breaker = opened()
    assert (breaker.next_at(), breaker.places) == (5.0, 0)
    assert not breaker.mind(4.9)
    report(breaker, True, False, now=4.9)
    assert (breaker.state, breaker.next_at()) == (BreakerState.OPEN, 5.0), "late reports change nothing"
    assert breaker.mind(5.0)
    breaker.begin(task(1), 5.0)
    assert breaker.places == 1
    breaker.begin(task(2), 5.0)
    assert breaker.places == 0


def test_probes_that_go_well_close_it_and_it_begins_anew() -> None:
    breaker = half_open()
    for number in (1, 2):
        breaker.begin(task(number), 6.0)
        report(breaker, False, now=6.0)  # of a call from before, which is no probe
        assert breaker.report(task(number), True, 6.0, 7.0) == (number == 2)
    assert (breaker.closed, breaker.failure_rate(7.0)) == (True, 0.0)
    for _ in range(9):
        breaker.report(task(9), False, 6.9, 8.0)
    assert breaker.closed, "calls from before it closed tell nothing"
    for _ in range(4):
        breaker.report(task(9), False, 7.0, 8.0)
    assert breaker.state is BreakerState.OPEN


def test_one_probe_that_fails_opens_it_again() -> None:
    breaker = half_open()
    breaker.begin(task(1), 5.0)
    breaker.begin(task(2), 5.0)
    assert breaker.report(task(1), True, 5.0, 6.0) is False
    assert breaker.report(task(2), False, 5.0, 7.0)
    assert (breaker.state, breaker.next_at()) == (BreakerState.OPEN, 12.0)
    assert breaker.failure_rate(8.0) == 1.0


def test_a_probe_that_vanishes_makes_room() -> None:
    breaker = half_open()
    breaker.begin(task(1), 5.0)
    breaker.begin(task(2), 6.0)
    assert breaker.abandon(task(1))
    assert not breaker.abandon(task(1))
    assert (breaker.places, breaker.next_at()) == (1, 11.0)
    breaker.mind(11.0)
    assert breaker.places == 2, "silence for as long as it was open makes room as well"
    breaker.begin(task(3), 11.0)
    breaker.begin(task(4), 11.0)
    assert breaker.places == 0
    breaker.report(task(2), True, 6.0, 12.0)
    breaker.report(task(3), True, 11.0, 12.0)
    assert breaker.closed, "one that is late counts all the same"


class Machine(RuleBasedStateMachine):
    """Calls begin and end, or do not, and time passes; beside it a list of every report."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(SETTINGS, self.now)
        self.counted: list[tuple[float, bool]] = []
        self.running: dict[TaskRef, float] = {}
        self.probes: dict[TaskRef, float] = {}
        self.state, self.since, self.went_well = BreakerState.CLOSED, 0.0, 0
        self.serial = 0

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 2.5, 4.9, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.breaker.mind(self.now)
        if self.state is BreakerState.OPEN and self.now >= self.since + 5.0:
            self.become(BreakerState.HALF_OPEN)

    @precondition(lambda self: self.breaker.closed or self.breaker.places)
    @rule()
    def a_call_begins(self) -> None:
        self.serial += 1
        self.running[task(self.serial)] = self.now
        self.breaker.begin(task(self.serial), self.now)
        if self.state is BreakerState.HALF_OPEN:
            self.probes[task(self.serial)] = self.now

    @precondition(lambda self: self.running)
    @rule(data=st.data(), healthy=st.booleans())
    def a_call_ends(self, data: st.DataObject, healthy: bool) -> None:
        ref = data.draw(st.sampled_from(sorted(self.running, key=lambda ref: ref.event_id)))
        began = self.running.pop(ref)
        self.breaker.report(ref, healthy, began, self.now)
        if self.state is BreakerState.CLOSED and began >= self.since:
            self.counted.append((self.now, healthy))
            window = [well for at, well in self.counted if math.floor(at) > math.floor(self.now) - BUCKETS]
            if len(window) >= 4 and window.count(False) / len(window) >= 0.5:
                self.become(BreakerState.OPEN)
        elif self.state is BreakerState.HALF_OPEN and ref in self.probes:
            del self.probes[ref]
            self.went_well += healthy
            if not healthy:
                self.become(BreakerState.OPEN)
            elif self.went_well == 2:
                self.become(BreakerState.CLOSED)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_call_vanishes(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted(self.running, key=lambda ref: ref.event_id)))
        del self.running[ref]
        self.breaker.abandon(ref)
        self.probes.pop(ref, None)

    def become(self, state: BreakerState) -> None:
        self.state, self.since, self.went_well = state, self.now, 0
        self.probes, self.counted = {}, []

    @invariant()
    def it_is_as_the_model(self) -> None:
        assert (self.breaker.state, self.breaker.since) == (self.state, self.since)
        under_way = sum(self.now < began + 5.0 for began in self.probes.values())
        if self.state is BreakerState.HALF_OPEN:
            assert self.breaker.places == max(2 - self.went_well - under_way, 0)
        else:
            assert self.breaker.places == 0

    @invariant()
    def it_is_never_stuck(self) -> None:
        """Open or half-open, it lets something through, or says when it will have to be minded, or waits for a report
        that can still come."""
        if not self.breaker.closed and not self.breaker.places:
            at = self.breaker.next_at()
            assert at is not None
            assert at > self.now


Machine.TestCase.settings = settings(max_examples=examples(200), stateful_step_count=60, deadline=None)
TestBreakerMachine = Machine.TestCase
