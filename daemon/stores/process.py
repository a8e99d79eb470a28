"""A store whose driver lives in a process of its own: `Store` over two lanes to it, and the process's supervision.

A Trio loop that is busy starves every other thread of the GIL, so a synchronous driver gets a process instead of a
thread. It is restarted whenever it is lost, whatever took it; calls that were under way raise StoreUnavailable, since
nobody knows how far they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import structlog
import trio

from daemon.drivers.lane import Lane
from daemon.drivers.process import NotStarted, end, spawn
from daemon.stores import frames
from daemon.stores.faults import BatchRefused, Fenced, NoSuchEvent, StoreUnavailable, StoreUnusable
from daemon.stores.rows import (
    Attendance,
    Batch,
    Definition,
    DefinitionEntry,
    DestinationBacklog,
    DueRun,
    DueSchedule,
    Execution,
    ExecutionFilter,
    ExpiredRuns,
    LatestRun,
    LetterFilter,
    MapResult,
    QueueBacklog,
    ShardEpochs,
    StartCheck,
    StoredEffect,
    StoredLetter,
    StoredRun,
    StoredSchedule,
    StoreInfo,
    TaskCursor,
    Tidied,
)
from enginekit.messages.links import Millis, QueuedTask, QueueKey, RunRef, ScheduleRef

T = TypeVar("T")

_BACKOFF_SECONDS = 0.05
_BACKOFF_LIMIT_SECONDS = 1.0
_SETTLED_SECONDS = 1.0
"""A driver that lived this long owes its end to something new: the pause starts small again."""

_log = structlog.get_logger("store")

_replies: msgspec.msgpack.Decoder[frames.Reply] = msgspec.msgpack.Decoder(frames.Reply)
_shard_epochs = msgspec.msgpack.Decoder(ShardEpochs)
_attendance = msgspec.msgpack.Decoder(Attendance)
_start_check = msgspec.msgpack.Decoder(StartCheck)
_latest_run: msgspec.msgpack.Decoder[LatestRun | None] = msgspec.msgpack.Decoder(LatestRun | None)
_execution: msgspec.msgpack.Decoder[Execution | None] = msgspec.msgpack.Decoder(Execution | None)
_stored_runs: msgspec.msgpack.Decoder[list[StoredRun | None]] = msgspec.msgpack.Decoder(list[StoredRun | None])
_events = msgspec.msgpack.Decoder(list[bytes])
_due_runs = msgspec.msgpack.Decoder(list[DueRun])
_expired_runs = msgspec.msgpack.Decoder(ExpiredRuns)
_tidied = msgspec.msgpack.Decoder(Tidied)
_effects = msgspec.msgpack.Decoder(list[StoredEffect])
_backlogs = msgspec.msgpack.Decoder(list[QueueBacklog])
_destination_backlogs = msgspec.msgpack.Decoder(list[DestinationBacklog])
_tasks = msgspec.msgpack.Decoder(list[QueuedTask])
_executions = msgspec.msgpack.Decoder(list[Execution])
_letters = msgspec.msgpack.Decoder(list[StoredLetter])
_letter: msgspec.msgpack.Decoder[StoredLetter | None] = msgspec.msgpack.Decoder(StoredLetter | None)
_map_results = msgspec.msgpack.Decoder(list[MapResult])
_definition: msgspec.msgpack.Decoder[Definition | None] = msgspec.msgpack.Decoder(Definition | None)
_text: msgspec.msgpack.Decoder[str | None] = msgspec.msgpack.Decoder(str | None)
_definitions = msgspec.msgpack.Decoder(list[DefinitionEntry])
_schedule: msgspec.msgpack.Decoder[StoredSchedule | None] = msgspec.msgpack.Decoder(StoredSchedule | None)
_schedules = msgspec.msgpack.Decoder(list[StoredSchedule])
_due_schedules = msgspec.msgpack.Decoder(list[DueSchedule])
_schedule_refs = msgspec.msgpack.Decoder(list[ScheduleRef])
_nothing: msgspec.msgpack.Decoder[None] = msgspec.msgpack.Decoder(None)


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the store cannot be asked: {reason}")


class _NotOpened(Exception):
    """A driver process came up without a store, for a reason that may pass."""


class _NotReached(Exception):
    """The driver process is well, and the store's server is not there yet."""


