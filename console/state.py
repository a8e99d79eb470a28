"""What the console knows, as values: every page draws from a ConsoleState and from nothing else. No I/O, no Textual."""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import Raw

from enginekit.messages.calls import (
    DescribeDaemonResult,
    DescribeWorkflowResult,
    ExecutionSummary,
    QueueView,
)
from enginekit.messages.events import AnyEvent
from enginekit.messages.status import ExecutionStatus


class Standing(Enum):
    """How it stands with the daemon."""

    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "reconnecting"
    REFUSED = "refused"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """`as_of`: when something was last heard, seconds since 1970 UTC. `problem`: why there is no connection."""

    standing: Standing = Standing.CONNECTING
    problem: str = ""
    as_of: float | None = None
    engine: str = ""
    tenant: str = ""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """`rates`: by service and what it counts, one figure a second, oldest first. `refused`: why the daemon does not
    tell us of its services."""

    daemon: DescribeDaemonResult | None = None
    rates: dict[tuple[str, str], tuple[float, ...]] = {}
    refused: str = ""


class Queues(msgspec.Struct, frozen=True, kw_only=True):
    """By kind and name. `rates`: what was dispatched a second, each time it was told, oldest first."""

    queues: dict[tuple[str, str], QueueView] = {}
    rates: dict[tuple[str, str], tuple[float, ...]] = {}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which executions are wanted. `text` is looked for in what has been read; the rest is the daemon's to find."""

    status: ExecutionStatus | None = None
    workflow: str | None = None
    text: str = ""


class Executions(msgspec.Struct, frozen=True, kw_only=True):
    """Those that have been read, newest first: `order` has their run ids. `next_page`: there are older ones;
    `complete`: there are none. `behind`: changes were missed, so that it has to be read again;
    `reading`: that is being done, and this is the old picture yet."""

    choice: Choice = Choice()
    order: list[str] = []
    by_run: dict[str, ExecutionSummary] = {}
    next_page: str | None = None
    complete: bool = False
    behind: bool = False
    reading: bool = False
    missed: int = 0


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The execution that is being looked at. `definition`: of a registered workflow."""

    workflow_id: str
    run_id: str
    seen: DescribeWorkflowResult | None = None
    definition: Raw | None = None
    events: tuple[AnyEvent, ...] = ()
    closed: bool = False
    problem: str = ""


class ConsoleState(msgspec.Struct, frozen=True, kw_only=True):
    link: Link = Link()
    services: Services = Services()
    queues: Queues = Queues()
    executions: Executions = Executions()
    opened: Opened | None = None
