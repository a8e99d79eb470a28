"""History: the brain. It owns the shards, decides what happens next in every execution, and commits it.

Here is the service itself: it takes messages off its link and hands them to what they concern. What it knows between
two losses of the store is a `Session` (`daemon/journal/`); what an execution does is `daemon/execution/`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine

import structlog
import trio

from daemon.clock import Clock
from daemon.journal.calls import ExecutionCalls
from daemon.journal.dead_letters import DeadLetterCalls
from daemon.journal.definitions import Definitions, NodeCheck
from daemon.journal.identity import RunIds
from daemon.journal.node_tasks import NodeTasks
from daemon.journal.registry import DefinitionCalls
from daemon.journal.reports import Reports
from daemon.journal.schedule_calls import ScheduleCalls
from daemon.journal.session import Session
from daemon.links.interface import Request
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.settings import Settings
from daemon.stores.interface import Fenced, Store, StoreUnavailable
from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.calls import Call, ShardView
from enginekit.messages.links import (
    GiveBackTasks,
    LoadTask,
    LookAtClock,
    Ping,
    Pong,
    RenewTasks,
    StartNodes,
    StartTasks,
    TaskExpired,
    TaskOutcome,
    ToHistory,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import WatchExecutions

log = structlog.get_logger("history")

FIRST_PAUSE = 0.05
"""Seconds until the shards are taken again after the store was lost; doubled while they cannot be taken."""

LONGEST_PAUSE = 5.0

FENCED_PAUSE = 10.0
"""Seconds that another owner keeps the shards for. Two owners would otherwise take them from one another for ever."""

Answer = Callable[[Request, Call], Coroutine[None, None, None] | None]


class History:
    """The service. `entropy` is where its ids, tokens' chance and jitter come from; `node_types` are those installed,
    and `check` asks one of them about arguments."""

    def __init__(
        self,
        links: Links,
        store: Store,
        settings: Settings,
        clock: Clock,
        entropy: random.Random,
        node_types: frozenset[str],
        check: NodeCheck,
        metrics: Metrics,
    ) -> None:
        self._links = links
        self._store = store
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._metrics = metrics
        self._definitions = Definitions(store, node_types, check, threads=clock.real)
        self._run_ids: RunIds | None = None
        self._session: Session | None = None
        self._awaits_store = False

    def awaits_store(self, seconds: float) -> bool:
        """Whether it waits for the store to come back (or for its shards), or for one commit for as long."""
        committing = None if self._session is None else self._session.committer.committing_since
        return self._awaits_store or (committing is not None and trio.current_time() - committing >= seconds)

    def shards(self) -> list[ShardView]:
        """The shards it owns right now."""
        if self._session is None:
            return []
        return [ShardView(shard=shard, epoch=epoch) for shard, epoch in self._session.epochs.items()]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the shards until cancelled; after a loss of the store, own them anew. Reports started at the first
        session. Cancelled: what is being committed may or may not be on disk; nobody was told that it is."""
        started = False
        pause = FIRST_PAUSE
        while True:
            self._awaits_store = True
            await self._store.wait_ready()
            self._awaits_store = False
            try:
                async with trio.open_nursery() as nursery:
                    owned = await self._store.take_shards()
                    pause = FIRST_PAUSE
                    shards = (await self._store.info()).shards
                    self._run_ids = self._run_ids or RunIds(self._entropy, shards)
                    self._run_ids.after(owned.newest_run_id)
                    self._definitions.forget_registered()
                    session = Session(
                        self._links,
                        self._store,
                        self._settings,
                        self._clock,
                        self._entropy,
                        self._definitions,
                        owned,
                        shards,
                        self._run_ids,
                        self._metrics,
                        nursery,
                    )
                    self._session = session
                    try:
                        await session.begin()
                        if not started:
                            started = True
                            task_status.started()
                        log.info("shards taken", epochs=owned.epochs)
                        await self._serve(session)
                    finally:
                        self._session = None
                        session.end()
            except* StoreUnavailable as lost:
                log.warning("the store is gone; every execution is read back", why=str(lost.exceptions[0]))
                # A store may be there and yet not be owned (a full disk): it is not asked without end.
                self._awaits_store = True
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except* Fenced as fenced:
                log.warning("another owner has taken the shards", why=str(fenced.exceptions[0]))
                self._awaits_store = True
                await trio.sleep(FENCED_PAUSE)

    async def drain(self) -> None:
        """Until everything that was decided is on disk."""
        if self._session is not None:
            await self._session.committer.flushed()

    async def _serve(self, session: Session) -> None:
        table = _table(session)
        reports, nodes = Reports(session), NodeTasks(session)
        while True:
            for message in await self._links.history.receive():
                if isinstance(message, Request):
                    self._request(session, table, message)
                else:
                    self._message(session, reports, nodes, message)
            await session.keep_up()

    def _message(self, session: Session, reports: Reports, nodes: NodeTasks, message: ToHistory) -> None:
        match message:
            case TaskOutcome():
                reports.outcome(message)
            case RenewTasks():
                nodes.renew(message)
            case GiveBackTasks():
                nodes.give_back(message)
            case WakeRuns():
                self._metrics.woken(len(message.runs))
                for ref in message.runs:
                    session.when_live(ref, session.wake, _nobody)
            case LookAtClock():
                session.clock_steps.look()
            case WakeSchedules():
                for schedule in message.schedules:
                    session.schedules.wake(schedule)
            case TaskExpired():
                reports.expired(message)

    def _request(self, session: Session, table: dict[type[Call], Answer], request: Request) -> None:
        answer = table.get(type(request.call))
        if answer is None:
            name = type(request.call).__name__
            request.refuse(Refused(ErrorStatus.INTERNAL, f"History does not answer {name}"))
            return
        try:
            rest = answer(request, request.call)
        except Refused as refused:
            request.refuse(refused)
            return
        if rest is not None:
            session.finish(request, rest)