class _Connection:
    """One driver process with its store open."""

    def __init__(
        self, process: trio.Process, info: StoreInfo, write_lane: Lane[frames.Reply], read_lane: Lane[frames.Reply]
    ) -> None:
        self.process = process
        self.info = info
        self.write_lane = write_lane
        self.read_lane = read_lane
        self.unusable: str | None = None
        """Why the store cannot be used any more, once the driver has found that out."""
        self.lost: str | None = None
        """What took the driver's connection to its server, once it has found that out."""


class ProcessStore:
    """Implements `Store`. `url` is what the driver process is told to open (`frames.Open`).

    A call that takes longer than `call_timeout_seconds` raises StoreUnavailable, and its driver is killed.
    """

    def __init__(self, url: str, *, shards: int, lock_wait_seconds: float, call_timeout_seconds: float) -> None:
        self._open = frames.Open(
            url=url,
            shards=shards,
            lock_wait_seconds=lock_wait_seconds,
            call_timeout_seconds=call_timeout_seconds,
        )
        self._call_timeout = call_timeout_seconds
        self._open_timeout = lock_wait_seconds + call_timeout_seconds
        self._connection: _Connection | None = None
        self._became_ready = trio.Event()
        self._opened = 0

    # --- the process -------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Store.run`. Cancelled, it gives the driver a few seconds to finish what it is executing, then kills
        it; no process is left behind."""
        pause = _BACKOFF_SECONDS
        opened_before = self._opened
        while True:
            started = trio.current_time()
            first = self._opened == opened_before
            try:
                reason = await self._host(task_status if first else trio.TASK_STATUS_IGNORED)
            except _NotReached as absence:
                _log.warning("store cannot be reached, and is waited for", reason=str(absence), retry_seconds=pause)
            except _NotOpened as failure:
                if first:
                    raise StoreUnusable(f"the store's driver process could not be started: {failure}") from failure
                _log.warning("store driver could not be started", reason=str(failure), retry_seconds=pause)
            else:
                _log.warning("store driver lost", reason=reason, retry_seconds=pause)
            if trio.current_time() - started > _SETTLED_SECONDS:
                pause = _BACKOFF_SECONDS
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def wait_ready(self) -> None:
        await self._became_ready.wait()

    @property
    def restarts(self) -> int:
        return max(self._opened - 1, 0)

    @property
    def ready(self) -> bool:
        return self._connection is not None

    @property
    def driver_pid(self) -> int | None:
        """The driver process, while it has the store open."""
        return self._connection.process.pid if self._connection is not None else None

    async def _host(self, task_status: trio.TaskStatus[None]) -> str:
        """One driver process, from its start to its loss: why it was lost. Raises StoreUnusable, _NotOpened or
        _NotReached."""
        try:
            process, write_lane, read_lane = await spawn("daemon.stores.host", _replies, _unavailable)
        except NotStarted as error:
            raise _NotOpened(str(error)) from error
        connection: _Connection | None = None
        failure: StoreUnusable | _NotOpened | _NotReached | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_serve, write_lane, nursery.cancel_scope)
                try:
                    info = await self._open_store(write_lane)
                except (StoreUnusable, _NotOpened, _NotReached) as error:
                    failure = error
                    nursery.cancel_scope.cancel()
                else:
                    nursery.start_soon(_serve, read_lane, nursery.cancel_scope)
                    connection = self._connection = _Connection(process, info, write_lane, read_lane)
                    self._opened += 1
                    self._became_ready.set()
                    task_status.started()
        finally:
            if connection is not None:
                self._connection = None
                self._became_ready = trio.Event()
            write_lane.close()
            read_lane.close()
            await end(process)
        if failure is not None:
            raise failure
        if connection is not None and connection.unusable is not None:
            raise StoreUnusable(connection.unusable)
        return "its process ended" if connection is None or connection.lost is None else connection.lost

    async def _open_store(self, write_lane: Lane[frames.Reply]) -> StoreInfo:
        try:
            with trio.fail_after(self._open_timeout):
                reply = await write_lane.ask(frames.frame(self._open))
        except trio.TooSlowError as error:
            raise _NotOpened(f"it did not answer within {self._open_timeout:g} seconds") from error
        except StoreUnavailable as error:
            raise _NotOpened("it ended at once; what it wrote on the daemon's standard error says why") from error
        match reply:
            case frames.Opened():
                return reply.info
            case frames.Unusable():
                raise StoreUnusable(reply.message)
            case frames.Unavailable() | frames.Lost():
                raise _NotReached(reply.message)
            case _:
                raise _NotOpened(f"it answered with {type(reply).__name__}")

    # --- calls -------------------------------------------------------------------------------------------------------

    def _live(self) -> _Connection:
        if self._connection is None:
            raise StoreUnavailable("the store is not open; its driver process is being started")
        return self._connection

    async def _write(self, request: frames.WriteRequest, answer: msgspec.msgpack.Decoder[T]) -> T:
        connection = self._live()
        return await self._ask(connection, connection.write_lane, frames.frame(request), answer)

    async def _read(self, request: frames.ReadRequest, answer: msgspec.msgpack.Decoder[T]) -> T:
        connection = self._live()
        return await self._ask(connection, connection.read_lane, frames.frame(request), answer)

    async def _ask(
        self, connection: _Connection, lane: Lane[frames.Reply], message: bytearray, answer: msgspec.msgpack.Decoder[T]
    ) -> T:
        reply: frames.Reply | None = None
        with trio.move_on_after(self._call_timeout):
            reply = await lane.ask(message)
        if reply is None:
            connection.process.kill()
            raise StoreUnavailable(f"the store did not answer within {self._call_timeout:g} seconds")
        match reply:
            case frames.Answer():
                return answer.decode(reply.value)
            case frames.Refused():
                raise BatchRefused(reply.message)
            case frames.Outdated():
                raise Fenced(reply.shards)
            case frames.Missing():
                raise NoSuchEvent(reply.message)
            case frames.Lost():
                connection.lost = reply.message
                raise StoreUnavailable(reply.message)
            case frames.Unavailable():
                raise StoreUnavailable(reply.message)
            case frames.Unusable():
                connection.unusable = reply.message
                raise StoreUnavailable(reply.message)
            case frames.Opened():
                raise StoreUnavailable("the store's driver process answered out of turn")

    async def info(self) -> StoreInfo:
        connection = self._live()
        await trio.lowlevel.checkpoint()
        return connection.info

    async def take_shards(self) -> ShardEpochs:
        return await self._write(frames.TakeShards(), _shard_epochs)

    async def attend(self, owner: str, lease_seconds: float) -> Attendance:
        return await self._write(frames.Attend(owner, lease_seconds), _attendance)

    async def claim_shards(self, owner: str, shards: Sequence[int]) -> ShardEpochs:
        return await self._write(frames.ClaimShards(owner, list(shards)), _shard_epochs)

    async def release_shards(self, owner: str, epochs: dict[int, int]) -> None:
        await self._write(frames.ReleaseShards(owner, epochs), _nothing)

    async def leave(self, owner: str) -> None:
        await self._write(frames.Leave(owner), _nothing)

    async def commit(self, batch: Batch) -> None:
        try:
            message = frames.frame(frames.Commit(batch))
        except (ValueError, OverflowError) as error:
            raise BatchRefused(f"a value of this batch cannot be stored: {error}") from error
        connection = self._live()
        await self._ask(connection, connection.write_lane, message, _nothing)

    async def tidy(self, now: Millis) -> Tidied:
        return await self._write(frames.Tidy(now), _tidied)

    async def start_check(self, tenant: str, workflow_id: str, request_id: str | None) -> StartCheck:
        return await self._read(frames.GetStartCheck(tenant, workflow_id, request_id), _start_check)

    async def latest_run(self, tenant: str, workflow_id: str) -> LatestRun | None:
        return await self._read(frames.GetLatestRun(tenant, workflow_id), _latest_run)

    async def execution(self, tenant: str, run_id: str) -> Execution | None:
        return await self._read(frames.GetExecution(tenant, run_id), _execution)

    async def load_runs(self, runs: Sequence[RunRef], fingerprint: str, max_bytes: int) -> list[StoredRun | None]:
        return await self._read(frames.LoadRuns(list(runs), fingerprint, max_bytes), _stored_runs)

    async def events(self, tenant: str, run_id: str, after_id: int, limit: int, max_bytes: int) -> list[bytes]:
        return await self._read(frames.GetEvents(tenant, run_id, after_id, limit, max_bytes), _events)

    async def events_by_id(self, tenant: str, run_id: str, ids: list[int]) -> list[bytes]:
        return await self._read(frames.GetEventsById(tenant, run_id, ids), _events)

    async def due_runs(self, before: Millis, limit: int, after: DueRun | None = None) -> list[DueRun]:
        return await self._read(frames.GetDueRuns(before, limit, after), _due_runs)

    async def expired_runs(
        self, before: Millis, until: str, limit: int, after: str | None = None, shards: Sequence[int] | None = None
    ) -> ExpiredRuns:
        of = None if shards is None else list(shards)
        return await self._read(frames.GetExpiredRuns(before, until, limit, after, of), _expired_runs)

    async def effects(
        self, limit: int, after: StoredEffect | None = None, shards: Sequence[int] | None = None
    ) -> list[StoredEffect]:
        return await self._read(frames.GetEffects(limit, after, None if shards is None else list(shards)), _effects)

    async def queue_backlogs(self) -> list[QueueBacklog]:
        return await self._read(frames.GetQueueBacklogs(), _backlogs)

    async def destination_backlogs(self, tenant: str) -> list[DestinationBacklog]:
        return await self._read(frames.GetDestinationBacklogs(tenant), _destination_backlogs)

    async def waiting_tasks(
        self, queue: QueueKey, limit: int, after: TaskCursor | None = None, without: Sequence[str] = ()
    ) -> list[QueuedTask]:
        return await self._read(frames.GetWaitingTasks(queue, limit, after, list(without)), _tasks)

    async def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        return await self._read(frames.ListExecutions(wanted), _executions)

    async def map_results(
        self, tenant: str, run_id: str, map_id: int, status: str, after: int, max_bytes: int
    ) -> list[MapResult]:
        return await self._read(frames.GetMapResults(tenant, run_id, map_id, status, after, max_bytes), _map_results)

    async def dead_letters(self, wanted: LetterFilter) -> list[StoredLetter]:
        return await self._read(frames.ListDeadLetters(wanted), _letters)

    async def dead_letter(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        return await self._read(frames.GetDeadLetter(tenant, run_id, event_id), _letter)

    async def definition(self, tenant: str, name: str, version: int | None) -> Definition | None:
        return await self._read(frames.GetDefinition(tenant, name, version), _definition)

    async def definition_text(self, tenant: str, hash: str) -> str | None:
        return await self._read(frames.GetDefinitionText(tenant, hash), _text)

    async def list_definitions(self, tenant: str, limit: int, after_name: str | None) -> list[DefinitionEntry]:
        return await self._read(frames.ListDefinitions(tenant, limit, after_name), _definitions)

    async def schedule(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        return await self._read(frames.GetSchedule(tenant, schedule_id), _schedule)

    async def list_schedules(
        self, tenant: str, limit: int, after_id: str | None, max_bytes: int
    ) -> list[StoredSchedule]:
        return await self._read(frames.ListSchedules(tenant, limit, after_id, max_bytes), _schedules)

    async def due_schedules(self, before: Millis, limit: int, after: DueSchedule | None = None) -> list[DueSchedule]:
        return await self._read(frames.GetDueSchedules(before, limit, after), _due_schedules)

    async def waiting_schedules(
        self, limit: int, after: ScheduleRef | None = None, shards: Sequence[int] | None = None
    ) -> list[ScheduleRef]:
        of = None if shards is None else list(shards)
        return await self._read(frames.GetWaitingSchedules(limit, after, of), _schedule_refs)


async def _serve(lane: Lane[frames.Reply], both: trio.CancelScope) -> None:
    """A process that has lost one lane is of no use: the other goes with it."""
    await lane.serve()
    both.cancel()
