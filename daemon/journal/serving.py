"""A session at work: what comes to its inbox is handed to what it concerns, one after the other.

What a message does is not known here; who answers which call is.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from daemon.journal.calls import ExecutionCalls
from daemon.journal.dead_letters import DeadLetterCalls
from daemon.journal.node_tasks import NodeTasks
from daemon.journal.registry import DefinitionCalls
from daemon.journal.reports import Reports
from daemon.journal.schedule_calls import ScheduleCalls
from daemon.journal.session import Session
from daemon.links.interface import Link, Request
from enginekit.messages import calls, dead_letters, schedules
from enginekit.messages.calls import Call
from enginekit.messages.links import (
    EndRun,
    GiveBackTasks,
    LoadTask,
    LookAtClock,
    Ping,
    Pong,
    RenewTasks,
    StartNodes,
    StartRun,
    StartTasks,
    TaskExpired,
    TaskOutcome,
    TellParent,
    ToHistory,
    WakeRuns,
    WakeSchedules,
)
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import WatchExecutions

Answer = Callable[[Request, Call], Coroutine[None, None, None] | None]


async def serve(session: Session, inbox: Link[ToHistory]) -> None:
    """Take what comes, until cancelled."""
    table = _table(session)
    reports, nodes = Reports(session), NodeTasks(session)
    while True:
        for message in await inbox.receive():
            if isinstance(message, Request):
                _request(session, table, message)
            else:
                _message(session, reports, nodes, message)
        await session.keep_up()


def _message(session: Session, reports: Reports, nodes: NodeTasks, message: ToHistory) -> None:
    match message:
        case TaskOutcome():
            reports.outcome(message)
        case RenewTasks():
            nodes.renew(message)
        case GiveBackTasks():
            nodes.give_back(message)
        case WakeRuns():
            session.metrics.woken(len(message.runs))
            for ref in message.runs:
                session.when_live(ref, session.wake, _nobody)
        case LookAtClock():
            session.clock_steps.look()
        case WakeSchedules():
            for schedule in message.schedules:
                session.schedules.wake(schedule)
        case TaskExpired():
            reports.expired(message)


def _request(session: Session, table: dict[type[Call], Answer], request: Request) -> None:
    answer = table.get(type(request.call))
    if answer is None:
        name = type(request.call).__name__
        request.refuse(Refused(ErrorStatus.INTERNAL, f"History does not answer {name}"))
        return
    try:
        rest = answer(request, request.call)
    except Refused as refused:
        session.answer(request, refused)
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
        StartRun: session.across.start_run,
        EndRun: session.across.end_run,
        TellParent: session.across.tell_parent,
        LoadTask: reports.load,
        StartTasks: reports.start,
        StartNodes: NodeTasks(session).start,
        Ping: lambda request, _: request.answer(Pong()),
    }
    return table


def _nobody(refused: Refused) -> None:
    """Nobody waits for it."""
