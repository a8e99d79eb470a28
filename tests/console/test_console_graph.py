"""The graph of a definition, and what the history says of its nodes."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from console import colours, graph, telling
from enginekit.messages import events as ev
from enginekit.messages.calls import NodeView
from enginekit.messages.json import encode

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MACHINE = {
    "StartAt": "Pay",
    "States": {
        "Refund": {"Type": "Task", "Resource": "echo", "End": True},
        "Ship": {
            "Type": "Map",
            "ItemProcessor": {"StartAt": "Pack", "States": {"Pack": {"Type": "Pass", "End": True}}},
            "Next": "Tell",
        },
        "Tell": {
            "Type": "Parallel",
            "Branches": [
                {"StartAt": "Mail", "States": {"Mail": {"Type": "Pass", "End": True}}},
                {"StartAt": "Text", "States": {"Text": {"Type": "Pass", "End": True}}},
            ],
            "End": True,
        },
        "Pay": {
            "Type": "Task",
            "Resource": "echo",
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Refund"}],
            "Next": "Ship",
        },
    },
}


def text(lines) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


def entered(number: int, node: str) -> ev.NodeEntered:
    return ev.NodeEntered(id=number, time=START, node=node, path=node, entry=number, kind="Task")


def failed(number: int, node: str, entry: int) -> ev.NodeFailed:
    return ev.NodeFailed(id=number, time=START, node=node, path=node, entry=entry, error="Shop.Down")


def test_states_stand_in_the_order_of_their_arrows() -> None:
    assert text(graph.lines(graph.of_definition(encode(MACHINE)), {}, [])) == [
        "○ Pay  Task",
        "├─ on States.ALL → Refund",
        "│",
        "○ Ship  Map",
        "│ ┌ each item",
        "│ │ ○ Pack  Pass",
        "│",
        "○ Tell  Parallel",
        "│ ┌ branch 1",
        "│ │ ○ Mail  Pass",
        "│ ┌ branch 2",
        "│ │ ○ Text  Pass",
        "○ Refund  Task",
    ]


def test_a_way_back_and_a_definition_in_yaml() -> None:
    document = (
        "StartAt: Ask\nStates:\n  Ask: {Type: Pass, Next: Enough}\n  Enough:\n    Type: Choice\n"
        "    Choices: [{Condition: '{% $n > 3 %}', Next: Done}]\n    Default: Ask\n  Done: {Type: Succeed}\n"
    )
    assert text(graph.lines(graph.of_definition(encode(document)), {}, [])) == [
        "○ Ask  Pass",
        "│",
        "○ Enough  Choice",
        "├─ if $n > 3 → Done",
        "╰─ otherwise → Ask",
        "○ Done  Succeed",
    ]


def test_a_long_machine_needs_no_recursion() -> None:
    states = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(5000)}
    states["S5000"] = {"Type": "Succeed"}
    nodes = graph.of_definition(encode({"StartAt": "S0", "States": states}))
    assert [node.name for node in nodes] == [f"S{n}" for n in range(5001)]


def test_nodes_are_counted_by_how_they_ended_also_after_a_redrive() -> None:
    events = [entered(2, "Pay"), failed(3, "Pay", 2), ev.WorkflowFailed(id=4, time=START, error="Shop.Down")]
    assert graph.tallies(events) == {"Pay": graph.Tally(entered=1, failed=1)}
    again = graph.tallies([*events, ev.WorkflowRedriven(id=5, time=START, again=[2])])
    assert again["Pay"].running == 1
    stopped = graph.tallies([entered(2, "Pay"), ev.WorkflowTerminated(id=3, time=START)])
    assert stopped == {"Pay": graph.Tally(entered=1, stopped=1)}


def test_colours_say_what_has_become_of_a_node() -> None:
    nodes = [graph.Node(name="Pay", kind="Task")]
    waiting = NodeView(node="Pay", path="Pay", kind="Task", state="awaiting_token", entered_at=START, attempt=1)
    for tally, running, colour in (
        (graph.Tally(), [], colours.QUIET),
        (graph.Tally(entered=1, done=1), [], colours.GOOD),
        (graph.Tally(entered=2, done=1), [], colours.BUSY),
        (graph.Tally(entered=1), [waiting], colours.WAITING),
        (graph.Tally(entered=1, failed=1), [], colours.BAD),
    ):
        (line,) = graph.lines(nodes, {"Pay": tally}, running)
        assert line[-1][1] == colour


def test_without_a_definition_the_ways_that_were_taken_are_drawn() -> None:
    events = [
        entered(2, "Pay"),
        ev.NodeFailed(id=3, time=START, node="Pay", path="Pay", entry=2, error="Shop.Down", next="Refund"),
        entered(4, "Refund"),
    ]
    assert text(graph.lines(graph.of_history(events), graph.tallies(events), [])) == [
        "● Pay  Task  failed",
        "╰─ on Shop.Down → Refund",
        "● Refund  Task  running",
    ]


def test_references_are_replaced_by_what_they_refer_to() -> None:
    first = ev.NodeEntered(
        id=1, time=START, node="Pay", path="Pay", entry=1, kind="Task", input=msgspec.Raw(b'{"amount":5}')
    )
    second = ev.NodeExited(id=2, time=START, node="Pay", path="Pay", entry=1, output_ref=1)
    assert telling.document([first, second], second)["output"] == {"amount": 5}


def test_what_a_node_waits_for_is_one_line() -> None:
    view = NodeView(
        node="Pay",
        path="Pay[3]",
        kind="Task",
        state="backing_off",
        entered_at=START,
        attempt=3,
        next_retry_at=datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC),
        last_error="Shop.Down",
    )
    (line,) = text([telling.waits(view, START.timestamp())])
    assert line == "Pay[3] waits before it is tried again · attempt 3 · again in 30 s · last Shop.Down"
