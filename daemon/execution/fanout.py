"""Map and Parallel: opening branches, ending them, and stopping what still runs in them."""

from __future__ import annotations

from msgspec import UNSET

from daemon.execution import tasks
from daemon.execution.state import Branch, Fan, Node, child_key
from daemon.execution.step import Step
from daemon.language import Map, Parallel, arguments, map_concurrency, map_item_input, map_items
from enginekit.messages import events as ev
from enginekit.messages.json import JSON


def start_map(step: Step, node: Node, state: Map) -> None:
    """Raises StateError."""
    scope = step.scope(node)
    items = map_items(state, step.value(node.input), scope)
    made, ref = step.place(items, node.input, what="The array of its items") if state.jsonata else (UNSET, 0)
    wanted = map_concurrency(state, step.value(node.input), scope)
    limit = step.env.limits.inline_concurrency
    step.emit(
        ev.MapStarted(
            **step.about(node),
            total=len(items),
            concurrency=min(wanted, limit) if wanted else limit,
            next=state.processor.start_at,
            attempt=node.attempt,
            input=made,
            input_ref=ref,
        )
    )


def start_iteration(step: Step, node: Node, state: Map) -> None:
    """Raises StateError."""
    fan = node.fan
    assert fan is not None
    scope = step.scope(node)
    index = fan.cursor
    # What an expression made is never worked out again: it may cost much, or depend on chance.
    items = map_items(state, step.value(node.input), scope) if fan.input is None else step.value(fan.input)
    assert isinstance(items, list)
    item = items[index]
    value = map_item_input(state, step.value(node.input), index, item, scope)
    step.emit(
        ev.MapIterationStarted(
            **step.about(node),
            index=index,
            input=step.encoded(value, f"The input of item {index}"),
        )
    )


def start_parallel(step: Step, node: Node, state: Parallel) -> None:
    """Raises StateError."""
    value = arguments(state, step.value(node.input), step.scope(node))
    raw, ref = step.place(value, node.input, what="The input of its branches")
    step.emit(
        ev.ParallelStarted(
            **step.about(node),
            next=[machine.start_at for machine in state.branches],
            attempt=node.attempt,
            input=raw,
            input_ref=ref,
        )
    )


def end_part(step: Step, node: Node, branch: Branch, error: str | None = None, cause: str | None = None) -> None:
    """One iteration or branch of `node` has ended: with its payload, or with `error`."""
    kind = ev.MapIterationEnded if node.kind == "Map" else ev.BranchEnded
    step.emit(
        kind(
            **step.about(node),
            index=branch.index,
            status=ev.PartStatus.SUCCEEDED if error is None else ev.PartStatus.FAILED,
            output_ref=branch.payload.event_id if error is None else 0,
            error=error,
            cause=cause,
        )
    )


def results(step: Step, fan: Fan) -> list[JSON]:
    """The parts' outputs in the order of their indices."""
    return [step.value(fan.results[index]) for index in range(fan.total)]


def cancel_parts(step: Step, node: Node, reason: str) -> None:
    """Stop the tasks that run in the node's branches, however deep. The branches go with the event that follows."""
    _stop_items(step, node)
    fan = node.fan
    if fan is None:
        return
    for index in range(fan.cursor):
        branch = step.run.branches.get(child_key(node.path, index))
        if branch is None or not branch.node:
            continue
        child = step.run.nodes[branch.node]
        _cancel_task(step, child, reason)
        cancel_parts(step, child, reason)


def cancel_all(step: Step, reason: str) -> None:
    """Stop every task of the run."""
    for entry in list(step.run.tasks.values()):
        _cancel_task(step, step.run.nodes[entry], reason)
    for entry in step.run.mappings.values():
        _stop_items(step, step.run.nodes[entry])


def _stop_items(step: Step, node: Node) -> None:
    """Of a distributed Map: what still runs of its items is to be canceled."""
    mapping = node.mapping
    if mapping is not None and all(mapping.id != each[0] for each in step.decision.stopped):
        step.decision.stopped += [(mapping.id, index, run_id) for index, (run_id, _) in mapping.in_flight.items()]


def _cancel_task(step: Step, node: Node, reason: str) -> None:
    task = node.task
    if task is None:
        return
    step.emit(
        ev.TaskCanceled(
            **step.about(node),
            task=task.id,
            reason=reason,
        )
    )
    tasks.abandon(step, task)
