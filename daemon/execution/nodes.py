"""Entering states, leaving them, and what follows when one fails. The walk of a run's branches is here.

Task, Map and Parallel states have files of their own; what is common to all states is not repeated there.
"""

from __future__ import annotations

from typing import get_args

from daemon.execution import distributed, fanout, redrive, scheduling, tasks
from daemon.execution.state import ROOT, Branch, Node, after
from daemon.execution.step import Step
from daemon.language import (
    Choice,
    Fail,
    Map,
    Parallel,
    Pass,
    State,
    StateError,
    Succeed,
    Task,
    Wait,
    arguments,
    assigned,
    caught_output,
    caught_variables,
    choose,
    failure,
    framed,
    matching_catcher,
    matching_retrier,
    output,
    pass_result,
    retry_delay,
    wait_until,
)
from enginekit.messages import events as ev
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus

DEFAULT_RETRIER = -1
"""`TaskRetryScheduled.retrier` of a retry by engine.toml's default policy."""

_KINDS: dict[type[State], str] = {sort: sort.kind.value for sort in get_args(State)}

HISTORY_LIMIT = "Engine.HistoryLimit"

ERROR_CHARACTERS = 256
CAUSE_CHARACTERS = 32_768
"""What is kept of an error's name and cause: as much as a worker may report. Each level that it passes writes it."""


def advance(step: Step) -> None:
    """Go on until everything waits for something outside, the run has closed, or the step is spent."""
    run, running = step.run, ExecutionStatus.RUNNING
    while run.status is running and not _history_full(step):
        if run.again:
            if step.hands_over():
                return
            redrive.go_on(step)
        elif run.ready:
            if step.hands_over():
                return
            _enter(step, run.branches[run.ready[0]])
        elif run.filling and (node := _to_fill(step)) is not None:
            if step.hands_over():
                return
            state = step.state(node)
            assert isinstance(state, Map)
            try:
                fanout.start_iteration(step, node, state)
            except StateError as error:
                stumble(step, node, state, error)
        elif not run.mappings or not distributed.go_on(step):
            return


def _to_fill(step: Step) -> Node | None:
    """The next Map to start an iteration. With too many branches open, only one that has none of its own."""
    run = step.run
    if len(run.branches) <= step.env.limits.open_branches:
        return run.nodes[run.filling[0]]
    for entry in run.filling:
        node = run.nodes[entry]
        if node.fan is not None and not node.fan.active:
            return node
    return None


def _history_full(step: Step) -> bool:
    """Close a run whose history would outgrow its limits."""
    run, limits = step.run, step.env.limits
    if run.last_event_id < limits.history_events and run.history_bytes < limits.history_bytes:
        return False
    close_failed(
        step,
        HISTORY_LIMIT,
        f"the history has {run.last_event_id:,} events and {run.history_bytes:,} bytes; at most "
        f"{limits.history_events:,} events and {limits.history_bytes:,} bytes are allowed",
    )
    return True


def _enter(step: Step, branch: Branch) -> None:
    name = branch.next
    assert name is not None
    state = step.machine(branch).states[name]
    entry = step.next_id
    step.emit(
        ev.NodeEntered(
            id=entry,
            time=step.env.now,
            node=name,
            path=f"{branch.key}.{name}" if branch.key else name,
            entry=entry,
            kind=_KINDS[type(state)],
            input_ref=branch.payload.event_id,
        )
    )
    attempt(step, step.run.nodes[entry], state)


def attempt(step: Step, node: Node, state: State) -> None:
    """Do what the state does: for the first time, or again after a retry's delay."""
    try:
        _run(step, node, state)
    except StateError as error:
        stumble(step, node, state, error)


