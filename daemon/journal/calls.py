"""The Frontend's calls about executions: start, describe, wait, read, list, cancel, terminate."""

from __future__ import annotations

from collections.abc import Callable

import trio
from msgspec import Raw

from daemon.clock import millis, moment
from daemon.execution.commands import Cancel, Command, Signal, Terminate
from daemon.execution.view import describe
from daemon.journal.definitions import definition_text
from daemon.journal.live import LiveRun
from daemon.journal.pages import read_page
from daemon.journal.session import Session
from daemon.journal.starting import Wanted
from daemon.journal.waiting import For, Waiter
from daemon.language import Definition
from daemon.links.interface import Request
from daemon.stores.rows import Execution, ExecutionFilter
from enginekit.messages import calls
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, Refused

MARGIN_SECONDS = 0.25
"""A long poll is answered this much before nobody waits for its answer any more."""


class ExecutionCalls:
    """Answers calls within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- which run ----------------------------------------------------------------------------------------------

    def on_run(self, request: Request, workflow_id: str, run_id: str | None, action: Callable[[LiveRun], None]) -> None:
        """Do it to the run that the caller names, or refuse the request."""

        def guarded(live: LiveRun) -> None:
            try:
                action(live)
            except Refused as refused:
                self._session.answer(request, refused, live)

        tenant = request.caller.tenant
        if run_id is None:
            run_id = self._session.runs.open_run(tenant, workflow_id)
        if run_id is not None:
            self._session.when_live(RunRef(tenant, workflow_id, run_id), guarded, self._session.refuser(request))
        else:
            self._session.finish(request, self._on_latest(request, workflow_id, guarded))

    async def _on_latest(self, request: Request, workflow_id: str, action: Callable[[LiveRun], None]) -> None:
        tenant = request.caller.tenant
        latest = await self._session.store.latest_run(tenant, workflow_id)
        if latest is None:
            request.refuse(Refused(ErrorStatus.NOT_FOUND, f'no execution "{workflow_id}"'))
            return
        # One that has started while the store was asked is newer than what it answered.
        run_id = self._session.runs.open_run(tenant, workflow_id) or latest.run_id
        self._session.when_live(RunRef(tenant, workflow_id, run_id), action, self._session.refuser(request))

    # --- reading ------------------------------------------------------------------------------------------------

    def describe(self, request: Request, call: calls.DescribeWorkflow) -> None:
        self.on_run(request, call.workflow_id, call.run_id, lambda live: self._answer_state(live, request))

    def _answer_state(self, live: LiveRun, request: Request) -> None:
        session = self._session
        pulse = session.pulses.get(live.run.ref.run_id, session.quiet)
        session.answer(request, describe(live.run, pulse), live)

    def wait(self, request: Request, call: calls.WaitWorkflow) -> None:
        def act(live: LiveRun) -> None:
            if live.run.status.closed or not call.wait_seconds:
                self._answer_state(live, request)
                return
            self._session.waiters.add(
                Waiter(live, request, For.CLOSE, 0, _until(request, call.wait_seconds), self._answer_state)
            )

        self.on_run(request, call.workflow_id, call.run_id, act)

    def history(self, request: Request, call: calls.GetHistory) -> None:
        def act(live: LiveRun) -> None:
            # What is being committed is not to be read yet, but comes at once: wait for that instead.
            if live.committed_id > call.after_id or not call.wait_seconds or live.closed:
                self._begin_to_read(live, request, call)
                return
            self._session.waiters.add(
                Waiter(
                    live,
                    request,
                    For.EVENTS,
                    call.after_id,
                    _until(request, call.wait_seconds),
                    lambda live, request: self._begin_to_read(live, request, call),
                )
            )

        self.on_run(request, call.workflow_id, call.run_id, act)

    def _begin_to_read(self, live: LiveRun, request: Request, call: calls.GetHistory) -> None:
        """It is waited for from now on: nobody purges a history that is being read."""
        live.waiters += 1
        self._session.finish(request, self._read(live, request, call))

    async def _read(self, live: LiveRun, request: Request, call: calls.GetHistory) -> None:
        ref = live.run.ref
        ended, last = live.closed, live.committed_id
        try:
            page = await read_page(
                self._session.store,
                ref.tenant,
                ref.run_id,
                call.after_id,
                call.limit,
                self._session.settings.history.page_bytes,
            )
        finally:
            live.waiters -= 1
        next_after = call.after_id + len(page)
        # Not about the run, whose next commit need not be waited for: but whether more comes is known from memory.
        self._session.answer(
            request,
            calls.GetHistoryResult(
                run_id=ref.run_id, events=page, next_after_id=next_after, closed=ended and next_after >= last
            ),
        )

    async def list(self, request: Request, call: calls.ListWorkflows) -> None:
        label = None if call.label is None else call.label.partition("=")
        found = await self._session.store.list_executions(
            ExecutionFilter(
                tenant=request.caller.tenant,
                limit=call.page_size + 1,
                status=call.status,
                workflow=call.workflow,
                label=None if label is None else (label[0], label[2]),
                started_after=None if call.started_after is None else millis(call.started_after),
                started_before=None if call.started_before is None else millis(call.started_before),
                before_run_id=call.page_token,
                parent=call.parent,
            )
        )
        page = found[: call.page_size]
        more = len(found) > len(page)
        request.answer(
            calls.ListWorkflowsResult(
                executions=[_summary(row) for row in page],
                next_page_token=page[-1].run.run_id if more else None,
            )
        )

    # --- changing -----------------------------------------------------------------------------------------------

    def signal(self, request: Request, call: calls.SignalWorkflow) -> None:
        self._change(
            request,
            call.workflow_id,
            call.run_id,
            Signal(name=call.name, input=call.input, request_id=call.request_id),
        )

    def cancel(self, request: Request, call: calls.CancelWorkflow) -> None:
        self._change(request, call.workflow_id, call.run_id, Cancel(reason=call.reason, request_id=call.request_id))

    def terminate(self, request: Request, call: calls.TerminateWorkflow) -> None:
        self._change(request, call.workflow_id, call.run_id, Terminate(reason=call.reason, request_id=call.request_id))

    def _change(self, request: Request, workflow_id: str, run_id: str | None, command: Command) -> None:
        def act(live: LiveRun) -> None:
            self._session.act(live, command, request.caller.subject)
            self._session.answer(request, calls.Acknowledged(), live)

        self.on_run(request, workflow_id, run_id, act)

    # --- starting -----------------------------------------------------------------------------------------------

    async def start(self, request: Request, call: calls.StartWorkflow) -> None:
        session, caller = self._session, request.caller
        text, key, definition, version = await self._definition(caller.tenant, call)
        started = await session.starts.start(
            Wanted(
                tenant=caller.tenant,
                by=caller.subject,
                definition=definition,
                definition_hash=key,
                input=call.input,
                text=text,
                workflow=call.workflow,
                version=version,
                workflow_id=call.workflow_id,
                request_id=call.request_id,
                timeout_seconds=call.timeout_seconds,
                labels=call.labels,
                reuse=call.reuse,
            )
        )
        if isinstance(started, RunRef):
            request.answer(calls.StartWorkflowResult(workflow_id=started.workflow_id, run_id=started.run_id))
            return
        ref = started.run.ref
        session.answer(request, calls.StartWorkflowResult(workflow_id=ref.workflow_id, run_id=ref.run_id), started)

    async def _definition(
        self, tenant: str, call: calls.StartWorkflow
    ) -> tuple[str | None, str, Definition, int | None]:
        """The text to be stored (of an inline definition), its hash, its meaning, its version. Raises Refused."""
        session = self._session
        if isinstance(call.definition, Raw):
            if call.workflow is not None or call.version is not None:
                raise Refused(
                    ErrorStatus.INVALID_ARGUMENT, "params: give either `workflow` (and `version`) or `definition`"
                )
            text = definition_text(call.definition)
            key, definition = await session.definitions.parse(tenant, text)
            return text, key, definition, None
        if call.workflow is None:
            raise Refused(ErrorStatus.INVALID_ARGUMENT, "params: `workflow` or `definition` is missing")
        found = await session.definitions.registered(tenant, call.workflow, call.version)
        return None, found.hash, found.definition, found.version


def _until(request: Request, wait_seconds: float) -> float:
    """When a long poll has to be answered."""
    return min(trio.current_time() + wait_seconds, request.deadline - MARGIN_SECONDS)


def _summary(row: Execution) -> calls.ExecutionSummary:
    return calls.ExecutionSummary(
        workflow_id=row.run.workflow_id,
        run_id=row.run.run_id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        error=row.error,
        labels=row.labels,
        started_at=moment(row.started_at),
        closed_at=None if row.closed_at is None else moment(row.closed_at),
    )
