"""What passes between History and a store: rows, batches and pages, as typed structs that frame as MessagePack.

Times are milliseconds since 1970 UTC. Events are opaque bytes here: a store numbers and keeps them, it never reads
them.
"""

from __future__ import annotations

import msgspec

from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef
from enginekit.messages.status import ExecutionStatus


class Row(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """Base of what is stored."""


# --- written -----------------------------------------------------------------------------------------------------


class NewExecution(Row, frozen=True, kw_only=True):
    """What is fixed when a run starts."""

    workflow: str | None
    version: int | None
    definition_hash: str
    labels: dict[str, str]
    request_id: str | None
    started_at: Millis
    parent: str | None = None
    """The run_id of the execution that started it."""


class Closing(Row, frozen=True, kw_only=True):
    """How a run ended."""

    status: ExecutionStatus
    error: str | None
    closed_at: Millis


class Snapshot(Row, frozen=True, kw_only=True):
    """A run's state after `event_id`. `fingerprint` names the schema of `data`."""

    event_id: int
    fingerprint: str
    data: bytes


class Effect(Row, frozen=True, kw_only=True):
    """What a commit obliges the shard's owner to do, named `run_id/event_id`. Kept until it is removed."""

    event_id: int
    kind: str
    data: bytes


class MapResult(Row, frozen=True, kw_only=True):
    """The result of one run of a distributed Map, kept until all of them are written to files. `map_id` is the id of
    the Map's first event, `number` the run's among those of the Map."""

    map_id: int
    number: int
    status: str
    data: bytes


class ScheduleWrite(Row, frozen=True, kw_only=True):
    """A schedule as it is from now on; without `data` it is gone.

    `revision` counts its writes from 1: the store refuses one that does not follow the last. `waiting`: it has a
    firing that waits for an execution to close.
    """

    shard: int
    epoch: int
    schedule: ScheduleRef
    revision: int
    next_at: Millis | None = None
    waiting: bool = False
    data: bytes | None = None


class LetterRow(Row, frozen=True, kw_only=True):
    """A dead letter, named by the id of its TaskDeadLettered. `data` is all there is to tell of it."""

    event_id: int
    workflow: str | None
    node: str
    error: str
    at: Millis
    data: bytes


class RunWrite(Row, frozen=True, kw_only=True):
    """One run's share of a batch.

    `events` are numbered from `first_event_id`; the store refuses them unless the run's last event is
    `first_event_id - 1` (no row at all when `created` is set). An empty `events` only moves `wake_at`. Tasks are
    named by the id of their TaskScheduled: `started` are marked as taken by a worker in another process, `returned`
    are waiting again. `reopened`: the run has closed, and is open again with these events. Dead letters that are to be
    removed and are not there are passed over.
    """

    shard: int
    epoch: int
    run: RunRef
    first_event_id: int
    events: list[bytes]
    wake_at: Millis | None
    created: NewExecution | None = None
    closing: Closing | None = None
    snapshot: Snapshot | None = None
    tasks_added: list[QueuedTask] = []
    tasks_started: list[int] = []
    tasks_returned: list[int] = []
    tasks_removed: list[int] = []
    effects_added: list[Effect] = []
    effects_removed: list[int] = []
    results_added: list[MapResult] = []
    results_removed: list[int] = []
    """Maps whose results are not wanted any more."""
    schedule: ScheduleWrite | None = None
    """The schedule that this run was started (or canceled) by, written with it or not at all."""
    reopened: bool = False
    letters_added: list[LetterRow] = []
    letters_removed: list[int] = []


class DefinitionWrite(Row, frozen=True, kw_only=True):
    """A definition's text, by its hash; with a name and version it is registered, else it is a run's inline one.
    A text that is there already is left alone."""

    tenant: str
    hash: str
    text: str
    name: str | None = None
    version: int | None = None
    registered_at: Millis


class Purge(Row, frozen=True, kw_only=True):
    """A run that is to go with all its rows, once the rest of its batch is written.

    It goes if it closed before `closed_before`, and the run that started it, where that is kept, did too; and if there
    is no effect of its own, no dead letter of either, and no run that it started. Otherwise, and where it is not there,
    it is passed over: what has happened since somebody looked comes first. All of a batch are judged before any goes.
    """

    shard: int
    epoch: int
    run: RunRef
    closed_before: Millis


class Batch(Row, frozen=True, kw_only=True):
    """Written in one transaction, all or nothing. At most one RunWrite a run, and one write a schedule."""

    runs: list[RunWrite] = []
    definitions: list[DefinitionWrite] = []
    schedules: list[ScheduleWrite] = []
    purges: list[Purge] = []

    def all_schedules(self) -> list[ScheduleWrite]:
        """Those of its runs, too."""
        return [*self.schedules, *(write.schedule for write in self.runs if write.schedule is not None)]

    def owned(self) -> set[tuple[int, int]]:
        """Shards, and the epochs at which whoever commits it owns them."""
        runs = {(write.shard, write.epoch) for write in self.runs}
        runs |= {(purge.shard, purge.epoch) for purge in self.purges}
        return runs | {(write.shard, write.epoch) for write in self.all_schedules()}


# --- read --------------------------------------------------------------------------------------------------------


class ShardEpochs(Row, frozen=True, kw_only=True):
    """The shards that the caller now owns, and at which epochs, the key that task tokens are signed with, and the
    greatest run_id there is: those made from now on are greater, whatever the clock says."""

    epochs: dict[int, int]
    token_key: bytes
    newest_run_id: str | None = None


class ShardPlace(Row, frozen=True, kw_only=True):
    """Who has a shard. `owner` is None where nobody has it, or whoever had it has let its lease lapse."""

    shard: int
    epoch: int
    owner: str | None


class Attendance(Row, frozen=True, kw_only=True):
    """The owners whose leases have not lapsed, in the order of their names, and all shards in the order of theirs."""

    members: list[str]
    shards: list[ShardPlace]


class Execution(Row, frozen=True, kw_only=True):
    """A run's row."""

    run: RunRef
    shard: int
    workflow: str | None
    version: int | None
    definition_hash: str
    labels: dict[str, str]
    request_id: str | None
    status: ExecutionStatus
    error: str | None
    started_at: Millis
    closed_at: Millis | None
    wake_at: Millis | None
    last_event_id: int
    parent: str | None = None


class ExpiredRun(Row, frozen=True, kw_only=True):
    """A run that a Purge would take."""

    run: RunRef
    request_id: str | None
    closed_at: Millis


class ExpiredRuns(Row, frozen=True, kw_only=True):
    """Those among the runs that were looked at. `after` is the last of these: where the next page begins, None at the
    end."""

    runs: list[ExpiredRun]
    after: str | None


class Tidied(Row, frozen=True, kw_only=True):
    """What one step of tidying has found to be nobody's any more, and has removed. `more`: there may be more of it."""

    partitions: list[str] = []
    """Of events, by their names."""
    definitions: int = 0
    names: int = 0
    more: bool = False


class LatestRun(Row, frozen=True, kw_only=True):
    """The newest run of a workflow_id."""

    run_id: str
    status: ExecutionStatus


class StartCheck(Row, frozen=True, kw_only=True):
    """What a start must know: the newest run of its workflow_id, and the run its request_id started before."""

    latest: LatestRun | None
    requested: RunRef | None


class StoredRun(Row, frozen=True, kw_only=True):
    """What it takes to load a run: its row, the newest snapshot with the wanted fingerprint, the events after it."""

    execution: Execution
    snapshot: Snapshot | None
    tail: list[bytes]


class DueRun(Row, frozen=True, kw_only=True):
    run: RunRef
    wake_at: Millis


class StoredSchedule(Row, frozen=True, kw_only=True):
    schedule: ScheduleRef
    revision: int
    next_at: Millis | None
    waiting: bool
    data: bytes


class DueSchedule(Row, frozen=True, kw_only=True):
    schedule: ScheduleRef
    next_at: Millis


class StoredEffect(Row, frozen=True, kw_only=True):
    run: RunRef
    effect: Effect


class QueueBacklog(Row, frozen=True, kw_only=True):
    """How many tasks of a queue wait in the store (those taken by a worker in another process left out)."""

    queue: QueueKey
    depth: int
    oldest: Millis


class DestinationBacklog(Row, frozen=True, kw_only=True):
    """How many tasks of a queue wait in the store that call this destination, or none."""

    queue: QueueKey
    destination: str | None
    depth: int


class TaskCursor(Row, frozen=True, kw_only=True):
    """Where a page of a queue ended: its order is priority (high first), scheduled_at, run_id, event_id."""

    priority: int
    scheduled_at: Millis
    run_id: str
    event_id: int


class ExecutionFilter(Row, frozen=True, kw_only=True):
    """Of one tenant, newest run first. `before_run_id` is where the last page ended. Runs that another one started
    are left out, but for those of the `parent` that is asked for."""

    tenant: str
    limit: int
    status: ExecutionStatus | None = None
    workflow: str | None = None
    label: tuple[str, str] | None = None
    started_after: Millis | None = None
    started_before: Millis | None = None
    before_run_id: str | None = None
    parent: str | None = None


class LetterFilter(Row, frozen=True, kw_only=True):
    """Of one tenant, newest first, from `behind` (at, run_id) on; without a tenant of all of them, oldest first."""

    tenant: str | None
    limit: int
    workflow_id: str | None = None
    workflow: str | None = None
    node: str | None = None
    error: str | None = None
    before: Millis | None = None
    after: Millis | None = None
    behind: tuple[Millis, str] | None = None


class StoredLetter(Row, frozen=True, kw_only=True):
    run: RunRef
    letter: LetterRow


class Definition(Row, frozen=True, kw_only=True):
    name: str
    version: int
    hash: str
    text: str
    registered_at: Millis


class DefinitionEntry(Row, frozen=True, kw_only=True):
    name: str
    version: int
    registered_at: Millis


class StoreInfo(Row, frozen=True, kw_only=True):
    kind: str
    schema_version: int
    shards: int
    shared: bool = False
    """Whether several daemons may have it open, each with some of the shards (`Store.attend`)."""
    cluster: str | None = None
    """What is the same for all daemons that share it, and for nobody else. None where it is not shared."""
