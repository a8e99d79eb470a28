"""From what the daemon tells to what the console knows. Pure: `now` is passed in, and nothing is changed in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import replace

from console.state import Choice, ConsoleState, Executions, Link, Opened, Queues, Services, Standing
from enginekit.errors import ProtocolError
from enginekit.messages.calls import DescribeWorkflowResult, ExecutionSummary, HelloResult, ListWorkflowsResult
from enginekit.messages.events import decode_event
from enginekit.messages.subscriptions import (
    EXECUTIONS,
    HISTORY,
    QUEUES,
    SERVICES,
    ExecutionsChanged,
    HistoryGrown,
    Notify,
    QueuesChanged,
    ServicesSeen,
)

Change: TypeAlias = Callable[[Opened], Opened]

RATES_KEPT: Final = 60
SILENT_SECONDS: Final = 3.0

_executions = msgspec.json.Decoder(ExecutionsChanged)
_queues = msgspec.json.Decoder(QueuesChanged)
_services = msgspec.json.Decoder(ServicesSeen)
_history = msgspec.json.Decoder(HistoryGrown)


def told(state: ConsoleState, update: Notify, now: float) -> ConsoleState:
    """What is known after this notification. Raises ProtocolError for one that is not understood."""
    state = replace(state, link=replace(state.link, as_of=now))
    if not isinstance(update.data, msgspec.Raw):
        return state
    try:
        if update.topic == SERVICES:
            return replace(state, services=_with_services(state.services, _services.decode(update.data)))
        if update.topic == QUEUES:
            return replace(state, queues=_with_queues(state.queues, _queues.decode(update.data), update.snapshot))
        if update.topic == EXECUTIONS:
            changed = _executions.decode(update.data).executions
            executions = with_executions(state.executions, changed)
            missed = update.missed > 0
            return replace(
                state,
                executions=replace(
                    executions,
                    behind=executions.behind or missed or update.snapshot,
                    missed=executions.missed + update.missed,
                ),
            )
        if update.topic.startswith(HISTORY) and state.opened is not None:
            return replace(state, opened=with_history(state.opened, _history.decode(update.data)))
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the daemon tells of {update.topic!r} what is not understood: {error}") from error
    return state


def changed_executions(update: Notify) -> list[ExecutionSummary]:
    """What an update of the topic `executions` tells. Raises ProtocolError."""
    if not isinstance(update.data, msgspec.Raw):
        return []
    try:
        return _executions.decode(update.data).executions
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the daemon tells of executions what is not understood: {error}") from error


# --- the connection ------------------------------------------------------------------------------------------------


def reached(state: ConsoleState, hello: HelloResult, now: float) -> ConsoleState:
    link = Link(standing=Standing.LIVE, as_of=now, engine=hello.engine, tenant=hello.tenant)
    return replace(state, link=link)


def lost(state: ConsoleState, problem: str) -> ConsoleState:
    """There is no connection; who was never reached is still being connected to."""
    standing = Standing.CONNECTING if state.link.as_of is None else Standing.LOST
    return replace(state, link=replace(state.link, standing=standing, problem=problem))


def turned_away(state: ConsoleState, problem: str) -> ConsoleState:
    return replace(state, link=replace(state.link, standing=Standing.REFUSED, problem=problem))


def heard(state: ConsoleState, now: float) -> ConsoleState:
    """The daemon has answered something."""
    return replace(state, link=replace(state.link, as_of=now))


# --- topics --------------------------------------------------------------------------------------------------------


def _with_services(services: Services, seen: ServicesSeen) -> Services:
    rates = {
        (each.service, each.what): (*services.rates.get((each.service, each.what), ()), each.per_second)[-RATES_KEPT:]
        for each in seen.rates
    }
    return Services(daemon=seen.daemon, rates=rates)


def _with_queues(queues: Queues, changed: QueuesChanged, snapshot: bool) -> Queues:
    known = {} if snapshot else dict(queues.queues)
    for gone in changed.gone:
        known.pop(gone, None)
    for each in changed.queues:
        known[(each.kind, each.queue)] = each
    rates = {name: (*queues.rates.get(name, ()), view.rate)[-RATES_KEPT:] for name, view in known.items()}
    return Queues(queues=known, rates=rates)


def with_executions(executions: Executions, changed: list[ExecutionSummary]) -> Executions:
    """Executions that have changed: those that are wanted are there as they are now, in order, the others are not. What
    is older than everything read so far is left for its page."""
    by_run = dict(executions.by_run)
    new: list[ExecutionSummary] = []
    gone: set[str] = set()
    oldest = by_run[executions.order[-1]] if executions.order else None
    for each in changed:
        known = each.run_id in by_run
        if not wanted(executions.choice, each):
            if known:
                gone.add(each.run_id)
                del by_run[each.run_id]
        elif known:
            by_run[each.run_id] = each
        elif executions.complete or oldest is None or each.started_at >= oldest.started_at:
            by_run[each.run_id] = each
            new.append(each)
    order = executions.order
    if gone:
        order = [run for run in order if run not in gone]
    if new:
        order = _merged(order, new, by_run)
    return replace(executions, order=order, by_run=by_run)


def with_page(executions: Executions, page: ListWorkflowsResult) -> Executions:
    """The next page of older executions."""
    by_run = dict(executions.by_run)
    fresh = [each for each in page.executions if each.run_id not in by_run]
    by_run.update((each.run_id, each) for each in page.executions)
    order = [*executions.order, *(each.run_id for each in fresh)]
    return replace(
        executions,
        order=order,
        by_run=by_run,
        next_page=page.next_page_token,
        complete=page.next_page_token is None,
    )


def chosen(executions: Executions, choice: Choice) -> Executions:
    """Another choice; what was read stays where only the text is another."""
    if (choice.status, choice.workflow) == (executions.choice.status, executions.choice.workflow):
        return replace(executions, choice=choice)
    return Executions(choice=choice, behind=True)


def wanted(choice: Choice, each: ExecutionSummary) -> bool:
    """Whether the daemon would list it for this choice."""
    return (choice.status is None or each.status is choice.status) and choice.workflow in (None, each.workflow)


def _merged(order: list[str], new: list[ExecutionSummary], by_run: dict[str, ExecutionSummary]) -> list[str]:
    new.sort(key=lambda each: (each.started_at, each.run_id), reverse=True)
    runs = [each.run_id for each in new]
    if not order or new[-1].started_at >= by_run[order[0]].started_at:
        return runs + order
    return sorted(runs + order, key=lambda run: (by_run[run].started_at, run), reverse=True)


# --- the execution that is being looked at --------------------------------------------------------------------------


def with_history(opened: Opened, grown: HistoryGrown) -> Opened:
    """Events that follow; those known already, and those of another run, are left out."""
    if grown.run_id != opened.run_id:
        return opened
    last = opened.events[-1].id if opened.events else 0
    events = [decode_event(bytes(each)) for each in grown.events]
    return replace(opened, events=(*opened.events, *(each for each in events if each.id > last)), closed=grown.closed)


def described(opened: Opened, seen: DescribeWorkflowResult) -> Opened:
    return replace(opened, seen=seen, problem="")


def with_opened(state: ConsoleState, run_id: str, change: Change) -> ConsoleState:
    """The execution that is looked at, changed, where it is still this run."""
    if state.opened is None or state.opened.run_id != run_id:
        return state
    return replace(state, opened=change(state.opened))
