"""What an exchange counts, and how `/metrics` shows it: read off when it is asked for, at no cost to a message.

Labels are of bounded number: a process receives from the shards and partitions that it owns, which are numbered, from
one inbox of a Worker, and from its answers. Names that somebody else chooses are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class InboxCount(msgspec.Struct, frozen=True):
    """An inbox that this process receives from, as it was when it was last looked at, some seconds ago. `lag`: what
    nobody has been given yet. `pending`: what was given to somebody, here or elsewhere, and is not dealt with."""

    inbox: str
    lag: int
    pending: int


class LinkCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Since the process began, but for `connected`, `waiting` (to leave) and `inboxes`. `sent`: messages, requests and
    answers that have left; `batches`: in so many pipelines. `received`: messages and requests that were handed to
    receivers here. `claimed`: taken over from receivers that are gone. `repeated`: what came again and was passed over.
    `trimmed`: sent into an inbox that was at its bound, so that about as many were cut off its other end. `dropped`:
    answers for which there was no room."""

    connected: bool
    sent: int = 0
    batches: int = 0
    received: int = 0
    claimed: int = 0
    repeated: int = 0
    trimmed: int = 0
    dropped: int = 0
    reconnects: int = 0
    waiting: int = 0
    inboxes: list[InboxCount] = []


class LinkCollector(Collector):
    """Shows them."""

    def __init__(self, counts: Callable[[], LinkCounts], registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily(
            "engine_link_connected", "Whether messages get through to other processes.", float(counts.connected)
        )
        yield GaugeMetricFamily("engine_link_messages_waiting", "Messages that wait to leave.", counts.waiting)
        for name, help_text, value in (
            ("messages_sent", "Messages, requests and answers that have left.", counts.sent),
            ("batches", "Pipelines in which messages have left.", counts.batches),
            ("messages_received", "Messages and requests that came in.", counts.received),
            ("messages_claimed", "Messages taken over from receivers that are gone.", counts.claimed),
            ("messages_repeated", "Messages that came again and were passed over.", counts.repeated),
            ("messages_trimmed", "Messages for which, about, older ones were cut off a full inbox.", counts.trimmed),
            ("answers_dropped", "Answers for which there was no room to leave.", counts.dropped),
            ("reconnects", "Connections to Redis after the first.", counts.reconnects),
        ):
            yield CounterMetricFamily(f"engine_link_{name}", help_text, value)
        lag = GaugeMetricFamily(
            "engine_link_inbox_lag", "Messages in an inbox of this process that nobody was given.", labels=["inbox"]
        )
        pending = GaugeMetricFamily(
            "engine_link_inbox_pending",
            "Messages in an inbox that were given out and not dealt with.",
            labels=["inbox"],
        )
        for inbox in counts.inboxes:
            lag.add_metric([inbox.inbox], inbox.lag)
            pending.add_metric([inbox.inbox], inbox.pending)
        yield lag
        yield pending
