"""The state of one execution: what `decide` reads and `evolve` changes.

A run is a tree. Its root branch walks the definition's states one after the other; a Parallel or Map node it stands
in opens a branch for each of its own branches or iterations, which walk theirs. A branch is either about to enter a
state (`next` is set and it stands in `Run.ready`) or stands in a node (`node`). So what is left to do without any
outside help is always visible in the state, and a step that was cut short goes on from there.

Nothing in here is ever evaluated again on replay: the state is a fold of `evolve` over the stored events.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec import Raw

from daemon.language import Plan
from enginekit.messages.events import ChildStart, Failure, Parent, ParentTask, Usage
from enginekit.messages.json import JSON, decode
from enginekit.messages.links import RunRef, TaskKind
from enginekit.messages.status import ExecutionStatus, ReportRefusal

ROOT = ""
"""The key of the root branch."""

REMEMBERED_SIGNALS = 256
"""How many signals' request ids a run remembers."""

REMEMBERED_FAILURES = 100
FAILURE_CHARACTERS = 1000
"""How many failed attempts of a node are kept for its dead letter, and how much of each one's cause."""

REMEMBERED_TASKS = 256
"""How many ended tasks of other processes' workers a run remembers, to tell a late worker why it was late."""


class Payload:
    """A JSON value and the event that holds it. Decoded on first use (by a `Step`, which forgets it again: decoded, a
    value takes many times its bytes); the value is shared and never changed."""

    __slots__ = ("event_id", "held", "raw")

    def __init__(self, event_id: int, raw: Raw) -> None:
        self.event_id = event_id
        self.raw = raw
        self.held: tuple[JSON] | None = None
        """The value, while it is decoded."""

    @property
    def value(self) -> JSON:
        return decode(self.raw) if self.held is None else self.held[0]

    def __repr__(self) -> str:
        return f"Payload({self.event_id}, {bytes(self.raw)!r})"


class ChildRef(msgspec.Struct, frozen=True, kw_only=True):
    """A child execution."""

    workflow_id: str
    run_id: str


class Task(msgspec.Struct, kw_only=True):
    """One attempt that is scheduled or running. `id` is the id of its TaskScheduled. With `callback_seconds` it waits
    for its token after it was run (`submitted_at`)."""

    id: int
    kind: TaskKind
    resource: str
    queue: str
    attempt: int
    priority: int
    input: Payload
    scheduled_at: datetime
    timeout_seconds: float
    schedule_to_start_seconds: float
    heartbeat_seconds: float | None
    started_at: datetime | None = None
    worker: str | None = None
    lease_seconds: float | None = None
    returns: int = 0
    queued_at: datetime
    callback_seconds: float | None = None
    submitted_at: datetime | None = None
    destination: str | None = None
    child_start: ChildStart | None = None
    child: ChildRef | None = None
    """The child execution, once it is there."""


class Fan(msgspec.Struct, kw_only=True):
    """What a Map or Parallel node has opened. `cursor` is the next index to start. `input` is what each branch of a
    Parallel begins with, and a Map's items where an expression made them."""

    total: int
    concurrency: int
    next: list[str]
    input: Payload | None
    cursor: int = 0
    active: int = 0
    results: dict[int, Payload] = {}

    @property
    def open(self) -> bool:
        return self.cursor < self.total and self.active < self.concurrency

    @property
    def complete(self) -> bool:
        return len(self.results) == self.total


class Mapping(msgspec.Struct, kw_only=True):
    """What a distributed Map has started. `id` is the id of its MapRunStarted, `cursor` counts the items taken,
    `children` the runs started for them, `in_flight` has those that have not closed: run_id and number of items.

    `results` holds results until they have more bytes than a payload may; then they are `dropped`.
    """

    id: int
    plan: Plan
    source: Payload | None
    keyed: bool
    total: int | None
    cursor: int = 0
    position: str = ""
    exhausted: bool = False
    children: int = 0
    in_flight: dict[int, tuple[str, int]] = {}
    succeeded: int = 0
    failed: int = 0
    results: dict[int, bytes] = {}
    result_bytes: int = 0
    dropped: bool = False

    @property
    def room(self) -> int:
        """How many more runs may be in flight."""
        return max(0, self.plan.concurrency - len(self.in_flight))

    @property
    def wants_start(self) -> bool:
        """Items of the state's input wait, and there is room for them."""
        return self.source is not None and not self.exhausted and self.room > 0

    @property
    def wants_items(self) -> bool:
        """It is worth reading more items: a good part of the runs have ended."""
        few = len(self.in_flight) * 2 <= self.plan.concurrency
        return self.source is None and not self.exhausted and few

    @property
    def complete(self) -> bool:
        return self.exhausted and not self.in_flight


