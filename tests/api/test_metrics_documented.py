"""docs/metrics.md has every metric, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from daemon.links.counting import LinkCollector, LinkCounts
from daemon.metrics import Metrics
from daemon.queues.counting import QueueCollector, QueueCounts, TaskCollector

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    LinkCollector(lambda: LinkCounts(connected=True), registry)
    QueueCollector(lambda: QueueCounts(connected=True), registry)
    TaskCollector(dict, registry)
    there = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
        if metric.name.startswith("engine_")
    }
    assert set(re.findall(r"^\| `(engine_\w+)`", DOCUMENT.read_text(), re.MULTILINE)) == there
