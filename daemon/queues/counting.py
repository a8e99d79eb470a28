"""What shared queues count, and how many tasks each partition has, as `/metrics` shows them: read off when it is asked
for, at no cost to a turn.

Labels are partitions, which are numbered. Queues have names that somebody else chooses: what is in each of them,
ListQueues tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Since the process began, but for `connected`. `turns`: calls that were done; each is everything that had come
    into one partition. `away`: such that Redis, or the way to it, did not answer, or refused: each is asked again.
    `full`: for which it had no memory; they wait."""

    connected: bool
    turns: int = 0
    away: int = 0
    full: int = 0
    reconnects: int = 0


class Counted(Protocol):
    """How many tasks are where; see `interface.Places`."""

    @property
    def ready(self) -> int: ...

    @property
    def leased(self) -> int: ...

    @property
    def delayed(self) -> int: ...


class QueueCollector(Collector):
    """Shows what shared queues count."""

    def __init__(self, counts: Callable[[], QueueCounts], registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily(
            "engine_queues_connected", "Whether the queues in Redis can be reached.", float(counts.connected)
        )
        yield CounterMetricFamily("engine_queues_turns", "Calls to the queues in Redis that were done.", counts.turns)
        failed = CounterMetricFamily(
            "engine_queues_turns_failed",
            "Calls to the queues in Redis that failed, and are made again, by why (away, full).",
            labels=["reason"],
        )
        failed.add_metric(["away"], counts.away)
        failed.add_metric(["full"], counts.full)
        yield failed
        yield CounterMetricFamily(
            "engine_queues_reconnects", "Connections to Redis for its queues after the first.", counts.reconnects
        )


class TaskCollector(Collector):
    """Shows how many tasks are in the queues of each partition that this process serves."""

    def __init__(self, places: Callable[[], Mapping[int, Counted]], registry: CollectorRegistry) -> None:
        self._places = places
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        tasks = GaugeMetricFamily(
            "engine_queue_tasks",
            "Tasks in the queues of a partition, by where they are (ready, leased, delayed).",
            labels=["partition", "state"],
        )
        for partition, places in self._places().items():
            tasks.add_metric([str(partition), "ready"], places.ready)
            tasks.add_metric([str(partition), "leased"], places.leased)
            tasks.add_metric([str(partition), "delayed"], places.delayed)
        yield tasks