def _table(session: Session) -> dict[type[Call], Answer]:
    """Who answers which call. Keyed by the call's type, which is therefore that of each answer's argument."""
    executions, definitions, reports = ExecutionCalls(session), DefinitionCalls(session), Reports(session)
    scheduled = ScheduleCalls(session)
    letters = DeadLetterCalls(session)
    table: dict[type[Call], Callable[..., Coroutine[None, None, None] | None]] = {
        calls.StartWorkflow: executions.start,
        calls.DescribeWorkflow: executions.describe,
        calls.WaitWorkflow: executions.wait,
        calls.GetHistory: executions.history,
        calls.ListWorkflows: executions.list,
        WatchExecutions: session.watch.ask,
        calls.SignalWorkflow: executions.signal,
        calls.CancelWorkflow: executions.cancel,
        calls.TerminateWorkflow: executions.terminate,
        calls.RedriveWorkflow: letters.redrive,
        dead_letters.ListDeadLetters: letters.list,
        dead_letters.GetDeadLetter: letters.get,
        dead_letters.RedriveDeadLetter: letters.redrive_letter,
        dead_letters.DiscardDeadLetter: letters.discard,
        calls.RegisterWorkflow: definitions.register,
        calls.GetDefinition: definitions.get,
        calls.ListDefinitions: definitions.list,
        calls.CompleteTask: reports.complete,
        calls.FailTask: reports.fail,
        calls.ReturnTask: reports.give_back,
        calls.HeartbeatTask: reports.heartbeat,
        calls.CompleteTasks: reports.complete_many,
        schedules.CreateSchedule: scheduled.create,
        schedules.ListSchedules: scheduled.list,
        schedules.DescribeSchedule: scheduled.describe,
        schedules.PauseSchedule: scheduled.pause,
        schedules.ResumeSchedule: scheduled.resume,
        schedules.TriggerSchedule: scheduled.trigger,
        schedules.DeleteSchedule: scheduled.delete,
        LoadTask: reports.load,
        StartTasks: reports.start,
        StartNodes: NodeTasks(session).start,
        Ping: lambda request, _: request.answer(Pong()),
    }
    return table


def _nobody(refused: Refused) -> None:
    """Nobody waits for it."""
