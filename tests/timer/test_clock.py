"""What tells that a clock was set."""

from __future__ import annotations

from daemon.clock import StepWatch, WallClock


class Scripted:
    """Both clocks as the test has them; `held_up` milliseconds pass between looking at the one and at the other."""

    real = False

    def __init__(self) -> None:
        self.wall = 1_000_000
        self.steady = 5_000
        self.held_up = 0

    def now(self) -> int:
        self.pass_(self.held_up)
        return self.wall

    def elapsed(self) -> int:
        return self.steady

    def pass_(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.steady += milliseconds


def test_a_step_is_told_of_once_and_by_how_much() -> None:
    clock = Scripted()
    watch = StepWatch(clock)
    clock.pass_(123_456)
    assert watch.look() == 0
    clock.wall += 3_600_000
    clock.pass_(10)
    assert (watch.look(), watch.look()) == (3_600_000, 0)
    clock.wall -= 7_200_000
    assert (watch.look(), watch.look()) == (-7_200_000, 0)


def test_a_clock_that_runs_faster_or_slower_does_not_step() -> None:
    clock = Scripted()
    watch = StepWatch(clock)
    for drift in (900, -900, 500, 500, 500):
        clock.wall += drift
        clock.pass_(60_000)
        assert watch.look() == 0


def test_who_is_held_up_between_the_clocks_sees_no_step() -> None:
    clock = Scripted()
    watch = StepWatch(clock)
    clock.held_up = 2_000
    assert [watch.look() for _ in range(3)] == [0, 0, 0]
    clock.held_up = 0
    assert watch.look() == 0
    clock.wall += 5_000
    assert watch.look() == 5_000


def test_the_machines_own_clocks_agree() -> None:
    watch = StepWatch(WallClock())
    assert watch.look() == 0
