"""Subscriptions: what a caller is told of as it happens, without asking again.

A topic is told whole first (`snapshot`), then in numbered updates that are coalesced: at most ten a second, each with
what has become of things since the last. Whoever reads slowly is sent fewer of them, and told how many changes were
left out (`missed`); whoever has missed some asks for what it needs, or subscribes again. After a loss on the daemon's
side (a restart of a service) a topic begins anew with a snapshot. The numbers go on.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from enginekit.messages.calls import (
    Call,
    DescribeDaemonResult,
    ExecutionSummary,
    Id,
    QueueView,
    Result,
)

Topic = Annotated[
    str, Meta(min_length=1, max_length=270, pattern=r"^(executions|queues|services|history:~?[A-Za-z0-9._:@/-]+)\Z")
]
EXECUTIONS = "executions"
QUEUES = "queues"
SERVICES = "services"
HISTORY = "history:"


class Subscribe(Call, frozen=True, kw_only=True):
    """`subscription` names it; the daemon makes a name without one. `services` needs the scope `admin`."""

    topics: Annotated[list[Topic], Meta(min_length=1, max_length=16)]
    subscription: Id | None = None


class SubscribeResult(Result, frozen=True, kw_only=True):
    subscription: str


class Unsubscribe(Call, frozen=True, kw_only=True):
    subscription: Id


class Notify(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of a notification. `seq` counts those of one topic of one subscription from 1. `data` is an
    ExecutionsChanged, QueuesChanged, ServicesSeen or HistoryGrown by the topic; absent where the topic has `ended`,
    which says why."""

    subscription: str
    topic: str
    seq: int
    snapshot: bool = False
    missed: int = 0
    data: Raw | UnsetType = UNSET
    ended: str | None = None


class ExecutionsChanged(Result, frozen=True, kw_only=True):
    """Executions that were started or closed, as they are now; at the beginning, the newest hundred. Those that another
    one started are left out."""

    executions: list[ExecutionSummary]


class QueuesChanged(Result, frozen=True, kw_only=True):
    """Queues that have changed, and the names (`kind` and `queue`) of those that are gone."""

    queues: list[QueueView]
    gone: list[tuple[str, str]] = []


class ServiceRate(Result, frozen=True, kw_only=True):
    """What a service did a second, since the last time it was told."""

    service: str
    what: str
    per_second: float


class ServicesSeen(Result, frozen=True, kw_only=True):
    """The daemon as it describes itself, once a second, and how busy its services are."""

    daemon: DescribeDaemonResult
    rates: list[ServiceRate]


class HistoryGrown(Result, frozen=True, kw_only=True):
    """Events of a run, in order; none is ever left out. `closed`: nothing follows."""

    run_id: str
    events: list[Raw]
    closed: bool


class WatchExecutions(Call, frozen=True, kw_only=True):
    """Ask History what has changed since `after`, which an earlier answer of the same `watch` said; without it, only
    from where changes are counted. Answered when something has, or after `wait_seconds`."""

    watch: str | None = None
    after: list[int] = []
    wait_seconds: float = 0.0


class WatchExecutionsResult(Result, frozen=True, kw_only=True):
    """`watch` names what is counted: another one than asked for means that everything has to be looked at again. `seq`
    has a number for each who counts."""

    watch: str
    seq: list[int]
    executions: list[ExecutionSummary] = []
    missed: int = 0
