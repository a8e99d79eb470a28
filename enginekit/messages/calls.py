"""The calls of the wire: one struct of parameters a method, named like it, and one of results.

Parameters refuse unknown fields. The Frontend decodes them once and sends the same struct on its link to History or
Matching. Results are encoded once by whoever answers. Times are RFC 3339 in UTC, durations seconds.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from enginekit.messages.events import Usage
from enginekit.messages.json import EMPTY_OBJECT, NULL
from enginekit.messages.status import BreakerState, ExecutionStatus

RunName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^~?[A-Za-z0-9._:@/-]+\Z")]
"""The workflow_id of an execution that is there. Those that another execution started begin with `~`."""

Id = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._:@/-]+\Z")]
Token = Annotated[str, Meta(min_length=1, max_length=1024)]
WaitSeconds = Annotated[float, Meta(ge=0, le=3600)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
Labels = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=63)], Annotated[str, Meta(max_length=255)]], Meta(max_length=32)
]
Reason = Annotated[str, Meta(max_length=4096)]
ErrorName = Annotated[str, Meta(min_length=1, max_length=256)]
RetryAfter = Annotated[float, Meta(ge=0, le=99999999)]
Cause = Annotated[str, Meta(max_length=32768)]


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Parameters of one method."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a method answers."""


class Reuse(str, Enum):
    """May a `workflow_id` be used again once its run has closed?"""

    ALLOW = "allow"
    ALLOW_IF_FAILED = "allow_if_failed"
    REJECT = "reject"


# --- the connection ----------------------------------------------------------------------------------------------


class Hello(Call, frozen=True, kw_only=True):
    pass


class Limits(Result, frozen=True, kw_only=True):
    payload_bytes: int
    frame_bytes: int
    history_events: int
    history_bytes: int
    batch_calls: int


class HelloResult(Result, frozen=True, kw_only=True):
    engine: str
    protocol: str
    tenant: str
    subject: str
    scopes: list[str]
    limits: Limits
    expires_at: datetime | None = None


class Authenticate(Call, frozen=True, kw_only=True):
    token: Annotated[str, Meta(min_length=1, max_length=16384)]


# --- definitions -------------------------------------------------------------------------------------------------


class RegisterWorkflow(Call, frozen=True, kw_only=True):
    """`definition` is the document itself, or its text (JSON or YAML) as a string."""

    name: Id
    definition: Raw


class RegisterWorkflowResult(Result, frozen=True, kw_only=True):
    name: str
    version: int


class GetDefinition(Call, frozen=True, kw_only=True):
    name: Id
    version: Annotated[int, Meta(ge=1)] | None = None


class GetDefinitionResult(Result, frozen=True, kw_only=True):
    name: str
    version: int
    definition: Raw
    registered_at: datetime


class ListDefinitions(Call, frozen=True, kw_only=True):
    page_size: PageSize = 100
    page_token: Token | None = None


class DefinitionSummary(Result, frozen=True, kw_only=True):
    name: str
    version: int
    registered_at: datetime


class ListDefinitionsResult(Result, frozen=True, kw_only=True):
    definitions: list[DefinitionSummary]
    next_page_token: str | None = None


# --- executions --------------------------------------------------------------------------------------------------


class StartWorkflow(Call, frozen=True, kw_only=True):
    """Either `workflow` (with or without a `version`) or an inline `definition`."""

    workflow: Id | None = None
    version: Annotated[int, Meta(ge=1)] | None = None
    definition: Raw | UnsetType = UNSET
    input: Raw = EMPTY_OBJECT
    workflow_id: Id | None = None
    request_id: Id | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=99999999)] | None = None
    labels: Labels = {}
    reuse: Reuse = Reuse.ALLOW


