"""What can be asked of a run, and what a decision is handed beside it.

A command is what somebody wants; events are what came of it. Everything that a decision may depend on is here: the
definition, the time, chance, limits. Nothing is read from anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.execution.state import Task
from daemon.language import Machine
from enginekit.messages.events import Parent, ParentTask, PartStatus, TimeoutKind, Usage
from enginekit.messages.json import JSON
from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`step_…`: how far one decision goes before it hands over, in states walked, events, and values that expressions
    look at. `inline_concurrency` is the reference service's; Maps in Maps open no more than `open_branches` in all
    (and one each, so that all of them go on)."""

    payload_bytes: int = 256 * 1024
    variable_bytes: int = 10 * 1024 * 1024
    history_events: int = 250_000
    history_bytes: int = 256 * 1024 * 1024
    step_transitions: int = 50
    step_events: int = 250
    step_values: int = 100_000
    inline_concurrency: int = 40
    open_branches: int = 1000
    distributed_concurrency: int = 1000
    step_children: int = 50
    signals: int = 1000
    """Signals that may wait in a run, and the bytes that they may have in all."""
    signal_bytes: int = 4 * 1024 * 1024


class TaskDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """For tasks whose state says nothing. Those written with ARNs keep the reference service's."""

    timeout_seconds: float
    schedule_to_start_seconds: float
    lease_seconds: float
    returns: int
    retry_attempts: int
    retry_interval_seconds: float
    retry_backoff_rate: float
    retry_max_delay_seconds: float
    retry_after_limit_seconds: float
    """The longest pause that a server or a worker may ask for."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What one decision may know. `by` is whoever asked, None for the engine itself. `token` makes the token of a
    task's event id and number of returns."""

    definition: Machine
    now: datetime
    by: str | None
    random: Callable[[], float]
    uuid: Callable[[], str]
    token: Callable[[int, int], str]
    run_id: Callable[[], str]
    limits: Limits
    defaults: TaskDefaults


class Pulse(msgspec.Struct, kw_only=True):
    """`beats`: when each task last showed progress, `leases`: when its worker renewed only its lease, at the earliest
    `since`. `details`: what the last heartbeat said. `probed`: tasks that Matching was asked to expire."""

    since: datetime
    beats: dict[int, datetime] = {}
    leases: dict[int, datetime] = {}
    details: dict[int, Raw] = {}
    probed: set[int] = set()

    def step(self, seconds: float) -> None:
        """The clock was set: workers were heard of that much later, as it goes now."""
        by = timedelta(seconds=seconds)
        self.since += by
        self.beats = {task: at + by for task, at in self.beats.items()}
        self.leases = {task: at + by for task, at in self.leases.items()}

    def forget(self, tasks: list[int]) -> None:
        """They are over."""
        for task in tasks:
            self.beats.pop(task, None)
            self.leases.pop(task, None)
            self.details.pop(task, None)
            self.probed.discard(task)

    def heard(self, task: Task) -> datetime:
        """When it last showed progress."""
        assert task.started_at is not None
        return max(task.started_at, self.beats.get(task.id, self.since))

    def leased(self, task: Task) -> datetime:
        """When its worker last said that it has it."""
        return max(self.heard(task), self.leases.get(task.id, self.since))

    def said(self, task: int) -> Raw | UnsetType:
        return self.details.get(task, UNSET)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all."""


class Start(Command, frozen=True, kw_only=True):
    run: RunRef
    workflow: str | None
    version: int | None
    definition_hash: str
    input: Raw
    labels: dict[str, str]
    request_id: str | None
    timeout_seconds: float | None
    parent: Parent | None = None
    parent_task: ParentTask | None = None


class Proceed(Command, frozen=True, kw_only=True):
    """Go on where the last step was cut short, or where something is to be started, read or written."""


class ItemOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a distributed Map has closed. `record` is all there is to tell of it."""

    index: int
    status: PartStatus
    output: Raw
    record: Raw
    error: str | None = None


