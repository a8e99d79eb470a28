"""What the daemon's services say to one another: one-way messages by receiver, and the references they share.

A task is named by its run and the id of its `TaskScheduled` event. Messages carry references; a payload rides along
only where the sender has it in memory anyway. Every message may be lost when its receiver restarts and may come
twice: the store is the truth, and each receiver ignores what it already knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from enginekit.messages.calls import BreakerView, Call, Result
from enginekit.messages.events import ParentTask, TimeoutKind, Usage
from enginekit.messages.events import TaskKind as TaskKind
from enginekit.messages.status import ExecutionStatus

Millis: TypeAlias = int
"""Milliseconds since 1970-01-01 UTC."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One-way, on a link."""


class RunRef(msgspec.Struct, frozen=True, gc=False):
    tenant: str
    workflow_id: str
    run_id: str


class TaskRef(msgspec.Struct, frozen=True, gc=False):
    run: RunRef
    event_id: int


class ScheduleRef(msgspec.Struct, frozen=True, gc=False):
    tenant: str
    schedule_id: str


class QueueKey(msgspec.Struct, frozen=True, gc=False):
    """A task queue. Activities' queues have the names their workers poll; nodes' queues the resource's."""

    tenant: str
    kind: TaskKind
    name: str


class QueuedTask(msgspec.Struct, frozen=True, gc=False):
    """A task waiting for a worker. Higher `priority` first, then older. `destination` has a circuit breaker."""

    task: TaskRef
    queue: QueueKey
    priority: int
    scheduled_at: Millis
    destination: str | None = None


class TaskSpec(msgspec.Struct, frozen=True, gc=False):
    """What the daemon's Worker needs to run one attempt."""

    task: TaskRef
    resource: str
    node: str
    path: str
    input: Raw
    attempt: int
    timeout_seconds: float
    idempotency_key: str
    heartbeat_seconds: float | None = None
    destination: str | None = None


# --- to History --------------------------------------------------------------------------------------------------


class TaskOutcome(Message, frozen=True):
    """How a Worker ended an attempt, and how long it took: with `output`, or `error`, or `timed_out`. `returns` is that
    of the start that was recorded for a Worker in another process; its start is not recorded with its end then."""

    task: TaskRef
    worker: str
    output: Raw | UnsetType = UNSET
    error: str | None = None
    cause: str = ""
    timed_out: TimeoutKind | None = None
    ran_seconds: float = 0.0
    log: str = ""
    usage: Usage | None = None
    retry_after_seconds: float | None = None
    returns: int | None = None


class RenewTasks(Message, frozen=True):
    """This Worker, in another process, still has these: their leases begin anew."""

    worker: str
    tasks: list[TaskRef]


class GiveBackTasks(Message, frozen=True):
    """This Worker, in another process, will not run these to their end: they go to another at once."""

    worker: str
    tasks: list[TaskRef]
    reason: str


class WakeRuns(Message, frozen=True):
    """These runs' `wake_at` has come."""

    runs: list[RunRef]


class WakeSchedules(Message, frozen=True):
    """These schedules' `next_at` has come."""

    schedules: list[ScheduleRef]


class LookAtClock(Message, frozen=True):
    """The machine's clock was set."""


class TaskExpired(Message, frozen=True):
    """Nobody took it within its ScheduleToStart."""

    task: TaskRef
    waited_seconds: float


ToHistory: TypeAlias = TaskOutcome | RenewTasks | GiveBackTasks | WakeRuns | WakeSchedules | LookAtClock | TaskExpired


class LoadTask(Call, frozen=True, kw_only=True):
    """Ask History for the spec of a task whose message carried none. Refused `NOT_FOUND` when it is over."""

    task: TaskRef


class LoadTaskResult(Result, frozen=True, kw_only=True):
    spec: TaskSpec


class StartTasks(Call, frozen=True, kw_only=True):
    """Ask History to record that a worker in another process takes these. Those that are over are left out."""

    tasks: list[TaskRef]
    worker_id: str


class StartNodes(Call, frozen=True, kw_only=True):
    """Ask History to record that a Worker in another process takes these tasks of nodes, of any tenants."""

    tasks: list[TaskRef]
    worker_id: str


class StartedNode(msgspec.Struct, frozen=True, gc=False):
    """A task whose start is on disk. It is the Worker's until it has not been renewed for `lease_seconds`; `returns` is
    how often it had come back from another."""

    spec: TaskSpec
    returns: int
    lease_seconds: float


class StartNodesResult(Result, frozen=True, kw_only=True):
    """Those in `rest` were not looked at (they would make the answer too large, or their shard has no owner right now):
    ask for them again. Those in neither list are over, or somebody else has them."""

    tasks: list[StartedNode]
    rest: list[TaskRef] = []


class StartRun(Call, frozen=True, kw_only=True):
    """Ask a run's History to start it on behalf of another run, or of a schedule. The same request again answers the
    same run."""

    workflow: str
    version: int | None
    input: Raw
    workflow_id: str | None
    request_id: str
    by: str | None = None
    labels: dict[str, str] = {}
    parent_task: ParentTask | None = None


class StartRunResult(Result, frozen=True, kw_only=True):
    """It is on disk."""

    workflow_id: str
    run_id: str
    started_at: datetime


class EndRun(Call, frozen=True, kw_only=True):
    """Ask a run's History to cancel it, or to terminate it: whoever started it does not want it any more. Answered when
    that is on disk; one that has closed is left alone."""

    run: RunRef
    terminate: bool
    reason: str
    request_id: str | None
    by: str | None


