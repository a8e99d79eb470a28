"""What passes between the daemon and its driver process: length-prefixed MessagePack frames.

There are two lanes, a socket pair each: one for what writes, one for reads. On each, requests may be sent before
earlier ones have been answered; answers come in the order of the requests. The first request is `Open`, on the write
lane; the read lane is served once it has been answered. Both ends are always of the same version: the daemon starts
its own driver.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from daemon.drivers.framing import HEADER as HEADER
from daemon.drivers.framing import Frame
from daemon.drivers.framing import frame as frame
from daemon.stores.rows import (
    Batch,
    DueRun,
    DueSchedule,
    ExecutionFilter,
    LetterFilter,
    StoredEffect,
    StoreInfo,
    TaskCursor,
)
from enginekit.messages.links import Millis, QueueKey, RunRef, ScheduleRef

# --- asked on the write lane -------------------------------------------------------------------------------------


class Open(Frame, frozen=True):
    """`url` says which backend and where: `sqlite:` and an absolute path, or `postgresql://`."""

    url: str
    shards: int
    lock_wait_seconds: float
    call_timeout_seconds: float


class TakeShards(Frame, frozen=True):
    pass


class Attend(Frame, frozen=True):
    owner: str
    lease_seconds: float


class ClaimShards(Frame, frozen=True):
    owner: str
    shards: list[int]


class ReleaseShards(Frame, frozen=True):
    owner: str
    epochs: dict[int, int]


class Leave(Frame, frozen=True):
    owner: str


class Commit(Frame, frozen=True):
    batch: Batch


class Tidy(Frame, frozen=True):
    now: Millis


OwnerRequest: TypeAlias = TakeShards | Attend | ClaimShards | ReleaseShards | Leave
WriteRequest: TypeAlias = Open | OwnerRequest | Commit | Tidy

# --- asked on the read lane --------------------------------------------------------------------------------------


class GetStartCheck(Frame, frozen=True):
    tenant: str
    workflow_id: str
    request_id: str | None


class GetLatestRun(Frame, frozen=True):
    tenant: str
    workflow_id: str


class GetExecution(Frame, frozen=True):
    tenant: str
    run_id: str


class LoadRuns(Frame, frozen=True):
    runs: list[RunRef]
    fingerprint: str
    max_bytes: int


class GetEvents(Frame, frozen=True):
    tenant: str
    run_id: str
    after_id: int
    limit: int
    max_bytes: int


class GetEventsById(Frame, frozen=True):
    tenant: str
    run_id: str
    ids: list[int]


class GetDueRuns(Frame, frozen=True):
    before: Millis
    limit: int
    after: DueRun | None


class GetExpiredRuns(Frame, frozen=True):
    before: Millis
    until: str
    limit: int
    after: str | None
    shards: list[int] | None


class GetEffects(Frame, frozen=True):
    limit: int
    after: StoredEffect | None
    shards: list[int] | None


class GetQueueBacklogs(Frame, frozen=True):
    pass


class GetDestinationBacklogs(Frame, frozen=True):
    tenant: str


class GetWaitingTasks(Frame, frozen=True):
    queue: QueueKey
    limit: int
    after: TaskCursor | None
    without: list[str]


class ListExecutions(Frame, frozen=True):
    wanted: ExecutionFilter


class GetMapResults(Frame, frozen=True):
    tenant: str
    run_id: str
    map_id: int
    status: str
    after: int
    max_bytes: int


class ListDeadLetters(Frame, frozen=True):
    wanted: LetterFilter


class GetDeadLetter(Frame, frozen=True):
    tenant: str
    run_id: str
    event_id: int


class GetDefinition(Frame, frozen=True):
    tenant: str
    name: str
    version: int | None


class GetDefinitionText(Frame, frozen=True):
    tenant: str
    hash: str


class ListDefinitions(Frame, frozen=True):
    tenant: str
    limit: int
    after_name: str | None


class GetSchedule(Frame, frozen=True):
    tenant: str
    schedule_id: str


class ListSchedules(Frame, frozen=True):
    tenant: str
    limit: int
    after_id: str | None
    max_bytes: int


class GetDueSchedules(Frame, frozen=True):
    before: Millis
    limit: int
    after: DueSchedule | None


class GetWaitingSchedules(Frame, frozen=True):
    limit: int
    after: ScheduleRef | None
    shards: list[int] | None


ReadRequest: TypeAlias = (
    GetStartCheck
    | GetLatestRun
    | GetExecution
    | LoadRuns
    | GetEvents
    | GetEventsById
    | GetDueRuns
    | GetExpiredRuns
    | GetEffects
    | GetQueueBacklogs
    | GetDestinationBacklogs
    | GetWaitingTasks
    | ListExecutions
    | GetMapResults
    | ListDeadLetters
    | GetDeadLetter
    | GetDefinition
    | GetDefinitionText
    | ListDefinitions
    | GetSchedule
    | ListSchedules
    | GetDueSchedules
    | GetWaitingSchedules
)
Request: TypeAlias = WriteRequest | ReadRequest

# --- answered ----------------------------------------------------------------------------------------------------


class Opened(Frame, frozen=True):
    """The store is open: both lanes are served."""

    info: StoreInfo


class Answer(Frame, frozen=True):
    """`value` is what the method of `Store` returns, encoded; whoever asked knows its type."""

    value: msgspec.Raw


class Refused(Frame, frozen=True):
    """BatchRefused."""

    message: str


class Outdated(Frame, frozen=True):
    """Fenced."""

    shards: list[int]


class Missing(Frame, frozen=True):
    """NoSuchEvent."""

    message: str


class Unavailable(Frame, frozen=True):
    """StoreUnavailable, with the driver going on. In answer to Open: the store cannot be reached yet."""

    message: str


class Lost(Frame, frozen=True):
    """StoreLost; the driver ends."""

    message: str


class Unusable(Frame, frozen=True):
    """StoreUnusable; the driver ends."""

    message: str


Reply: TypeAlias = Opened | Answer | Refused | Outdated | Missing | Unavailable | Lost | Unusable

# --- bytes -------------------------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()


def answer(value: object) -> Answer:
    return Answer(msgspec.Raw(_encoder.encode(value)))
