"""A Map of Mode DISTRIBUTED: its items are executions of their own, and the node keeps count of them.

What a run knows of such a Map is its `Mapping`: a cursor into the items, counters, the runs in flight, and results as
long as they fit into a payload. Items are started in bounded chunks, by steps that were asked to go on (`Proceed`) and
by no others, so that items which end at once cannot make one decision endless. What lies in files is read and written
by whoever owns the run, between two decisions: `Decision.files` asks for it, `ItemsRead`, `ResultsWritten` and
`FileFailed` bring what came of it.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from daemon.execution import nodes
from daemon.execution.commands import FileFailed, ItemOutcome, ItemsEnded, ItemsRead, ResultsWritten
from daemon.execution.state import Mapping, Node, Run
from daemon.execution.step import Child, ItemResult, ReadItems, Step, WriteResults, text_of
from daemon.language import Map, StateError, Transformation, item_input, items_of, plan_of, too_large, units
from daemon.language.distribute import STATE_DATA
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, decode, encode, size

CHUNK = 50
"""Runs that are started in one event."""

ITEMS = 2_000
"""Items that are put into batches in one step, where a batch does not want more."""

MOST_ITEMS = 10_000
"""Items in one batch, whatever the definition says: a step must not hold the loop."""

THRESHOLD = "States.ExceedToleratedFailureThreshold"
EXCEEDED = "The specified tolerated failure threshold was exceeded"
"""The reference service's words."""


def start(step: Step, node: Node, state: Map) -> None:
    """Raises StateError."""
    scope, raw = step.scope(node), step.value(node.input)
    plan = plan_of(state, raw, scope)
    limit = step.env.limits.distributed_concurrency
    plan = msgspec.structs.replace(plan, concurrency=min(plan.concurrency or limit, limit))
    made: Raw | UnsetType = UNSET
    ref, total, keyed = 0, None, False
    if plan.read is None:
        items = items_of(state, raw, scope)
        total, keyed = len(items.values), items.keyed
        made, ref = step.place(items.values, node.input, what="The array of its items")
    step.emit(
        ev.MapRunStarted(
            **step.about(node),
            plan=Raw(msgspec.json.encode(plan)),
            total=total,
            keyed=keyed,
            attempt=node.attempt,
            input=made,
            input_ref=ref,
        )
    )


def go_on(step: Step) -> bool:
    """Do the next thing that a Mapping of the run wants. False: none wants any. The step may have to hand over."""
    run = step.run
    for entry in run.mappings.values():
        node = run.nodes[entry]
        mapping = node.mapping
        assert mapping is not None
        if mapping.wants_start:
            if step.spreads and not step.spent:
                _start_from_input(step, node, mapping)
                return True
            step.decision.unfinished = True
        elif mapping.wants_items:
            step.want(ReadItems(mapping.id, mapping.plan, mapping.position, mapping.cursor, _wanted(mapping)))
        elif mapping.complete:
            if mapping.plan.write is not None:
                step.want(WriteResults(mapping.id, mapping.plan, node.name))
            else:
                _finish(step, node, mapping)
                return True
    return False


def _wanted(mapping: Mapping) -> int:
    """How many items to take at once: for as many runs as may be started, as far as one step may go."""
    runs = min(mapping.room, CHUNK)
    if not mapping.plan.batched:
        return runs
    each = min(mapping.plan.batch_items or ITEMS, MOST_ITEMS)
    return max(each, min(runs * each, ITEMS))


def _state(step: Step, node: Node) -> Map:
    state = step.state(node)
    assert isinstance(state, Map)
    return state


def _start_from_input(step: Step, node: Node, mapping: Mapping) -> None:
    assert mapping.source is not None
    values = step.value(mapping.source)
    assert isinstance(values, list)
    first = mapping.cursor
    _start_items(step, node, mapping, values[first : first + _wanted(mapping)], STATE_DATA)


def _start_items(
    step: Step, node: Node, mapping: Mapping, values: list[JSON], source: str, read: ItemsRead | None = None
) -> None:
    """Start runs for these items; where they need not be `read` again, for as many of them as the step has room."""
    state, raw, scope = _state(step, node), step.value(node.input), step.scope(node)
    inputs: list[JSON] = []
    try:
        for index, item in enumerate(values, mapping.cursor):
            if inputs and read is None and step.spent:
                break
            inputs.append(item_input(state, raw, index, item, mapping.keyed, source, scope))
        made = units(mapping.plan, inputs, step.env.limits.payload_bytes)
        encoded = [step.encoded(unit.input, "The input of an item's execution") for unit in made]
    except StateError as error:
        nodes.stumble(step, node, state, error)
        return
    run_ids = [step.env.run_id() for _ in made]
    first = mapping.children
    step.emit(
        ev.MapItemsStarted(
            **step.about(node),
            run=mapping.id,
            first=first,
            run_ids=run_ids,
            items=[unit.items for unit in made],
            total=mapping.total if read is None else read.total,
            position="" if read is None else read.position,
            exhausted=mapping.cursor + len(inputs) == mapping.total if read is None else read.exhausted,
        )
    )
    step.decision.children += [
        Child(mapping.id, index, run_id, state.name, data)
        for index, (run_id, data) in enumerate(zip(run_ids, encoded, strict=True), first)
    ]


