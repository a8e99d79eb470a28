"""The events of an execution's history, as they are decided, stored, replayed and sent.

An event is an immutable fact, numbered 1, 2, 3 … within its run. It holds what replay needs (the choice made as
`next`, the delay chosen as `at`), so that evolving a state never evaluates anything. An event carries at most one
payload beside the variables it `assigned`, inline (`input`, `output`) or as a reference to the event that holds it
(`input_ref`, …): a payload is stored once a run.

Every field that came after version 1 of its event has a default, so that old bytes are read as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from enginekit.messages.status import ExecutionStatus

Payload: TypeAlias = Raw | UnsetType


class TimeoutKind(str, Enum):
    """Which of a task's clocks ran out."""

    SCHEDULE_TO_START = "SCHEDULE_TO_START"
    START_TO_CLOSE = "START_TO_CLOSE"
    HEARTBEAT = "HEARTBEAT"


class TaskKind(str, Enum):
    """Who completes it: the daemon's own Worker, whoever polls its queue from another process, a child execution, or a
    signal (whose name is the task's `queue`)."""

    NODE = "node"
    ACTIVITY = "activity"
    WORKFLOW = "workflow"
    SIGNAL = "signal"

    @property
    def queued(self) -> bool:
        """Whether its tasks wait in a task queue for a worker."""
        return self is TaskKind.NODE or self is TaskKind.ACTIVITY


class PartStatus(str, Enum):
    """How one iteration or branch ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What was used of language models."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


class Parent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The execution that started this one: by its event `event` (a MapRunStarted), as number `index` of it, to run
    the processor of the Map state `state`."""

    workflow_id: str
    run_id: str
    event: int
    index: int
    state: str


