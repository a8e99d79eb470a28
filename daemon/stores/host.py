"""The driver process: `python -m daemon.stores.host WRITE_LANE READ_LANE`, started by `process.py` and nobody else.

It hosts one synchronous driver behind two lanes. The main thread serves the write lane, a second thread the read lane;
SQLite and the sockets release the GIL while they work. The process ends when its lanes do: a daemon that is gone,
however it went, takes its driver along as soon as that has finished what it is executing. Nothing here imports Trio.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from daemon.drivers.hosting import begin, has_ended, serve, shut
from daemon.stores import frames
from daemon.stores.driver import Driver, Reader, Writer
from daemon.stores.faults import BatchRefused, Fenced, NoSuchEvent, StoreLost, StoreUnavailable, StoreUnusable

_READER_GRACE_SECONDS = 1.0
_LAST = (frames.Lost, frames.Unusable)
"""What a driver answers last: it is of no use after it."""

R = TypeVar("R")

_write_requests: msgspec.msgpack.Decoder[frames.WriteRequest] = msgspec.msgpack.Decoder(frames.WriteRequest)
_read_requests: msgspec.msgpack.Decoder[frames.ReadRequest] = msgspec.msgpack.Decoder(frames.ReadRequest)


def main() -> None:
    write_lane, read_lane = begin()
    host = _Host(write_lane, read_lane)
    try:
        serve(write_lane, _write_requests, partial(_reply, handle=host.write), _LAST)
    finally:
        host.close()


class _Host:
    """The driver, from `Open` to the end of the lanes."""

    def __init__(self, write_lane: socket.socket, read_lane: socket.socket) -> None:
        self._write_lane = write_lane
        self._read_lane = read_lane
        self._driver: Driver | None = None
        self._reading: threading.Thread | None = None

    def write(self, request: frames.WriteRequest) -> frames.Reply:
        if isinstance(request, frames.Open):
            self._driver = open_driver(request, lambda: not has_ended(self._write_lane))
            self._reading = threading.Thread(target=self._serve_reads, args=(self._driver.reader,), daemon=True)
            self._reading.start()
            return frames.Opened(self._driver.info)
        if self._driver is None:
            raise StoreUnusable("the first request to a driver process is Open")
        return _write(self._driver.writer, request)

    def _serve_reads(self, reader: Reader) -> None:
        try:
            answer = partial(_reply, handle=lambda request: frames.answer(_read(reader, request)))
            serve(self._read_lane, _read_requests, answer, _LAST)
        finally:
            # Of no use without reads: the write lane ends behind what it is executing.
            shut(self._write_lane, socket.SHUT_RD)

    def close(self) -> None:
        """Close the connections, unless a read is taking its time: those end with the process."""
        shut(self._read_lane, socket.SHUT_RDWR)
        if self._reading is not None:
            self._reading.join(_READER_GRACE_SECONDS)
        if self._driver is not None and (self._reading is None or not self._reading.is_alive()):
            self._driver.close()


def open_driver(request: frames.Open, still_wanted: Callable[[], bool]) -> Driver:
    """The backend that the URL names. Raises StoreUnusable, or StoreUnavailable when it cannot be reached yet."""
    scheme, _, location = request.url.partition(":")
    if scheme == "sqlite":
        from pathlib import Path

        from daemon.stores.sqlite.database import open_driver as open_sqlite

        return open_sqlite(Path(location), request.shards, request.lock_wait_seconds, still_wanted)
    if scheme == "postgresql":
        from daemon.stores.postgres.database import open_driver as open_postgres

        return open_postgres(
            request.url, request.shards, request.lock_wait_seconds, request.call_timeout_seconds, still_wanted
        )
    raise StoreUnusable(f"no store backend is called {scheme!r}")


def _reply(request: R, handle: Callable[[R], frames.Reply]) -> frames.Reply:
    try:
        return handle(request)
    except BatchRefused as refused:
        return frames.Refused(str(refused))
    except Fenced as fenced:
        return frames.Outdated(fenced.shards)
    except NoSuchEvent as missing:
        return frames.Missing(str(missing))
    except StoreLost as lost:
        return frames.Lost(str(lost))
    except StoreUnavailable as unavailable:
        return frames.Unavailable(str(unavailable))
    except StoreUnusable as unusable:
        return frames.Unusable(str(unusable))


def _write(writer: Writer, request: frames.OwnerRequest | frames.Commit | frames.Tidy) -> frames.Reply:
    match request:
        case frames.Commit():
            writer.commit(request.batch)
        case frames.Tidy():
            return frames.answer(writer.tidy(request.now))
        case frames.TakeShards():
            return frames.answer(writer.take_shards())
        case frames.Attend():
            return frames.answer(writer.attend(request.owner, request.lease_seconds))
        case frames.ClaimShards():
            return frames.answer(writer.claim_shards(request.owner, request.shards))
        case frames.ReleaseShards():
            writer.release_shards(request.owner, request.epochs)
        case frames.Leave():
            writer.leave(request.owner)
    return frames.answer(None)


def _read(reader: Reader, request: frames.ReadRequest) -> object:
    match request:
        case frames.GetStartCheck():
            return reader.start_check(request.tenant, request.workflow_id, request.request_id)
        case frames.GetLatestRun():
            return reader.latest_run(request.tenant, request.workflow_id)
        case frames.GetExecution():
            return reader.execution(request.tenant, request.run_id)
        case frames.LoadRuns():
            return reader.load_runs(request.runs, request.fingerprint, request.max_bytes)
        case frames.GetEvents():
            return reader.events(request.tenant, request.run_id, request.after_id, request.limit, request.max_bytes)
        case frames.GetEventsById():
            return reader.events_by_id(request.tenant, request.run_id, request.ids)
        case frames.GetDueRuns():
            return reader.due_runs(request.before, request.limit, request.after)
        case frames.GetExpiredRuns():
            return reader.expired_runs(request.before, request.until, request.limit, request.after, request.shards)
        case frames.GetEffects():
            return reader.effects(request.limit, request.after, request.shards)
        case frames.GetQueueBacklogs():
            return reader.queue_backlogs()
        case frames.GetWaitingTasks():
            return reader.waiting_tasks(request.queue, request.limit, request.after, request.without)
        case frames.GetDestinationBacklogs():
            return reader.destination_backlogs(request.tenant)
        case frames.ListExecutions():
            return reader.list_executions(request.wanted)
        case frames.GetMapResults():
            return reader.map_results(
                request.tenant, request.run_id, request.map_id, request.status, request.after, request.max_bytes
            )
        case frames.ListDeadLetters():
            return reader.dead_letters(request.wanted)
        case frames.GetDeadLetter():
            return reader.dead_letter(request.tenant, request.run_id, request.event_id)
        case frames.GetDefinition():
            return reader.definition(request.tenant, request.name, request.version)
        case frames.GetDefinitionText():
            return reader.definition_text(request.tenant, request.hash)
        case frames.ListDefinitions():
            return reader.list_definitions(request.tenant, request.limit, request.after_name)
        case frames.GetSchedule():
            return reader.schedule(request.tenant, request.schedule_id)
        case frames.ListSchedules():
            return reader.list_schedules(request.tenant, request.limit, request.after_id, request.max_bytes)
        case frames.GetDueSchedules():
            return reader.due_schedules(request.before, request.limit, request.after)
        case frames.GetWaitingSchedules():
            return reader.waiting_schedules(request.limit, request.after, request.shards)


if __name__ == "__main__":
    main()
