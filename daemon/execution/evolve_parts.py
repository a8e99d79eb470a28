"""How Map, Parallel and distributed Map states open their parts and how those end. Called by `evolve`; facts only."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from daemon.execution.history import BrokenHistory, inline, payload_of
from daemon.execution.state import Branch, Fan, Mapping, Node, Payload, Run, child_key
from daemon.language import Plan
from enginekit.messages import events as ev

_plan = msgspec.json.Decoder(Plan).decode


def map_started(run: Run, event: ev.MapStarted) -> None:
    node = run.nodes[event.entry]
    node.attempt = event.attempt
    node.retry_at = None
    items = None
    if event.input is not UNSET or event.input_ref:
        items = payload_of(event.id, event.input, event.input_ref, node.input)
    node.fan = Fan(total=event.total, concurrency=event.concurrency, next=[event.next], input=items)
    if node.fan.open:
        run.filling.append(node.entry)


def _open_branch(run: Run, node: Node, index: int, payload: Payload, first: str) -> None:
    key = child_key(node.path, index)
    run.branches[key] = Branch(key=key, parent=node.entry, index=index, payload=payload, next=first)
    run.ready.append(key)


def _fan(node: Node) -> Fan:
    if node.fan is None:
        raise BrokenHistory(f"node {node.path} has opened no branches")
    return node.fan


def iteration_started(run: Run, event: ev.MapIterationStarted) -> None:
    node = run.nodes[event.entry]
    fan = _fan(node)
    fan.cursor = event.index + 1
    fan.active += 1
    if not fan.open:
        run.filling.remove(node.entry)
    _open_branch(run, node, event.index, Payload(event.id, inline(event.input)), fan.next[0])


def parallel_started(run: Run, event: ev.ParallelStarted) -> None:
    node = run.nodes[event.entry]
    node.attempt = event.attempt
    node.retry_at = None
    payload = payload_of(event.id, event.input, event.input_ref, node.input)
    total = len(event.next)
    node.fan = Fan(total=total, concurrency=total, next=event.next, input=payload, cursor=total, active=total)
    for index, first in enumerate(event.next):
        _open_branch(run, node, index, payload, first)


def map_run_started(run: Run, event: ev.MapRunStarted) -> None:
    node = run.nodes[event.entry]
    node.attempt = event.attempt
    node.retry_at = None
    source = None
    if event.input is not UNSET or event.input_ref:
        source = payload_of(event.id, event.input, event.input_ref, node.input)
    plan = _plan(event.plan)
    node.mapping = Mapping(
        id=event.id, plan=plan, source=source, keyed=event.keyed, total=event.total, exhausted=event.total == 0
    )
    run.mappings[event.id] = node.entry


def _mapping(run: Run, mapping_id: int) -> Mapping:
    mapping = run.nodes[run.mappings[mapping_id]].mapping
    assert mapping is not None
    return mapping


def items_started(run: Run, event: ev.MapItemsStarted) -> None:
    mapping = _mapping(run, event.run)
    for index, (run_id, items) in enumerate(zip(event.run_ids, event.items, strict=True), event.first):
        mapping.in_flight[index] = (run_id, items)
    mapping.children = event.first + len(event.run_ids)
    mapping.cursor += sum(event.items)
    mapping.position = event.position
    mapping.exhausted = event.exhausted
    mapping.total = event.total


def items_ended(run: Run, event: ev.MapItemsEnded) -> None:
    mapping = _mapping(run, event.run)
    for end in event.ended:
        items = mapping.in_flight.pop(end.index)[1]
        if end.status is ev.PartStatus.SUCCEEDED:
            mapping.succeeded += items
        else:
            mapping.failed += items
        if end.result is not UNSET and not mapping.dropped:
            mapping.results[end.index] = bytes(end.result)
            mapping.result_bytes += len(mapping.results[end.index])
        elif end.dropped:
            mapping.dropped = True
            mapping.results.clear()


def part_ended(run: Run, event: ev.MapIterationEnded | ev.BranchEnded) -> None:
    node = run.nodes[event.entry]
    fan = _fan(node)
    if event.status is ev.PartStatus.FAILED:
        # What it stood in is kept until its node is retried or caught: if nobody does, a redrive goes on from there.
        return
    branch = run.branches.pop(child_key(node.path, event.index))
    fan.active -= 1
    fan.results[event.index] = payload_of(event.id, UNSET, event.output_ref, branch.payload)
    if fan.open and node.entry not in run.filling:
        run.filling.append(node.entry)


def drop_parts(run: Run, node: Node) -> None:
    """Forget the node's branches and all that runs in them."""
    if node.mapping is not None:
        del run.mappings[node.mapping.id]
        node.mapping = None
    fan = node.fan
    if fan is None:
        return
    if node.entry in run.filling:
        run.filling.remove(node.entry)
    for index in range(fan.cursor):
        branch = run.branches.pop(child_key(node.path, index), None)
        if branch is None:
            continue
        if branch.next is not None:
            run.ready.remove(branch.key)
        if branch.node:
            child = run.nodes.pop(branch.node)
            if child.entry in run.again:
                run.again.remove(child.entry)
            if child.task is not None:
                run.tasks.pop(child.task.id)
            drop_parts(run, child)
    node.fan = None
