"""What a session does for distributed Maps: it starts their runs, tells them of those that closed, stops what is left
of those that are over, and reads and writes their files.

A Map and its runs are in one shard, and what one does to the other is in one commit: a run is created by the commit of
the event that counts it, and its end is counted by the commit that closes it. So nothing is started or counted twice,
and none is forgotten. What is to be canceled is an effect, kept until it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
import trio

from daemon.execution.commands import Cancel, Command, FileFailed, ItemOutcome, ItemsEnded, ItemsRead, ResultsWritten
from daemon.execution.distributed import record_of
from daemon.execution.step import ReadItems, WriteResults
from daemon.journal.identity import child_id
from daemon.journal.item_files import FileProblem, Page, ResultFiles, flattened, read_page
from daemon.journal.live import LiveRun
from daemon.language import Transformation
from daemon.logs import about
from enginekit.messages.events import PartStatus
from enginekit.messages.json import JSON, NULL
from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.session import Session

log = structlog.get_logger("history")

STOP: Final = "stop"
"""The effect of a Map that is over while runs of it are not. Its id is minus the Map's."""

READER_FAILED: Final = "States.ItemReaderFailed"
WRITER_FAILED: Final = "States.ResultWriterFailed"
RESULT_BYTES: Final = 1024 * 1024
"""Of results, read from the store at once."""

Stopped = tuple[int, str]
"""A run of a Map: its number and its run_id."""

_stopped = msgspec.json.Decoder(list[Stopped]).decode


class Mappings:
    """Of one session. `folder` is where files may be; `threads`: they are read and written in one."""

    def __init__(self, session: Session, folder: Path | None, *, threads: bool) -> None:
        self._session = session
        self._folder = folder
        self._threads = threads
        self._closed: list[LiveRun] = []
        self._busy: set[tuple[str, int]] = set()

    # --- runs that close --------------------------------------------------------------------------------------------

    def closed(self, live: LiveRun) -> None:
        """A run with a parent has closed: its parent is told in the same commit."""
        self._closed.append(live)

    def settle(self) -> None:
        """Tell the parents of all that have closed. Called before a batch is taken to be written."""
        while self._closed:
            ended: dict[tuple[RunRef, int], tuple[LiveRun, list[ItemOutcome]]] = {}
            for live in self._closed:
                parent, about = live.parent, live.run.parent
                assert parent is not None
                assert about is not None
                told = ended.setdefault((parent.run.ref, about.event), (parent, []))
                told[1].append(_outcome(live, about.index))
            self._closed = []
            for (_, mapping), (parent, outcomes) in ended.items():
                self._session.act_quietly(parent, ItemsEnded(mapping=mapping, outcomes=outcomes))

    # --- runs to be stopped -----------------------------------------------------------------------------------------

    def stop(self, ref: RunRef, shard: int, mapping: int, data: bytes) -> None:
        """Cancel what still runs of a Map that is over; that is on disk before the effect is removed."""
        self._session.nursery.start_soon(self._stop, ref, shard, mapping, _stopped(data))

    async def _stop(self, ref: RunRef, shard: int, mapping: int, runs: list[Stopped]) -> None:
        session = self._session
        for number, run_id in runs:
            child = RunRef(ref.tenant, child_id(shard, ref.run_id, mapping, number), run_id)
            await self._cancel(child)

        def done(live: LiveRun) -> None:
            session.remove_effect(live, -mapping)

        session.when_live(ref, done, partial(_log_lost, ref))

    async def _cancel(self, ref: RunRef) -> None:
        session = self._session
        canceled = trio.Event()
        batches: list[trio.Event] = []

        def act(live: LiveRun) -> None:
            if not live.run.status.closed:
                session.act_quietly(live, Cancel(reason="its Map state is over", request_id=None))
            if live.batch is not None:
                batches.append(live.batch.committed)
            canceled.set()

        session.when_live(ref, act, lambda refused: canceled.set())
        await canceled.wait()
        for committed in batches:
            await committed.wait()

    # --- files ------------------------------------------------------------------------------------------------------

    def serve(self, live: LiveRun, wanted: ReadItems | WriteResults) -> None:
        """Read or write what a Map wants, unless that is being done."""
        key = (live.run.ref.run_id, wanted.mapping)
        if key in self._busy:
            return
        self._busy.add(key)
        live.waiters += 1
        self._session.nursery.start_soon(self._serve, live, wanted)

    async def _serve(self, live: LiveRun, wanted: ReadItems | WriteResults) -> None:
        try:
            command = await (self._read(wanted) if isinstance(wanted, ReadItems) else self._write(live.run.ref, wanted))
        finally:
            self._busy.discard((live.run.ref.run_id, wanted.mapping))
            live.waiters -= 1
        self._session.act_quietly(live, command)
        self._session.stepper.add(live)

    async def _read(self, wanted: ReadItems) -> Command:
        plan = wanted.plan.read
        assert plan is not None
        arguments = (self._folder, plan, wanted.position, wanted.taken, wanted.limit)
        try:
            page: Page = (
                await trio.to_thread.run_sync(read_page, *arguments) if self._threads else read_page(*arguments)
            )
        except FileProblem as problem:
            return FileFailed(mapping=wanted.mapping, error=READER_FAILED, cause=str(problem))
        return ItemsRead(
            mapping=wanted.mapping,
            after=wanted.position,
            values=page.values,
            position=page.position,
            exhausted=page.exhausted,
            total=page.total,
            source=page.source,
        )

    async def _write(self, ref: RunRef, wanted: WriteResults) -> Command:
        plan = wanted.plan.write
        assert plan is not None
        map_run = f"{ref.run_id}.{wanted.mapping}"
        flatten = wanted.plan.transformation is Transformation.FLATTEN
        try:
            files = ResultFiles(self._folder, plan, map_run)
            for status in (PartStatus.SUCCEEDED, PartStatus.FAILED):
                pages = _Pages(self._session, ref, wanted.mapping, status, flatten and status is PartStatus.SUCCEEDED)
                if self._threads:
                    await trio.to_thread.run_sync(files.write, status.value, pages.from_thread())
                else:
                    files.write(status.value, iter(await pages.all()))
            result: JSON = files.finish(map_run)
        except FileProblem as problem:
            return FileFailed(mapping=wanted.mapping, error=WRITER_FAILED, cause=str(problem))
        return ResultsWritten(mapping=wanted.mapping, result=result)