class Node(msgspec.Struct, kw_only=True):
    """A state that a branch stands in. At most one of `task`, `fan`, `mapping`, `timer` and `retry_at` is set.
    `details` is the JSON that the last heartbeat before this attempt said. `failures` are its last attempts' (at most
    REMEMBERED_FAILURES). `failed`: it has, and nobody caught it; where the run is open that is so for the rest of one
    decision at most. `given`: its `arguments` are somebody's, and not what the definition makes of its input.
    """

    entry: int
    name: str
    kind: str
    branch: str
    path: str
    input: Payload
    entered_at: datetime
    attempt: int = 1
    retries: dict[int, int] = {}
    last_error: str | None = None
    details: bytes | None = None
    arguments: Payload | None = None
    result: Payload | None = None
    task: Task | None = None
    fan: Fan | None = None
    mapping: Mapping | None = None
    timer: datetime | None = None
    named: bool = False
    """Whether somebody gave the time of the timer."""
    retry_at: datetime | None = None
    failures: list[Failure] = []
    failed: bool = False
    given: bool = False


class Branch(msgspec.Struct, kw_only=True):
    """One thread of states. `payload` is what it enters `next` with, or its output once it has ended. `variables` are
    those assigned in it, each as its JSON; those of the branches it was opened from are seen in it, too."""

    key: str
    parent: int
    index: int
    payload: Payload
    next: str | None
    node: int = 0
    variables: dict[str, bytes] = {}


class Run(msgspec.Struct, kw_only=True):
    """One run of a workflow."""

    ref: RunRef
    workflow: str | None
    version: int | None
    definition_hash: str
    labels: dict[str, str]
    request_id: str | None
    started_at: datetime
    deadline: datetime | None
    input: Payload
    parent: Parent | None = None
    parent_task: ParentTask | None = None
    status: ExecutionStatus = ExecutionStatus.RUNNING
    output: Payload | None = None
    error: str | None = None
    cause: str | None = None
    documented: str | None = None
    """Another name for the error, by which the parent's Retry and Catch may match it."""
    closed_at: datetime | None = None
    close_request_id: str | None = None
    redrives: int = 0
    redriven_at: datetime | None = None
    redrive_request_id: str | None = None
    letter: int = 0
    """The id of the TaskDeadLettered by which it closed, and what its task's state names as Resource."""
    letter_resource: str = ""
    usage: Usage | None = None
    last_event_id: int = 0
    history_bytes: int = 0
    branches: dict[str, Branch] = {}
    nodes: dict[int, Node] = {}
    tasks: dict[int, int] = {}
    """Entry of the node, by task."""
    ready: list[str] = []
    """Branches about to enter their `next`, in order."""
    again: list[int] = []
    """Nodes of a run that was redriven which are to be tried again, in order."""
    filling: list[int] = []
    """Map nodes with room for another iteration, in order."""
    mappings: dict[int, int] = {}
    """Entry of the node, by the id of its distributed Map's MapRunStarted."""
    signals: dict[str, list[Payload]] = {}
    """Signals that no task has taken yet, by name, oldest first."""
    signal_requests: list[str] = []
    """The request ids of the last signals: a repeat changes nothing."""
    ended_tasks: dict[int, ReportRefusal] = {}
    """Tasks of other processes' workers that ended lately, and what a later report is told."""


def child_key(path: str, index: int) -> str:
    """The key of a Map's iteration or a Parallel's branch: `Ship[3]`."""
    return f"{path}[{index}]"


def after(moment: datetime, seconds: float) -> datetime:
    """`moment` plus `seconds`, rounded up to the millisecond, and no later than datetimes go.

    The store knows milliseconds: what were due between two of them would be looked at before it is due.
    """
    try:
        later = moment + timedelta(milliseconds=round(seconds * 1000))
        beyond = -later.microsecond % 1000
        return later + timedelta(microseconds=beyond) if beyond else later
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo, microsecond=999000)