def _run(step: Step, node: Node, state: State) -> None:
    raw = step.value(node.input)
    match state:
        case Task():
            scheduling.schedule(step, node, state)
        case Pass():
            finish(step, node, state, pass_result(state, raw, step.scope(node)))
        case Choice():
            chosen = choose(state, raw, step.scope(node))
            leave(step, node, chosen.output, chosen.next, chosen.assigned)
        case Map() if state.distribution is not None:
            distributed.start(step, node, state)
        case Map() | Parallel() if node.fan is not None:
            # Its parts had all ended before; what failed was to make its output of theirs.
            _finish_fan(step, node, state)
        case Map():
            fanout.start_map(step, node, state)
            _finish_fan(step, node, state)
        case Parallel():
            fanout.start_parallel(step, node, state)
        case Wait():
            step.emit(
                ev.TimerStarted(
                    **step.about(node),
                    fire_at=after(wait_until(state, raw, step.scope(node)), 0),
                    named=state.named,
                )
            )
        case Succeed():
            finish(step, node, state, arguments(state, raw, step.scope(node)))
        case Fail():
            error, cause = failure(state, raw, step.scope(node))
            fail(step, node, state, error, cause)


def elapse(step: Step, node: Node, state: Wait) -> None:
    """The wait is over."""
    try:
        _leave_with(step, node, state, arguments(state, step.value(node.input), step.scope(node)))
    except StateError as error:
        stumble(step, node, state, error)


def finish(step: Step, node: Node, state: State, result: JSON) -> None:
    """The state has its result: shape the output and leave. A fault in shaping fails the state."""
    try:
        _leave_with(step, node, state, result)
    except StateError as error:
        stumble(step, node, state, error)


def _leave_with(step: Step, node: Node, state: State, result: JSON) -> None:
    """Raises StateError."""
    scope, raw = step.scope(node), step.value(node.input)
    value = output(state, raw, result, scope)
    leave(step, node, value, state.next, assigned(state, raw, result, scope))


def leave(step: Step, node: Node, value: JSON, following: str | None, variables: dict[str, JSON] | None = None) -> None:
    """Raises StateError when the output or the variables are too large."""
    made = step.assigned(node, variables)
    raw, ref = step.place(value, node.result, node.input, result_of=node.name)
    branch = step.run.branches[node.branch]
    step.emit(
        ev.NodeExited(
            id=step.next_id,
            time=step.env.now,
            node=node.name,
            path=node.path,
            entry=node.entry,
            next=following,
            output=raw,
            output_ref=ref,
            assigned=made,
        )
    )
    if following is None:
        _end_branch(step, branch)


def _end_branch(step: Step, branch: Branch) -> None:
    if branch.key == ROOT:
        step.emit(ev.WorkflowSucceeded(id=step.next_id, time=step.env.now, output_ref=branch.payload.event_id))
        return
    parent = step.run.nodes[branch.parent]
    fanout.end_part(step, parent, branch)
    _finish_fan(step, parent, step.state(parent))


def _finish_fan(step: Step, node: Node, state: State) -> None:
    """Leave a Map or Parallel whose parts have all ended (at once, where a Map has no items)."""
    fan = node.fan
    if fan is not None and fan.complete:
        finish(step, node, state, fanout.results(step, fan))


# --- failing -----------------------------------------------------------------------------------------------------


def stumble(step: Step, node: Node, state: State, error: StateError) -> None:
    """The node's attempt failed in an expression of its own."""
    fail(step, node, state, error.error, framed(error, node.name, node.entry), documented=error.documented)


def fail(
    step: Step,
    node: Node,
    state: State,
    error: str,
    cause: str,
    *,
    documented: str | None = None,
    of_task: bool = False,
    retry_after: float = 0.0,
    origin: Node | None = None,
) -> None:
    """The node's attempt failed: retry it, let a catcher have it, or fail its branch. `documented`: another name that
    Retry and Catch may have for it, here and around. `of_task`: by its task, which asks that another attempt begins no
    sooner than in `retry_after` seconds. `origin`: the node inside of it that failed first."""
    error, cause = error[:ERROR_CHARACTERS], cause[:CAUSE_CHARACTERS]
    if isinstance(state, (Task, Map, Parallel)) and (
        _retry(step, node, state, error, documented, of_task, retry_after)
        or _catch(step, node, state, error, cause, documented, of_task)
    ):
        return
    _fail_branch(step, node, error, cause, documented, node if origin is None else origin)


