"""How many breakers are not closed, as /metrics has it: a process has several partitions, each with breakers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from daemon.dispatch.breakers import Breakers
from daemon.dispatch.known import KnownTasks
from daemon.metrics import Metrics
from daemon.settings import BreakerSettings
from enginekit.messages.links import DestinationReport, RunRef, TaskRef
from enginekit.messages.status import BreakerState

SETTINGS = BreakerSettings(minimum_calls=2, failure_rate=1.0)


def breakers(metrics: Metrics) -> Breakers:
    return Breakers(SETTINGS, KnownTasks(10, 1), lambda _: None, lambda _: None, metrics)


def break_down(those: Breakers, destination: str) -> None:
    for number in range(2):
        those.reported(DestinationReport(TaskRef(RunRef("acme", "w", "r"), number), destination, False), None, 0.0)


def is_open(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("engine_breakers", {"state": BreakerState.OPEN.value})


def test_those_of_all_partitions_count_and_of_one_that_is_given_up_none() -> None:
    metrics = Metrics(CollectorRegistry())
    one, other = breakers(metrics), breakers(metrics)
    assert is_open(metrics) == 0
    break_down(one, "a")
    break_down(one, "b")
    assert is_open(metrics) == 2
    break_down(other, "a")
    assert is_open(metrics) == 3
    breakers(metrics)
    assert is_open(metrics) == 3
    one.end()
    assert is_open(metrics) == 1
