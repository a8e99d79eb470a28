"""A definition as a graph in lines of text, each node with what has become of it. Pure.

The states stand one below the other, so that most arrows lead to the next line; the others are named. What has become
of a state comes from the history: how often it was entered, and how that ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import yaml
from msgspec import Raw

from console import colours
from console.cells import Cell
from enginekit.messages import events as ev
from enginekit.messages.calls import NodeView
from enginekit.messages.events import AnyEvent
from enginekit.messages.json import JSON

_SYMBOLS: Final = {"Choice": "◆", "Parallel": "▤", "Map": "▤", "Wait": "◷", "Succeed": "■", "Fail": "■"}


class Tally(msgspec.Struct):
    """How often a state was entered, and how those ended. What has not ended runs."""

    entered: int = 0
    done: int = 0
    failed: int = 0
    stopped: int = 0

    @property
    def running(self) -> int:
        return self.entered - self.done - self.failed - self.stopped


class Edge(msgspec.Struct, frozen=True):
    label: str
    target: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """`inner`: the graphs of its branches, or of what it does with each item, with their names."""

    name: str
    kind: str
    edges: list[Edge] = []
    inner: list[tuple[str, list[Node]]] = []


def tallies(events: Iterable[AnyEvent]) -> dict[str, Tally]:
    """By the name of the state."""
    names: dict[int, str] = {}
    ended: dict[int, str] = {}
    for event in events:
        if isinstance(event, ev.NodeEntered):
            names[event.id] = event.node
        elif isinstance(event, ev.NodeExited):
            ended[event.entry] = "done"
        elif isinstance(event, ev.NodeFailed):
            ended[event.entry] = "failed"
        elif isinstance(event, ev.TaskCanceled):
            ended.setdefault(event.entry, "stopped")
        elif isinstance(event, ev.WorkflowRedriven):
            for entry in event.again:
                ended.pop(entry, None)
        elif isinstance(event, ev.WorkflowFailed | ev.WorkflowTimedOut | ev.WorkflowCanceled | ev.WorkflowTerminated):
            for entry in names:
                ended.setdefault(entry, "stopped")
    found: dict[str, Tally] = {}
    for entry, name in names.items():
        tally = found.setdefault(name, Tally())
        tally.entered += 1
        how = ended.get(entry)
        tally.done += how == "done"
        tally.failed += how == "failed"
        tally.stopped += how == "stopped"
    return found


def of_definition(definition: Raw) -> list[Node]:
    """The nodes of a definition, in the order in which they are drawn. Nothing where it is none."""
    document = msgspec.json.decode(definition)
    if isinstance(document, str):
        try:
            document = yaml.safe_load(document)
        except yaml.YAMLError:
            return []
    return _machine(document)


def of_history(events: Sequence[AnyEvent]) -> list[Node]:
    """The nodes that were entered, where the definition is not known: in that order, with the ways that were taken."""
    kinds: dict[str, str] = {}
    edges: dict[str, list[Edge]] = {}
    for event in events:
        if isinstance(event, ev.NodeEntered):
            kinds.setdefault(event.node, event.kind)
        elif isinstance(event, ev.NodeExited | ev.NodeFailed) and event.next is not None:
            label = f"on {event.error}" if isinstance(event, ev.NodeFailed) else ""
            edge = Edge(label, event.next)
            if edge not in edges.setdefault(event.node, []):
                edges[event.node].append(edge)
    return [Node(name=name, kind=kind, edges=edges.get(name, [])) for name, kind in kinds.items()]


def _machine(document: object) -> list[Node]:
    if not isinstance(document, dict):
        return []
    states, start = document.get("States"), document.get("StartAt")
    if not isinstance(states, dict) or not isinstance(start, str):
        return []
    nodes = {name: _node(name, state) for name, state in states.items() if isinstance(state, dict)}
    order: list[str] = []
    _order(start, nodes, set(), order)
    order.reverse()
    order += [name for name in nodes if name not in order]
    return [nodes[name] for name in order]


def _order(start: str, nodes: dict[str, Node], seen: set[str], order: list[str]) -> None:
    """Every node after what leads to it, but for ways back. Reversed; without recursion, for long machines."""
    stack: list[tuple[str, int]] = [(start, 0)]
    seen.add(start)
    while stack:
        name, at = stack.pop()
        targets = [edge.target for edge in nodes[name].edges][::-1] if name in nodes else []
        while at < len(targets) and (targets[at] in seen or targets[at] not in nodes):
            at += 1
        if at < len(targets):
            seen.add(targets[at])
            stack += [(name, at + 1), (targets[at], 0)]
        elif name in nodes:
            order.append(name)


def _node(name: str, state: dict[str, JSON]) -> Node:
    edges: list[Edge] = []
    if isinstance(following := state.get("Next"), str):
        edges.append(Edge("", following))
    for number, rule in enumerate(_objects(state.get("Choices")), 1):
        if isinstance(target := rule.get("Next"), str):
            edges.append(Edge(_condition(rule, number), target))
    if isinstance(default := state.get("Default"), str):
        edges.append(Edge("otherwise", default))
    for rule in _objects(state.get("Catch")):
        errors = rule.get("ErrorEquals")
        if isinstance(target := rule.get("Next"), str):
            names = ", ".join(str(each) for each in errors) if isinstance(errors, list) else ""
            edges.append(Edge(f"on {names}", target))
    inner = [(f"branch {number}", _machine(branch)) for number, branch in enumerate(_objects(state.get("Branches")), 1)]
    items = state.get("ItemProcessor", state.get("Iterator"))
    if items is not None:
        inner.append(("each item", _machine(items)))
    return Node(name=name, kind=str(state.get("Type", "")), edges=edges, inner=inner)


def _objects(value: JSON) -> list[dict[str, JSON]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _condition(rule: dict[str, JSON], number: int) -> str:
    if isinstance(condition := rule.get("Condition"), str):
        return f"if {condition.strip('{% }')}"
    if isinstance(variable := rule.get("Variable"), str):
        test = next((name for name in rule if name not in ("Variable", "Next", "Assign", "Output", "Comment")), "")
        return f"if {variable} {test} {msgspec.json.encode(rule.get(test)).decode()}"
    return f"if rule {number}"


# --- drawing -------------------------------------------------------------------------------------------------------


def lines(
    nodes: list[Node], tally: dict[str, Tally], running: Sequence[NodeView], indent: str = ""
) -> list[list[Cell]]:
    """The graph as lines of coloured pieces."""
    drawn: list[list[Cell]] = []
    for place, node in enumerate(nodes):
        views = [view for view in running if view.node == node.name]
        counted = tally.get(node.name, Tally())
        colour = _colour(counted, views)
        symbol = _SYMBOLS.get(node.kind, "●") if counted.entered else "○"
        drawn.append(
            [
                (indent, colours.QUIET),
                (f"{symbol} {node.name}", f"bold {colour}".strip() if counted.entered else colour),
                (f"  {node.kind}", colours.QUIET),
                (f"  {_words(counted, views)}", colour),
            ]
        )
        for name, inside in node.inner:
            drawn.append([(f"{indent}│ ┌ {name}", colours.QUIET)])
            drawn += lines(inside, tally, running, f"{indent}│ │ ")
        after = nodes[place + 1].name if place + 1 < len(nodes) else None
        apart = [edge for edge in node.edges if edge.label or edge.target != after]
        for at, edge in enumerate(apart):
            last = at == len(apart) - 1 and len(apart) == len(node.edges)
            corner = "╰" if last else "├"
            drawn.append([(f"{indent}{corner}─ {edge.label}{' ' if edge.label else ''}→ {edge.target}", colours.QUIET)])
        if len(apart) < len(node.edges):
            drawn.append([(f"{indent}│", colours.QUIET)])
    return drawn


def _colour(tally: Tally, views: list[NodeView]) -> str:
    if views:
        return colours.BUSY if any(view.state in ("running", "queued") for view in views) else colours.WAITING
    if tally.running > 0:
        return colours.BUSY
    if tally.failed:
        return colours.BAD
    if tally.stopped:
        return colours.WAITING
    return colours.GOOD if tally.done else colours.QUIET


def _words(tally: Tally, views: list[NodeView]) -> str:
    parts = []
    if views:
        states = sorted({view.state for view in views})
        parts += [f"{state.replace('_', ' ')}{_times(sum(view.state == state for view in views))}" for state in states]
    elif tally.running > 0:
        parts.append(f"running{_times(tally.running)}")
    for word, count in (("done", tally.done), ("failed", tally.failed), ("stopped", tally.stopped)):
        if count:
            parts.append(f"{word}{_times(count)}")
    return ", ".join(parts)


def _times(count: int) -> str:
    return f" ×{count:,}" if count > 1 else ""