class StartWorkflowResult(Result, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str


class DescribeWorkflow(Call, frozen=True, kw_only=True):
    workflow_id: RunName
    run_id: Id | None = None


class NodeView(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A node that is running: what it does, and until when it waits."""

    node: str
    path: str
    kind: str
    state: str
    entered_at: datetime
    attempt: int
    queue: str | None = None
    worker: str | None = None
    next_retry_at: datetime | None = None
    deadline: datetime | None = None
    last_error: str | None = None
    heartbeat_at: datetime | None = None
    heartbeat_details: Raw | UnsetType = UNSET
    done: int | None = None
    total: int | None = None
    child_workflow_id: str | None = None
    child_run_id: str | None = None


class DescribeWorkflowResult(Result, frozen=True, kw_only=True):
    workflow_id: str
    run_id: str
    workflow: str | None
    version: int | None
    status: ExecutionStatus
    input: Raw
    output: Raw = NULL
    error: str | None = None
    cause: str | None = None
    labels: dict[str, str] = {}
    started_at: datetime
    closed_at: datetime | None = None
    history_length: int
    nodes: list[NodeView] = []
    """What runs now: the first 500 nodes."""
    nodes_total: int = 0
    usage: Usage | None = None
    """Of language models, by all its tasks so far."""


class WaitWorkflow(Call, frozen=True, kw_only=True):
    workflow_id: RunName
    run_id: Id | None = None
    wait_seconds: WaitSeconds = 30.0


class ListWorkflows(Call, frozen=True, kw_only=True):
    """`label` is `key=value`. Newest first. Executions that another one started are listed by its run_id as `parent`,
    and not without."""

    status: ExecutionStatus | None = None
    workflow: Id | None = None
    label: Annotated[str, Meta(pattern=r"^[^=]+=", max_length=320)] | None = None
    started_after: Annotated[datetime, Meta(tz=True)] | None = None
    started_before: Annotated[datetime, Meta(tz=True)] | None = None
    parent: Id | None = None
    page_size: PageSize = 100
    page_token: Token | None = None


class ExecutionSummary(Result, frozen=True, kw_only=True, gc=False):
    """`gc=False`: there are tens of thousands in a list, and nothing of one leads back to it."""

    workflow_id: str
    run_id: str
    workflow: str | None
    version: int | None
    status: ExecutionStatus
    error: str | None
    labels: dict[str, str]
    started_at: datetime
    closed_at: datetime | None


class ListWorkflowsResult(Result, frozen=True, kw_only=True):
    executions: list[ExecutionSummary]
    next_page_token: str | None = None


class GetHistory(Call, frozen=True, kw_only=True):
    """Events after `after_id`; with `wait_seconds`, as soon as there is one."""

    workflow_id: RunName
    run_id: Id | None = None
    after_id: Annotated[int, Meta(ge=0)] = 0
    limit: PageSize = 1000
    wait_seconds: WaitSeconds = 0.0


class GetHistoryResult(Result, frozen=True, kw_only=True):
    """`next_after_id` asks for what follows; `closed`: the run has ended and nothing follows."""

    run_id: str
    events: list[Raw]
    next_after_id: int
    closed: bool


class SignalWorkflow(Call, frozen=True, kw_only=True):
    """Kept until a state `signal:NAME` takes it. The same `request_id` again changes nothing."""

    workflow_id: RunName
    run_id: Id | None = None
    request_id: Id | None = None
    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*\Z")]
    input: Raw = NULL


class CancelWorkflow(Call, frozen=True, kw_only=True):
    workflow_id: RunName
    run_id: Id | None = None
    request_id: Id | None = None
    reason: Reason = ""


class RedriveWorkflow(Call, frozen=True, kw_only=True):
    """Reopen an execution that has closed without success: it goes on where it stopped. `input` takes the place of what
    the state that failed was given."""

    workflow_id: RunName
    run_id: Id | None = None
    request_id: Id | None = None
    reason: Reason = ""
    input: Raw | UnsetType = UNSET


class RedriveResult(Result, frozen=True, kw_only=True):
    """The execution that is open again. On disk when this is answered."""

    workflow_id: str
    run_id: str


class TerminateWorkflow(Call, frozen=True, kw_only=True):
    workflow_id: RunName
    run_id: Id | None = None
    request_id: Id | None = None
    reason: Reason = ""


class Acknowledged(Result, frozen=True, kw_only=True):
    """The call is on disk."""


# --- workers -----------------------------------------------------------------------------------------------------


class PollTask(Call, frozen=True, kw_only=True):
    queue: Id
    worker_id: Id
    wait_seconds: Annotated[float, Meta(ge=0, le=120)] = 30.0
    max_tasks: Annotated[int, Meta(ge=1, le=100)] = 1


class WorkerTask(Result, frozen=True, kw_only=True):
    """One attempt, handed to a worker. `lease_seconds`: a heartbeat at least this often, or it goes to another.
    `heartbeat_details`: what the last heartbeat said before this attempt, or before it was given back."""

    token: str
    workflow_id: str
    run_id: str
    node: str
    path: str
    input: Raw
    attempt: int
    timeout_seconds: float
    idempotency_key: str
    lease_seconds: float
    heartbeat_seconds: float | None = None
    heartbeat_details: Raw = NULL


class PollTaskResult(Result, frozen=True, kw_only=True):
    tasks: list[WorkerTask]


class StopPolls(Call, frozen=True, kw_only=True):
    """A worker takes no more: its polls that wait end now. Those that are just being given tasks are answered."""

    worker_id: Id


class StopPollsResult(Result, frozen=True, kw_only=True):
    stopped: int


class CompleteTask(Call, frozen=True, kw_only=True):
    token: Token
    output: Raw = NULL


class FailTask(Call, frozen=True, kw_only=True):
    """`retry_after_seconds`: the next attempt, if there is one, begins no sooner."""

    token: Token
    error: ErrorName
    cause: Cause = ""
    retry_after_seconds: RetryAfter | None = None


class ReturnTask(Call, frozen=True, kw_only=True):
    token: Token
    reason: Reason = ""


HEARTBEAT_BYTES = 4096
"""The longest `details` of a heartbeat: they are kept in memory for every task that runs."""


class HeartbeatTask(Call, frozen=True, kw_only=True):
    """Renews the lease and, unless `progress` is false, starts `HeartbeatSeconds` anew. `details` (at most
    HEARTBEAT_BYTES; null: as before) are handed to the next attempt."""

    token: Token
    details: Raw = NULL
    progress: bool = True


class HeartbeatTaskResult(Result, frozen=True, kw_only=True):
    cancel_requested: bool


class TaskCompletion(Call, frozen=True, kw_only=True):
    """One of many: with `error` it failed, else it completed with `output`."""

    token: Token
    output: Raw = NULL
    error: ErrorName | None = None
    cause: Cause = ""
    retry_after_seconds: RetryAfter | None = None


class CompleteTasks(Call, frozen=True, kw_only=True):
    tasks: Annotated[list[TaskCompletion], Meta(min_length=1, max_length=100)]


class CompletionResult(Result, frozen=True, kw_only=True, omit_defaults=True):
    """`status` is absent where the report was recorded."""

    status: str | None = None
    reason: str | None = None
    message: str | None = None


class CompleteTasksResult(Result, frozen=True, kw_only=True):
    """One for each task, in order."""

    results: list[CompletionResult]


# --- the daemon --------------------------------------------------------------------------------------------------


class ListQueues(Call, frozen=True, kw_only=True):
    pass


class QueueView(Result, frozen=True, kw_only=True):
    """`rate`: tasks dispatched a second, over the last ten seconds."""

    queue: str
    kind: str
    depth: int
    oldest_seconds: float
    pollers: int
    dispatched: int
    rate: float


class ListQueuesResult(Result, frozen=True, kw_only=True):
    queues: list[QueueView]


class DescribeDaemon(Call, frozen=True, kw_only=True):
    pass


class ServiceView(Result, frozen=True, kw_only=True):
    name: str
    state: str
    restarts: int
    uptime_seconds: float
    last_error: str | None = None


class ShardView(Result, frozen=True, kw_only=True):
    shard: int
    epoch: int


class StoreView(Result, frozen=True, kw_only=True):
    kind: str
    state: str
    schema_version: int
    restarts: int = 0


class BreakerView(Result, frozen=True, kw_only=True):
    """The circuit breaker of a destination that the caller's tasks call. `failure_rate`: from 0 to 1, over the window;
    of one that is not closed, the one that opened it. `waiting`: tasks that wait to call it. `next_probe_at`: when one
    that is open will be tried again."""

    destination: str
    state: BreakerState
    since: datetime
    failure_rate: float
    waiting: int
    next_probe_at: datetime | None = None


class ProcessView(Result, frozen=True, kw_only=True):
    """A process of the engine, as it last said itself. `waiting_for`: what keeps it from its work, as `/readyz` says.
    `shards` and `partitions`: those that it has. `http`: where `/readyz` and `/metrics` are; None: nowhere.
    `silent_since`: when it was last heard of, of one that has not been heard of for some seconds: it is gone, stands
    still, or cannot reach Redis. What it said then may not be so any more."""

    process: str
    roles: list[str]
    engine: str
    host: str
    pid: int
    started_at: datetime
    services: list[ServiceView]
    store: StoreView
    waiting_for: list[str] = []
    shards: list[ShardView] = []
    partitions: list[int] = []
    http: str | None = None
    silent_since: datetime | None = None

    @property
    def drains(self) -> bool:
        """It ends in order: what it has begun may end, and nothing new begins there."""
        return any(service.state == "DRAINING" for service in self.services)


class DescribeDaemonResult(Result, frozen=True, kw_only=True):
    """`engine` to `services` are of the process that answers. Where several share the work, `shards` are those of all,
    and `store` is as those see it that have it open."""

    engine: str
    python: str
    trio: str
    pid: int
    started_at: datetime
    services: list[ServiceView]
    shards: list[ShardView]
    store: StoreView
    breakers: list[BreakerView] | None = None
    """Of the caller's destinations those that are not closed, then those whose calls failed lately. None: Matching,
    which has them, did not answer."""
    processes: list[ProcessView] = []
    """All that are there, the one that answers among them, and those that were lately: at most 256."""