def found(step: Step, mapping_id: int) -> tuple[Node, Mapping] | None:
    """The node whose Map this is, if it still runs."""
    entry = step.run.mappings.get(mapping_id)
    if entry is None:
        return None
    node = step.run.nodes[entry]
    assert node.mapping is not None
    return node, node.mapping


def items_read(step: Step, command: ItemsRead) -> None:
    """What a reader found after the position where the Map stands. Of another position: it was read twice."""
    at = found(step, command.mapping)
    if at is None or at[1].position != command.after or at[1].exhausted:
        return
    node, mapping = at
    _start_items(step, node, mapping, command.values, command.source, command)


def items_ended(step: Step, command: ItemsEnded) -> None:
    """Runs of items have closed."""
    at = found(step, command.mapping)
    if at is None:
        return
    node, mapping = at
    ended: list[ev.ItemEnd] = []
    for outcome in command.outcomes:
        if outcome.index not in mapping.in_flight:
            continue
        result, end = _outcome(mapping, outcome)
        if mapping.plan.write is not None:
            step.decision.results.append(ItemResult(mapping.id, outcome.index, outcome.status.value, result))
        elif mapping.result_bytes + size(result) <= step.env.limits.payload_bytes:
            end = msgspec.structs.replace(end, result=result)
        else:
            end = msgspec.structs.replace(end, dropped=True)
        ended.append(end)
    if not ended:
        return
    step.emit(ev.MapItemsEnded(**step.about(node), run=mapping.id, ended=ended))
    if mapping.plan.exceeded(mapping.failed, mapping.total):
        nodes.fail(step, node, _state(step, node), THRESHOLD, EXCEEDED)


def _outcome(mapping: Mapping, outcome: ItemOutcome) -> tuple[Raw, ev.ItemEnd]:
    """What is kept of it: the output, or for one that failed (and with Transformation NONE) all there is to tell."""
    whole = outcome.status is not ev.PartStatus.SUCCEEDED or mapping.plan.transformation is Transformation.NONE
    result = outcome.record if whole else outcome.output
    end = ev.ItemEnd(index=outcome.index, status=outcome.status, error=outcome.error)
    return result, end


def _finish(step: Step, node: Node, mapping: Mapping) -> None:
    """All items have ended: their results are the state's, in the order of the items."""
    state = _state(step, node)
    if mapping.dropped:
        nodes.stumble(step, node, state, too_large(node.name))
        return
    made: list[JSON] = []
    for index in range(mapping.children):
        value = decode(Raw(mapping.results[index]))
        if mapping.plan.transformation is Transformation.FLATTEN and isinstance(value, list):
            made += value
        else:
            made.append(value)
    nodes.finish(step, node, state, made)


def results_written(step: Step, command: ResultsWritten) -> None:
    """The files are there; where, is the state's result."""
    at = found(step, command.mapping)
    if at is not None and at[1].complete:
        nodes.finish(step, at[0], _state(step, at[0]), command.result)


def file_failed(step: Step, command: FileFailed) -> None:
    """A file could not be read or written."""
    at = found(step, command.mapping)
    if at is not None:
        nodes.stumble(step, at[0], _state(step, at[0]), StateError(command.error, command.cause))


def record_of(run: Run) -> Raw:
    """All there is to tell of an item's run that has closed, as the reference service's result files have it. Source:
    Step Functions developer guide, "ResultWriter"."""
    assert run.closed_at is not None
    record: dict[str, JSON] = {
        "ExecutionArn": run.ref.run_id,
        "Input": bytes(run.input.raw).decode(),
        "InputDetails": {"Included": True},
        "Name": run.ref.workflow_id,
        "OutputDetails": {"Included": True},
        "RedriveCount": 0,
        "RedriveStatus": "NOT_REDRIVABLE",
        "StartDate": text_of(run.started_at),
        "StateMachineArn": run.workflow or run.definition_hash,
        "Status": run.status.value,
        "StopDate": text_of(run.closed_at),
    }
    if run.output is not None:
        record["Output"] = bytes(run.output.raw).decode()
    if run.error is not None:
        record |= {"Error": run.error, "Cause": run.cause or ""}
    return encode(record)