class ParentTask(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The task of another execution that waits for this one: the id of its TaskScheduled. `depth` counts the executions
    above this one, each the child of the one before."""

    workflow_id: str
    run_id: str
    task: int
    depth: int


class ChildStart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Which workflow a task is to start. `workflow_id`: the definition's own name for it; `waited`: the task ends with
    it; `policy` is what becomes of it when nobody waits for it any more (CANCEL, TERMINATE, ABANDON)."""

    workflow: str
    version: int | None = None
    workflow_id: str | None = None
    waited: bool = True
    policy: str = "CANCEL"


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How one attempt of a task failed, and when."""

    attempt: int
    scheduled_at: datetime
    failed_at: datetime
    error: str
    cause: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True, omit_defaults=True, gc=False):
    """What every event has. `time` is UTC with milliseconds, `v` the version of its type, `by` who asked."""

    id: int
    time: datetime
    v: int = 1
    by: str | None = None


class NodeEvent(Event, frozen=True, kw_only=True, tag=True):
    """An event about one node. `path` says which iteration or branch it runs in, as `Ship[3].Pack`; `entry` is the
    id of its `NodeEntered`."""

    node: str
    path: str
    entry: int


# --- the execution -----------------------------------------------------------------------------------------------


class WorkflowStarted(Event, frozen=True, kw_only=True):
    tenant: str
    workflow_id: str
    run_id: str
    workflow: str | None = None
    version: int | None = None
    definition_hash: str
    next: str
    input: Payload
    labels: dict[str, str] = {}
    request_id: str | None = None
    timeout_at: datetime | None = None
    parent: Parent | None = None
    parent_task: ParentTask | None = None


class WorkflowSucceeded(Event, frozen=True, kw_only=True):
    output: Payload = UNSET
    output_ref: int = 0


class WorkflowFailed(Event, frozen=True, kw_only=True):
    """`documented` is the name that the specification has for the error where the reference service gives another:
    `Retry` and `Catch` of a parent match it, too."""

    error: str
    cause: str = ""
    documented: str | None = None


class WorkflowTimedOut(Event, frozen=True, kw_only=True):
    error: str
    cause: str = ""
    waited_seconds: float = 0.0


class SignalReceived(Event, frozen=True, kw_only=True):
    """Kept until a task that waits for a signal of this name takes it: its end refers to this event."""

    name: str
    input: Payload
    request_id: str | None = None


class WorkflowCancelRequested(Event, frozen=True, kw_only=True):
    reason: str = ""
    request_id: str | None = None


class WorkflowCanceled(Event, frozen=True, kw_only=True):
    reason: str = ""


class WorkflowRedriven(Event, frozen=True, kw_only=True):
    """It is open again, and goes on where it stopped. `again` are the nodes (by their entry) that are tried again;
    `input` takes the place of what the node `entry` was given."""

    reason: str = ""
    request_id: str | None = None
    again: list[int] = []
    timeout_at: datetime | None = None
    entry: int = 0
    input: Payload = UNSET


class WorkflowTerminated(Event, frozen=True, kw_only=True):
    reason: str = ""
    request_id: str | None = None


# --- nodes -------------------------------------------------------------------------------------------------------


class NodeEntered(NodeEvent, frozen=True, kw_only=True):
    kind: str
    input: Payload = UNSET
    input_ref: int = 0


class NodeExited(NodeEvent, frozen=True, kw_only=True):
    """`next` is the state its branch goes on with; without one the branch has ended with this output. `assigned` is
    an object of the variables that the state assigned."""

    next: str | None = None
    output: Payload = UNSET
    output_ref: int = 0
    assigned: Payload = UNSET


class NodeFailed(NodeEvent, frozen=True, kw_only=True):
    """`next` is where a `Catch` took it, with `output` and the variables `assigned`; without one its branch has
    failed."""

    error: str
    cause: str = ""
    next: str | None = None
    output: Payload = UNSET
    assigned: Payload = UNSET


# --- tasks: one attempt each, named by the id of its TaskScheduled ------------------------------------------------


class TaskScheduled(NodeEvent, frozen=True, kw_only=True):
    """`…_seconds` are the attempt's clocks. `callback_seconds` is there when the task, once it was run, waits for its
    token: how long after its start that may come. `destination` is what its circuit breaker goes by."""

    kind: TaskKind
    resource: str
    queue: str
    attempt: int
    input: Payload = UNSET
    input_ref: int = 0
    priority: int = 0
    timeout_seconds: float
    schedule_to_start_seconds: float
    heartbeat_seconds: float | None = None
    callback_seconds: float | None = None
    destination: str | None = None
    child: ChildStart | None = None


class TaskEnded(NodeEvent, frozen=True, kw_only=True, tag=True):
    """What the events have in common that end an attempt which was run: what it printed, and what it used."""

    task: int
    log: str = ""
    usage: Usage | None = None


class TaskStarted(NodeEvent, frozen=True, kw_only=True):
    """`began_at`: when the daemon's own Worker began it; its start is recorded with its end."""

    task: int
    worker: str
    lease_seconds: float | None = None
    began_at: datetime | None = None


class TaskSubmitted(TaskEnded, frozen=True, kw_only=True):
    """It was run, and waits for its token now. `output` is what running it answered; the task's result comes later."""

    output: Payload = UNSET
    output_ref: int = 0


class TaskCompleted(TaskEnded, frozen=True, kw_only=True):
    output: Payload = UNSET
    output_ref: int = 0


class TaskFailed(TaskEnded, frozen=True, kw_only=True):
    """`retry_after_seconds`: the next attempt begins no sooner. `details`, here and below: what the last heartbeat
    said, where that has not been recorded before."""

    error: str
    cause: str = ""
    retry_after_seconds: float | None = None
    details: Payload = UNSET


class TaskTimedOut(NodeEvent, frozen=True, kw_only=True):
    task: int
    kind: TimeoutKind
    waited_seconds: float
    error: str
    cause: str = ""
    details: Payload = UNSET


class ChildWorkflowStarted(NodeEvent, frozen=True, kw_only=True):
    """The execution that the task asked for is there."""

    task: int
    workflow_id: str
    run_id: str


class ChildWorkflowClosed(NodeEvent, frozen=True, kw_only=True):
    """It has closed; the task's own end follows."""

    task: int
    workflow_id: str
    run_id: str
    status: ExecutionStatus


class TaskCanceled(NodeEvent, frozen=True, kw_only=True):
    task: int
    reason: str = ""


class TaskDeadLettered(NodeEvent, frozen=True, kw_only=True):
    """The task failed for good, nobody caught it, and the execution fails by it. `attempts` are the last ones (at most
    a hundred); `input` is what the task was given."""

    resource: str
    error: str
    cause: str = ""
    attempts: list[Failure] = []
    input: Payload = UNSET
    input_ref: int = 0


class TaskReturned(NodeEvent, frozen=True, kw_only=True):
    """Nobody is working on it any more: the same attempt waits in its queue again, for the `times`-th time."""

    task: int
    reason: str
    times: int
    details: Payload = UNSET


class TaskRetryScheduled(NodeEvent, frozen=True, kw_only=True):
    """The node is tried again at `at` as attempt number `attempt`. `retrier` is the index in its `Retry`."""

    attempt: int
    at: datetime
    retrier: int
    error: str


# --- time --------------------------------------------------------------------------------------------------------


class TimerStarted(NodeEvent, frozen=True, kw_only=True):
    """`named`: a time that somebody gave, not so many seconds."""

    fire_at: datetime
    named: bool = False


class TimerFired(NodeEvent, frozen=True, kw_only=True):
    late_seconds: float = 0.0


class ClockStepped(Event, frozen=True, kw_only=True):
    """The machine's clock was set, by so many seconds, while the execution waited: what lasts for some time ends that
    much later by the clock, after as long as it would have. Named times stay what they are."""

    seconds: float


# --- fan-out -----------------------------------------------------------------------------------------------------


class MapStarted(NodeEvent, frozen=True, kw_only=True):
    """`next` is the state every iteration begins with. `input` has the items where an expression made them; where they
    were only found in the state's input, they are read from there."""

    total: int
    concurrency: int
    next: str
    attempt: int
    input: Payload = UNSET
    input_ref: int = 0


class MapIterationStarted(NodeEvent, frozen=True, kw_only=True):
    index: int
    input: Payload


class MapIterationEnded(NodeEvent, frozen=True, kw_only=True):
    index: int
    status: PartStatus
    output: Payload = UNSET
    output_ref: int = 0
    error: str | None = None
    cause: str | None = None


class MapRunStarted(NodeEvent, frozen=True, kw_only=True):
    """A distributed Map begins. `plan` is what it goes by; `input` has the items where they come from the state's
    input (`keyed`: out of an object), else they are in a file and `total` comes later."""

    plan: Raw
    total: int | None = None
    keyed: bool = False
    attempt: int
    input: Payload = UNSET
    input_ref: int = 0


class MapItemsStarted(NodeEvent, frozen=True, kw_only=True):
    """Executions are started for the next items: the first is number `first` of the Map, which `run` names by the id of
    its MapRunStarted. `items` says how many each has, `position` how far the file is read."""

    run: int
    first: int
    run_ids: list[str]
    items: list[int]
    total: int | None = None
    position: str = ""
    exhausted: bool = False


class ItemEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """`result` is there as long as all of them fit into a payload; from the first that is `dropped` none does."""

    index: int
    status: PartStatus
    result: Payload = UNSET
    dropped: bool = False
    error: str | None = None


class MapItemsEnded(NodeEvent, frozen=True, kw_only=True):
    run: int
    ended: list[ItemEnd]


class ParallelStarted(NodeEvent, frozen=True, kw_only=True):
    """`next` has the state each branch begins with, in order."""

    next: list[str]
    attempt: int
    input: Payload = UNSET
    input_ref: int = 0


class BranchEnded(NodeEvent, frozen=True, kw_only=True):
    index: int
    status: PartStatus
    output: Payload = UNSET
    output_ref: int = 0
    error: str | None = None
    cause: str | None = None


AnyEvent: TypeAlias = (
    WorkflowStarted
    | WorkflowSucceeded
    | WorkflowFailed
    | WorkflowTimedOut
    | SignalReceived
    | WorkflowCancelRequested
    | WorkflowCanceled
    | WorkflowTerminated
    | WorkflowRedriven
    | NodeEntered
    | NodeExited
    | NodeFailed
    | TaskScheduled
    | TaskStarted
    | TaskSubmitted
    | TaskCompleted
    | TaskFailed
    | TaskTimedOut
    | ChildWorkflowStarted
    | ChildWorkflowClosed
    | TaskCanceled
    | TaskDeadLettered
    | TaskReturned
    | TaskRetryScheduled
    | TimerStarted
    | TimerFired
    | ClockStepped
    | MapStarted
    | MapIterationStarted
    | MapIterationEnded
    | MapRunStarted
    | MapItemsStarted
    | MapItemsEnded
    | ParallelStarted
    | BranchEnded
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


encode_event: Callable[[Event], bytes] = _encoder.encode
"""The bytes that are stored and shipped."""


def decode_event(data: bytes) -> AnyEvent:
    """The event of stored bytes. Raises msgspec.ValidationError for bytes that are none."""
    return _decoder.decode(data)