class _Pages:
    """A Map's results of one status, page by page out of the store."""

    def __init__(self, session: Session, ref: RunRef, mapping: int, status: PartStatus, flatten: bool) -> None:
        self._session = session
        self._ref = ref
        self._mapping = mapping
        self._status = status
        self._flatten = flatten
        self._after = -1

    async def next(self) -> list[bytes] | None:
        """None behind the last one. Raises StoreUnavailable."""
        ref = self._ref
        rows = await self._session.store.map_results(
            ref.tenant, ref.run_id, self._mapping, self._status.value, self._after, RESULT_BYTES
        )
        if not rows:
            return None
        self._after = rows[-1].number
        if self._flatten:
            return [part for row in rows for part in flattened(row.data)]
        return [row.data for row in rows]

    async def all(self) -> list[list[bytes]]:
        found: list[list[bytes]] = []
        while (page := await self.next()) is not None:
            found.append(page)
        return found

    def from_thread(self) -> Iterator[list[bytes]]:
        while (page := trio.from_thread.run(self.next)) is not None:
            yield page


def _outcome(live: LiveRun, number: int) -> ItemOutcome:
    run = live.run
    succeeded = run.status is ExecutionStatus.SUCCEEDED
    return ItemOutcome(
        index=number,
        status=PartStatus.SUCCEEDED if succeeded else PartStatus.FAILED,
        output=NULL if run.output is None else run.output.raw,
        record=record_of(run),
        error=None if succeeded else f"{run.error or run.status.value}: {(run.cause or '')[:200]}",
    )


def _log_lost(ref: RunRef, refused: Refused) -> None:
    log.warning("the execution of a Map's effect cannot be loaded", why=refused.message, **about(ref))
