"""What workers say: the daemon's own Worker on its link, those of other processes through the Frontend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio
from msgspec import Raw, UnsetType

from daemon.clock import moment
from daemon.execution import tasks, tokens
from daemon.execution.commands import (
    Command,
    CompleteTask,
    ExpireTask,
    FailTask,
    RecordOutcome,
    ReturnTask,
    StartTask,
)
from daemon.journal.handout import idempotency_key, offer_of, spec_of, task_of
from daemon.journal.live import LiveRun
from daemon.journal.session import Session
from daemon.links.interface import Request
from enginekit.messages import calls
from enginekit.messages.json import NULL, size
from enginekit.messages.links import (
    LoadTask,
    LoadTaskResult,
    OutcomesRecorded,
    RetireTasks,
    StartTasks,
    TaskExpired,
    TaskOutcome,
    TaskRef,
)
from enginekit.messages.status import ErrorStatus, Refused, ReportRefusal

Said: TypeAlias = Raw | UnsetType
"""A heartbeat's details."""

HANDED_BYTES = 2 * 1024 * 1024
"""Of inputs, in one answer to a worker's poll; one task at least. What is beyond waits for the next poll."""


class Reports:
    """Takes reports within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- the daemon's Worker ------------------------------------------------------------------------------------

    def outcome(self, message: TaskOutcome) -> None:
        """Acknowledged in any case: once it is on disk, or at once where it changes nothing."""
        self._session.metrics.node_task_ended()

        def act(live: LiveRun) -> None:
            session = self._session
            try:
                session.act(
                    live,
                    RecordOutcome(
                        task=message.task.event_id,
                        worker=message.worker,
                        returns=message.returns,
                        output=message.output,
                        error=message.error,
                        cause=message.cause,
                        timed_out=message.timed_out,
                        ran_seconds=message.ran_seconds,
                        log=message.log,
                        usage=message.usage,
                        retry_after_seconds=message.retry_after_seconds,
                    ),
                )
            except Refused as refused:
                if refused.status is ErrorStatus.UNAVAILABLE:
                    return
            if live.batch is None:
                # Without the lease somebody else may know better: the Worker reports again.
                if session.lease.holds:
                    session.worker.put(OutcomesRecorded(message.worker, [message.task]))
            else:
                live.batch.recorded.setdefault(message.worker, []).append(message.task)

        def lost(refused: Refused) -> None:
            # UNAVAILABLE: the Worker keeps it and is asked again. Anything else: nobody will ever want it.
            if refused.status is not ErrorStatus.UNAVAILABLE:
                self._session.worker.put(OutcomesRecorded(message.worker, [message.task]))

        self._session.when_live(message.task.run, act, lost)

    def expired(self, message: TaskExpired) -> None:
        def act(live: LiveRun) -> None:
            self._session.act_quietly(
                live, ExpireTask(task=message.task.event_id, waited_seconds=message.waited_seconds)
            )

        self._session.when_live(message.task.run, act, _nobody)

    def load(self, request: Request, call: LoadTask) -> None:
        """The spec of a task that is still wanted."""
        session = self._session

        def act(live: LiveRun) -> None:
            if tasks.running(live.run, call.task.event_id) is None:
                session.answer(request, Refused(ErrorStatus.NOT_FOUND, "the task is over"), live)
                return
            session.answer(request, LoadTaskResult(spec=spec_of(live, call.task.event_id)), live)

        self._session.when_live(call.task.run, act, session.refuser(request))

    # --- workers in other processes -----------------------------------------------------------------------------

    async def start(self, request: Request, call: StartTasks) -> None:
        """Record the start of those that still wait, all in one commit, and hand them out."""
        session = self._session
        pinned = [live for ref in call.tasks if (live := await self.pin(ref)) is not None]
        lives = {live.run.ref: live for live in pinned}
        started: list[tuple[LiveRun, int]] = []
        held_back: list[tuple[LiveRun, int]] = []
        stale: list[TaskRef] = []
        room = HANDED_BYTES
        try:
            for ref in call.tasks:
                live = lives.get(ref.run)
                found = None if live is None else tasks.running(live.run, ref.event_id)
                if live is not None and found is not None:
                    room -= size(found[1].input.raw)
                    if room < 0 and started:
                        held_back.append((live, ref.event_id))
                        continue
                start = StartTask(task=ref.event_id, worker=call.worker_id)
                decision = None if live is None else session.act_quietly(live, start, request.caller.subject)
                if live is not None and decision is not None and decision.started:
                    started.append((live, ref.event_id))
                else:
                    stale.append(ref)
            result = calls.PollTaskResult(tasks=[self._worker_task(live, task_id) for live, task_id in started])
            session.answer(request, result, *lives.values())
        finally:
            for live in pinned:
                live.waiters -= 1
        if stale and session.lease.holds:
            session.matching.put(RetireTasks(stale))
        for live, task_id in held_back:
            session.matching.put(RetireTasks([TaskRef(live.run.ref, task_id)]))
            session.matching.put(offer_of(live, task_id))

    async def pin(self, ref: TaskRef) -> LiveRun | None:
        """The task's run, read back if need be, and kept in memory until its `waiters` is lowered again."""
        found: list[LiveRun] = []
        done = trio.Event()

        def act(live: LiveRun) -> None:
            live.waiters += 1
            found.append(live)
            done.set()

        self._session.when_live(ref.run, act, lambda refused: done.set())
        if not done.is_set():
            await done.wait()
        return found[0] if found else None

    def _worker_task(self, live: LiveRun, task_id: int) -> calls.WorkerTask:
        session = self._session
        node, task = task_of(live, task_id)
        ref = live.run.ref
        return calls.WorkerTask(
            token=tokens.mint(session.token_key, ref, task_id, task.returns),
            workflow_id=ref.workflow_id,
            run_id=ref.run_id,
            node=node.name,
            path=node.path,
            input=task.input.raw,
            attempt=task.attempt,
            timeout_seconds=task.timeout_seconds,
            idempotency_key=idempotency_key(live, node),
            lease_seconds=session.defaults.lease_seconds if task.lease_seconds is None else task.lease_seconds,
            heartbeat_seconds=task.heartbeat_seconds,
            heartbeat_details=NULL if node.details is None else Raw(node.details),
        )

    def complete(self, request: Request, call: calls.CompleteTask) -> None:
        self._report(
            request, call.token, lambda task, returns, _: CompleteTask(task=task, returns=returns, output=call.output)
        )

    def fail(self, request: Request, call: calls.FailTask) -> None:
        self._report(
            request,
            call.token,
            lambda task, returns, said: FailTask(
                task=task,
                returns=returns,
                error=call.error,
                cause=call.cause,
                retry_after_seconds=call.retry_after_seconds,
                details=said,
            ),
        )

    def give_back(self, request: Request, call: calls.ReturnTask) -> None:
        self._report(
            request,
            call.token,
            lambda task, returns, said: ReturnTask(task=task, returns=returns, reason=call.reason, details=said),
        )

    def _report(self, request: Request, token: str, command: Callable[[int, int, Said], Command]) -> None:
        session = self._session
        opened = tokens.open_token(session.token_key, request.caller.tenant, token)

        def act(live: LiveRun) -> None:
            try:
                task_id = opened.task.event_id
                session.act(live, command(task_id, opened.returns, self._said(live, task_id)), request.caller.subject)
            except Refused as refused:
                session.answer(request, refused, live)
                return
            session.answer(request, calls.Acknowledged(), live)

        session.when_live(opened.task.run, act, session.refuser(request))

    def heartbeat(self, request: Request, call: calls.HeartbeatTask) -> None:
        """Renews the lease. Heartbeats are no events: after a restart every lease begins anew."""
        if size(call.details) > calls.HEARTBEAT_BYTES:
            raise Refused(
                ErrorStatus.INVALID_ARGUMENT,
                f"details: {size(call.details):,} bytes; at most {calls.HEARTBEAT_BYTES:,} are taken",
                {"field": "details", "size_bytes": size(call.details), "limit_bytes": calls.HEARTBEAT_BYTES},
            )
        session = self._session
        opened = tokens.open_token(session.token_key, request.caller.tenant, call.token)

        def act(live: LiveRun) -> None:
            task_id = opened.task.event_id
            try:
                tasks.reported(live.run, task_id, opened.returns)
            except Refused as refused:
                if refused.data.get("reason") == ReportRefusal.TIMED_OUT.value:
                    session.answer(request, refused, live)
                else:
                    session.answer(request, calls.HeartbeatTaskResult(cancel_requested=True), live)
                return
            pulse = session.pulse(live)
            (pulse.beats if call.progress else pulse.leases)[task_id] = moment(session.clock.now())
            if call.details != NULL:
                pulse.details[task_id] = Raw(bytes(call.details))
            session.answer(request, calls.HeartbeatTaskResult(cancel_requested=False))

        session.when_live(opened.task.run, act, session.refuser(request))

    def _said(self, live: LiveRun, task_id: int) -> Said:
        """What the task's last heartbeat said, for the event that ends it."""
        return self._session.pulses.get(live.run.ref.run_id, self._session.quiet).said(task_id)

    async def complete_many(self, request: Request, call: calls.CompleteTasks) -> None:
        """Each by itself, all in one answer."""
        session = self._session
        lives: list[LiveRun] = []
        results: list[calls.CompletionResult] = []
        for completion in call.tasks:
            try:
                opened = tokens.open_token(session.token_key, request.caller.tenant, completion.token)
                live = await self.pin(opened.task)
                if live is None:
                    raise Refused(ErrorStatus.NOT_FOUND, "the task's execution is not there")
                live.waiters -= 1
                lives.append(live)
                said = self._said(live, opened.task.event_id)
                session.act(live, _completion(completion, opened, said), request.caller.subject)
            except Refused as refused:
                reason = refused.data.get("reason")
                results.append(
                    calls.CompletionResult(
                        status=refused.status.value,
                        reason=reason if isinstance(reason, str) else None,
                        message=refused.message,
                    )
                )
                continue
            results.append(calls.CompletionResult())
        session.answer(request, calls.CompleteTasksResult(results=results), *lives)


def _completion(completion: calls.TaskCompletion, opened: tokens.OpenedToken, said: Said) -> Command:
    task, returns = opened.task.event_id, opened.returns
    if completion.error is not None:
        return FailTask(
            task=task,
            returns=returns,
            error=completion.error,
            cause=completion.cause,
            retry_after_seconds=completion.retry_after_seconds,
            details=said,
        )
    return CompleteTask(task=task, returns=returns, output=completion.output)


def _nobody(refused: Refused) -> None:
    """Nobody waits for this to be done."""