class ItemsEnded(Command, frozen=True, kw_only=True):
    mapping: int
    outcomes: list[ItemOutcome]


class ItemsRead(Command, frozen=True, kw_only=True):
    """Items from a file: those after the position `after`, up to `position`. `total` is how many there are in all,
    `source` is what `$$.Map.Item.Source` says."""

    mapping: int
    after: str
    values: list[JSON]
    position: str
    exhausted: bool
    total: int
    source: str


class ResultsWritten(Command, frozen=True, kw_only=True):
    """`result` says where they are."""

    mapping: int
    result: JSON


class FileFailed(Command, frozen=True, kw_only=True):
    mapping: int
    error: str
    cause: str


class StepClock(Command, frozen=True, kw_only=True):
    """The clock that deadlines go by was set, by so many seconds."""

    seconds: float


class Wake(Command, frozen=True, kw_only=True):
    """Some deadline may have passed."""

    pulse: Pulse


class RecordOutcome(Command, frozen=True, kw_only=True):
    """A Worker of the daemon's has run it. Without `returns` its start is recorded with its end; else it was recorded
    before, and an attempt that was given to somebody else since is passed over."""

    task: int
    worker: str
    returns: int | None = None
    output: Raw | UnsetType = UNSET
    error: str | None = None
    cause: str = ""
    timed_out: TimeoutKind | None = None
    ran_seconds: float = 0.0
    log: str = ""
    usage: Usage | None = None
    retry_after_seconds: float | None = None


class StartTask(Command, frozen=True, kw_only=True):
    """A worker in another process takes it."""

    task: int
    worker: str


class CompleteTask(Command, frozen=True, kw_only=True):
    """`returns` is the token's: an attempt that was given to somebody else since is refused."""

    task: int
    returns: int
    output: Raw


class FailTask(Command, frozen=True, kw_only=True):
    """`details`: what its last heartbeat said."""

    task: int
    returns: int
    error: str
    cause: str
    retry_after_seconds: float | None = None
    details: Raw | UnsetType = UNSET


class ReturnTask(Command, frozen=True, kw_only=True):
    """`details`: what its last heartbeat said."""

    task: int
    returns: int
    reason: str
    details: Raw | UnsetType = UNSET


class ExpireTask(Command, frozen=True, kw_only=True):
    """No worker took it in time."""

    task: int
    waited_seconds: float


class Signal(Command, frozen=True, kw_only=True):
    name: str
    input: Raw
    request_id: str | None


class ChildStarted(Command, frozen=True, kw_only=True):
    """The child of this task is there."""

    task: int
    workflow_id: str
    run_id: str
    started_at: datetime


class ChildFault(Enum):
    """Why a child was not started."""

    NO_SUCH_WORKFLOW = "no such workflow"
    NAME_IN_USE = "name in use"


class ChildNotStarted(Command, frozen=True, kw_only=True):
    """It will not be there."""

    task: int
    fault: ChildFault
    cause: str


class ChildClosed(Command, frozen=True, kw_only=True):
    """`documented`: another name for the error. A child in another shard than its parent's comes without: it was
    started by startExecution, of which every failure is States.TaskFailed."""

    task: int
    workflow_id: str
    run_id: str
    workflow: str | None
    status: ExecutionStatus
    input: Raw
    output: Raw
    error: str | None
    cause: str | None
    documented: str | None = None
    usage: Usage | None
    started_at: datetime
    closed_at: datetime


class Cancel(Command, frozen=True, kw_only=True):
    reason: str
    request_id: str | None


class Redrive(Command, frozen=True, kw_only=True):
    """`input` takes the place of what the state that failed was given."""

    reason: str
    request_id: str | None
    input: Raw | None


class Terminate(Command, frozen=True, kw_only=True):
    reason: str
    request_id: str | None
