"""What a session does to runs whose shard is another's, and what other owners ask of this one.

A run that another one names, and a run that a schedule starts, may be in any shard. Where it is the session's own,
things are done to it here; else its owner is asked over the link, and an answer means that it is on disk. Asked twice,
it is done once: starts and ends are named by their requests, and a parent knows its child.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from daemon.execution.commands import Cancel, ChildClosed, ChildNotStarted, ChildStarted, Command, Terminate
from daemon.journal.live import LiveRun
from daemon.journal.starting import Wanted
from daemon.links.interface import Caller, Request
from daemon.links.sharding import shard_of
from enginekit.messages.calls import Acknowledged
from enginekit.messages.links import EndRun, RunRef, StartRun, StartRunResult, TellParent
from enginekit.messages.status import ErrorStatus, Refused

Told: TypeAlias = Cancel | Terminate | ChildClosed | ChildStarted | ChildNotStarted
"""What may be done to a run from another: the last two are a session's own."""

if TYPE_CHECKING:
    from daemon.journal.session import Session

ASK_SECONDS: Final = 10.0
"""How long another owner is waited for; then it is asked again."""


class Across:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def owns(self, ref: RunRef) -> bool:
        return self._session.shard(ref) in self._session.epochs

    # --- asking -----------------------------------------------------------------------------------------------------

    async def start(self, call: StartRun, tenant: str) -> StartRunResult:
        """The run, on disk. Raises Refused."""
        session = self._session
        if call.workflow_id is not None and shard_of(tenant, call.workflow_id, session.shards) not in session.epochs:
            return await session.history.request(Caller(tenant, ""), call, StartRunResult, ASK_SECONDS)
        started = await self._start(call, tenant)
        live = await session.live(started if isinstance(started, RunRef) else started.run.ref)
        if live.batch is not None:
            await live.batch.committed.wait()
        return _result(live)

    async def act(self, ref: RunRef, command: Told, by: str | None = None) -> None:
        """Done, and on disk; or refused by the run itself, which has closed. Passed over where it is not there.
        Raises Refused."""
        if self.owns(ref):
            await self._act(ref, command, by)
            return
        if isinstance(command, ChildClosed):
            call: EndRun | TellParent = _told(ref, command)
        else:
            assert isinstance(command, Cancel | Terminate), "a parent hears of its child's start in its own shard"
            call = _ended(ref, command, by)
        try:
            await self._session.history.request(Caller(ref.tenant, ""), call, Acknowledged, ASK_SECONDS)
        except Refused as refused:
            if refused.status is not ErrorStatus.NOT_FOUND:
                raise

    # --- asked ------------------------------------------------------------------------------------------------------

    async def start_run(self, request: Request, call: StartRun) -> None:
        started = await self._start(call, request.caller.tenant)
        live = await self._session.live(started if isinstance(started, RunRef) else started.run.ref)
        self._session.answer(request, _result(live), live)

    async def end_run(self, request: Request, call: EndRun) -> None:
        command: Command = (
            Terminate(reason=call.reason, request_id=call.request_id)
            if call.terminate
            else Cancel(reason=call.reason, request_id=call.request_id)
        )
        await self._act(call.run, command, call.by)
        request.answer(Acknowledged())

    async def tell_parent(self, request: Request, call: TellParent) -> None:
        told = ChildClosed(
            task=call.task,
            workflow_id=call.workflow_id,
            run_id=call.run_id,
            workflow=call.workflow,
            status=call.status,
            input=call.input,
            output=call.output,
            error=call.error,
            cause=call.cause,
            usage=call.usage,
            started_at=call.started_at,
            closed_at=call.closed_at,
        )
        await self._act(call.parent, told, None)
        request.answer(Acknowledged())

    # --- here -------------------------------------------------------------------------------------------------------

    async def _start(self, call: StartRun, tenant: str) -> LiveRun | RunRef:
        session = self._session
        try:
            registered = await session.definitions.registered(tenant, call.workflow, call.version)
        except LookupError as error:
            raise Refused(ErrorStatus.NOT_FOUND, str(error)) from error
        return await session.starts.start(
            Wanted(
                tenant=tenant,
                by=call.by,
                definition=registered.definition,
                definition_hash=registered.hash,
                input=call.input,
                workflow=call.workflow,
                version=registered.version,
                workflow_id=call.workflow_id,
                request_id=call.request_id,
                labels=call.labels,
                parent_task=call.parent_task,
            )
        )

    async def _act(self, ref: RunRef, command: Command, by: str | None) -> None:
        batches: list[trio.Event] = []
        refusals: list[Refused] = []
        done = trio.Event()

        def act(live: LiveRun) -> None:
            try:
                self._session.act(live, command, by)
            except Refused as refused:
                if refused.status is not ErrorStatus.FAILED_PRECONDITION:
                    refusals.append(refused)
            if live.batch is not None:
                batches.append(live.batch.committed)
            done.set()

        def lost(refused: Refused) -> None:
            if refused.status is not ErrorStatus.NOT_FOUND:
                refusals.append(refused)
            done.set()

        self._session.when_live(ref, act, lost)
        await done.wait()
        if refusals:
            raise refusals[0]
        for committed in batches:
            await committed.wait()


def _result(live: LiveRun) -> StartRunResult:
    run = live.run
    return StartRunResult(workflow_id=run.ref.workflow_id, run_id=run.ref.run_id, started_at=run.started_at)


def _ended(ref: RunRef, command: Cancel | Terminate, by: str | None) -> EndRun:
    return EndRun(
        run=ref,
        terminate=isinstance(command, Terminate),
        reason=command.reason,
        request_id=command.request_id,
        by=by,
    )


def _told(parent: RunRef, closed: ChildClosed) -> TellParent:
    return TellParent(
        parent=parent,
        task=closed.task,
        workflow_id=closed.workflow_id,
        run_id=closed.run_id,
        workflow=closed.workflow,
        status=closed.status,
        input=closed.input,
        output=closed.output,
        error=closed.error,
        cause=closed.cause,
        usage=closed.usage,
        started_at=closed.started_at,
        closed_at=closed.closed_at,
    )
