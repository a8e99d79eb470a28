"""How long an owner trusts its lease."""

from __future__ import annotations

from daemon.journal.lease import Lease
from enginekit.messages.links import Millis


class Clock:
    real = False

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> Millis:
        return 0

    def elapsed(self) -> Millis:
        return self.time


def test_a_lease_lapses_while_the_machine_sleeps() -> None:
    """The loop's own clock may stand still meanwhile, the store's does not."""
    clock = Clock()
    lease = Lease(clock)
    assert lease.holds, "until it is given an end"
    asked_at = lease.asked()
    clock.time += 400
    lease.renewed(asked_at, 10.0)
    clock.time += 9_599
    assert lease.holds
    clock.time += 1
    assert not lease.holds
    lease.renewed(lease.asked(), 10.0)
    assert lease.holds
    lease.end()
    assert not lease.holds