def _fail_branch(step: Step, node: Node, error: str, cause: str, documented: str | None, origin: Node) -> None:
    """Nobody retries or catches it here: the branch has failed, and with it the node that opened the branch."""
    branch = step.run.branches[node.branch]
    fanout.cancel_parts(step, node, "its node failed")
    step.emit(
        ev.NodeFailed(
            **step.about(node),
            error=error,
            cause=cause,
        )
    )
    if branch.key == ROOT:
        if isinstance(step.state(origin), Task):
            _bury(step, origin, error, cause)
        close_failed(step, error, cause, documented)
        return
    parent = step.run.nodes[branch.parent]
    fanout.end_part(step, parent, branch, error, cause)
    fail(step, parent, step.state(parent), error, cause, documented=documented, origin=origin)


def _bury(step: Step, node: Node, error: str, cause: str) -> None:
    """Nobody retried or caught it, and the execution fails by it: it is kept as a dead letter."""
    state = step.state(node)
    assert isinstance(state, Task)
    step.emit(
        ev.TaskDeadLettered(
            **step.about(node),
            resource=state.resource.text,
            error=error,
            cause=cause,
            attempts=node.failures,
            input_ref=(node.input if node.arguments is None else node.arguments).event_id,
        )
    )
    step.decision.dead_letter = node.entry


def _retry(
    step: Step,
    node: Node,
    state: Task | Map | Parallel,
    error: str,
    documented: str | None,
    of_task: bool,
    retry_after: float,
) -> bool:
    delay: float | None = None
    which = DEFAULT_RETRIER
    index = matching_retrier(state, error, documented, of_task=of_task)
    if index is not None:
        retrier = state.retry[index]
        used = node.retries.get(index, 0)
        if used < retrier.max_attempts:
            which, delay = index, retry_delay(retrier, used + 1, step.env.random)
    if delay is None and isinstance(state, Task):
        delay = tasks.default_retry_delay(step, node, state, error)
    if delay is None:
        return False
    fanout.cancel_parts(step, node, "its node is tried again")
    step.emit(
        ev.TaskRetryScheduled(
            **step.about(node),
            attempt=node.attempt + 1,
            at=after(step.env.now, max(delay, min(retry_after, step.env.defaults.retry_after_limit_seconds))),
            retrier=which,
            error=error,
        )
    )
    return True


def _catch(
    step: Step,
    node: Node,
    state: Task | Map | Parallel,
    error: str,
    cause: str,
    documented: str | None,
    of_task: bool,
) -> bool:
    index = matching_catcher(state, error, documented, of_task=of_task)
    if index is None:
        return False
    catcher = state.catch[index]
    try:
        scope, held = step.scope(node), step.value(node.input)
        raw = step.encoded(caught_output(state, catcher, held, error, cause, scope), result_of=node.name)
        made = step.assigned(node, caught_variables(state, catcher, held, error, cause, scope))
    except StateError as fault:
        # The error output did not fit where the catcher wants it: that is the failure now, and nobody's to catch.
        why = framed(fault, node.name, node.entry)[:CAUSE_CHARACTERS]
        _fail_branch(step, node, fault.error, why, fault.documented, node)
        return True
    fanout.cancel_parts(step, node, "its node failed")
    step.emit(
        ev.NodeFailed(
            **step.about(node),
            error=error,
            cause=cause,
            next=catcher.next,
            output=raw,
            assigned=made,
        )
    )
    return True


def close_failed(step: Step, error: str, cause: str, documented: str | None = None) -> None:
    fanout.cancel_all(step, "the execution failed")
    step.emit(ev.WorkflowFailed(id=step.next_id, time=step.env.now, error=error, cause=cause, documented=documented))