class TellParent(Call, frozen=True, kw_only=True):
    """Tell a run's History how the child closed that a task of the run waits for. Answered when that is on disk."""

    parent: RunRef
    task: int
    workflow_id: str
    run_id: str
    workflow: str | None
    status: ExecutionStatus
    input: Raw
    output: Raw
    error: str | None
    cause: str | None
    usage: Usage | None
    started_at: datetime
    closed_at: datetime


class MatchTasks(Call, frozen=True, kw_only=True):
    """Ask Matching for up to `max_tasks` tasks, waiting up to `wait_seconds` for the first."""

    queue: QueueKey
    worker_id: str
    max_tasks: int
    wait_seconds: float


class MatchTasksResult(Result, frozen=True, kw_only=True):
    tasks: list[TaskRef]


class MatchNodes(Call, frozen=True, kw_only=True):
    """Ask a partition of Matching for up to `max_tasks` tasks of nodes of these resources, of any tenants, waiting up
    to `wait_seconds` for the first. Those that are not started then are to be handed back."""

    resources: list[str]
    worker_id: str
    max_tasks: int
    wait_seconds: float


class MatchNodesResult(Result, frozen=True, kw_only=True):
    """`more`: others wait, which the same Worker could have."""

    tasks: list[TaskRef]
    more: bool = False


class ListBreakers(Call, frozen=True, kw_only=True):
    """Ask Matching for the circuit breakers of the caller's destinations."""


class ListBreakersResult(Result, frozen=True, kw_only=True):
    breakers: list[BreakerView]


class Ping(Call, frozen=True, kw_only=True):
    """Ask any service that has a link whether it takes what comes: answered at once, with nothing."""


class Pong(Result, frozen=True, kw_only=True):
    pass


# --- to Matching -------------------------------------------------------------------------------------------------


class OfferTask(Message, frozen=True):
    """A task was scheduled and is on disk. `spec` rides along for the daemon's own Worker."""

    task: QueuedTask
    spec: TaskSpec | None = None


class RetireTasks(Message, frozen=True):
    """These are over, or no longer waiting: forget them. With `cancel`, those the Worker runs are stopped too. `queue`:
    that of all of them, where it is known."""

    tasks: list[TaskRef]
    cancel: bool = False
    queue: QueueKey | None = None


class EndPolls(Message, frozen=True):
    """This worker was not heard of for as long as a lease: its polls of the queue end without a task."""

    queue: QueueKey
    worker_id: str


class EndNodePolls(Message, frozen=True):
    """This Worker in another process was not heard of for as long as a lease, or takes no more: its polls for tasks of
    nodes end without one."""

    worker_id: str


class HandBackTasks(Message, frozen=True):
    """These were handed to a Worker in another process, which has not asked for their start: they wait again."""

    tasks: list[TaskRef]


class RefillQueues(Message, frozen=True):
    """Offers for these queues found no room: pull what waits from the store. None means any queue."""

    queues: list[QueueKey] | None = None


class ExpireTask(Message, frozen=True):
    """Its ScheduleToStart has passed: unless a worker has it, answer with TaskExpired."""

    task: TaskRef
    waited_seconds: float
    queue: QueueKey


class AttachWorker(Message, frozen=True):
    """The daemon's Worker is there, with this many slots in all. What an earlier incarnation held is queued again."""

    worker_id: str
    incarnation: int
    resources: list[str]
    slots: int


class DestinationReport(msgspec.Struct, frozen=True, gc=False):
    """How this task's call of a destination went."""

    task: TaskRef
    destination: str
    healthy: bool


class TasksFinished(Message, frozen=True):
    """The Worker has slots free again, and this is how the destinations of these tasks did. Of a Worker in another
    process: it will report no more on the destinations of these."""

    worker_id: str
    incarnation: int
    tasks: list[TaskRef]
    reports: list[DestinationReport] = []


ToMatching: TypeAlias = (
    OfferTask
    | RetireTasks
    | EndPolls
    | EndNodePolls
    | HandBackTasks
    | RefillQueues
    | ExpireTask
    | AttachWorker
    | TasksFinished
)


# --- to the Worker -----------------------------------------------------------------------------------------------


class RunTask(Message, frozen=True):
    """Run it. Without `spec`, ask History for it first."""

    task: TaskRef
    spec: TaskSpec | None = None


class OutcomesRecorded(Message, frozen=True):
    """History has these outcomes of this worker's on disk, or has no use for them: stop reporting them."""

    worker: str
    tasks: list[TaskRef]


class CancelTasks(Message, frozen=True):
    """Nobody waits for these any more, which this worker may be running."""

    worker: str
    tasks: list[TaskRef]


class Announce(Message, frozen=True):
    """Matching has started and knows no worker: attach again."""


class ReportAgain(Message, frozen=True):
    """History has started: report every outcome not yet recorded."""


ToWorker: TypeAlias = RunTask | OutcomesRecorded | CancelTasks | Announce | ReportAgain


# --- to Timer ----------------------------------------------------------------------------------------------------


class ArmTimer(Message, frozen=True):
    """The run's `wake_at` is now this."""

    run: RunRef
    wake_at: Millis


class ArmSchedule(Message, frozen=True):
    """The schedule's `next_at` is now this."""

    schedule: ScheduleRef
    next_at: Millis


class RescanTimers(Message, frozen=True):
    """Hints or wake-ups may have been lost (History has started, or a hint found no room): look into the store
    now, and fire again what is overdue there."""


ToTimer: TypeAlias = ArmTimer | ArmSchedule | RescanTimers
