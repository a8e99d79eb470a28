"""Destinations: a tenant's own, bounded, forgotten when nothing is heard of them."""

from __future__ import annotations

from daemon.dispatch.destinations import Destination, Destinations
from daemon.settings import BreakerSettings
from enginekit.messages.events import TaskKind
from enginekit.messages.links import DestinationReport, QueuedTask, QueueKey, RunRef, TaskRef
from enginekit.messages.status import BreakerState

SETTINGS = BreakerSettings(
    window_seconds=10.0, minimum_calls=2, failure_rate=1.0, open_seconds=5.0, probes=1, destinations=3
)


def ref(number: int = 1, tenant: str = "acme") -> TaskRef:
    return TaskRef(RunRef(tenant, "w", "r"), number)


def queued(destination: str | None, tenant: str = "acme") -> QueuedTask:
    return QueuedTask(ref(1, tenant), QueueKey(tenant, TaskKind.NODE, "http"), 0, 0, destination)


def fail(destinations: Destinations, name: str, times: int = 2, now: float = 0.0, tenant: str = "acme") -> None:
    for _ in range(times):
        destinations.report(DestinationReport(ref(1, tenant), name, False), None, now)


def nothing_waits(_: Destination) -> bool:
    return False


def test_a_destination_is_a_tenants_own() -> None:
    destinations = Destinations(SETTINGS)
    fail(destinations, "shop:80")
    assert destinations.held_by(queued("shop:80")) is not None
    assert destinations.held_by(queued("shop:80", tenant="other")) is None
    assert destinations.held_by(queued("shop:81")) is None
    assert destinations.held_by(queued(None)) is None
    assert [each.name for each in destinations.troubled("acme", 0.0)] == ["shop:80"]
    assert destinations.troubled("other", 0.0) == []
    assert destinations.count(BreakerState.OPEN) == 1


def test_switched_off_nothing_opens() -> None:
    destinations = Destinations(BreakerSettings(enabled=False, minimum_calls=1))
    fail(destinations, "shop:80", times=100)
    assert not destinations.any_held
    assert destinations.next_at() is None


def test_only_so_many_are_kept_and_those_heard_of_last() -> None:
    destinations = Destinations(SETTINGS)
    for name in ("a", "b", "c"):
        fail(destinations, name, times=1)
    destinations.report(DestinationReport(ref(), "a", True), None, 0.0)
    fail(destinations, "d", times=1)
    fail(destinations, "b", times=1)
    assert not destinations.any_held, "b was forgotten for d, and c for b"
    fail(destinations, "d", times=1)
    assert destinations.held("acme", "d") is not None


def test_beyond_the_bound_a_breaker_stays_closed_for_this_tenant() -> None:
    destinations = Destinations(SETTINGS)
    for name in ("a", "b", "c", "d"):
        fail(destinations, name)
    fail(destinations, "d", tenant="other")
    assert [name for name in "abcd" if destinations.held("acme", name)] == ["a", "b", "c"]
    assert destinations.held("other", "d") is not None


def test_what_is_silent_for_a_window_is_forgotten_but_for_what_tasks_wait_for() -> None:
    destinations = Destinations(SETTINGS)
    fail(destinations, "dead", now=0.0)
    fail(destinations, "weak", times=1, now=6.0)
    assert destinations.next_at() == 5.0
    (dead,) = destinations.mind(5.0, nothing_waits)
    assert (dead.name, dead.breaker.state) == ("dead", BreakerState.HALF_OPEN)
    assert destinations.next_at() == 10.0
    assert destinations.mind(10.0, nothing_waits) == [], "half-open for five seconds only"
    assert destinations.mind(20.0, lambda _: True) == []
    assert destinations.troubled("acme", 20.0) == [dead]
    (again,) = destinations.mind(30.0, nothing_waits)
    assert again is dead
    assert dead.breaker.closed
    assert (destinations.any_held, destinations.next_at()) == (False, None), "nothing is left to wake up for"
