"""One execution: its nodes as a graph, what it waits for, its events as they happen, and each of them as JSON."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from console import colours, graph, telling
from console.pages.acting import ActingPage, Target
from console.state import ConsoleState, Opened
from console.widgets.json_tree import JsonTree
from console.widgets.lines import Lines
from console.widgets.table import Column, VirtualTable
from console.words import day, safe, span
from enginekit.messages.events import AnyEvent


class ExecutionPage(ActingPage):
    NAME = "Executions"
    HELP = (
        "One execution. Left its states, coloured by what has become of them, and what it waits for; right "
        "its events as they happen, and the one under the cursor as JSON, which Enter folds. Where there is no room "
        "for both, `v` goes from one to the other."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("v", "view", "Graph/events"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: tuple[AnyEvent, ...] | None = None
        self._tally: dict[str, graph.Tally] = {}
        self._graph: list[graph.Node] = []
        self._of: object = None
        self._shown_event: int | None = None

    def compose_body(self) -> ComposeResult:
        yield Static(id="facts", classes="line")
        with Horizontal(id="execution"):
            with Vertical(id="left"):
                yield Lines(id="graph")
                yield Static("Waits for", classes="heading")
                yield Lines(id="waits")
            with Vertical(id="right"):
                yield VirtualTable(
                    [
                        Column("id", 5, True),
                        Column("time", 8),
                        Column("event", 20),
                        Column("node", 12),
                        Column("", 0),
                    ],
                    empty="reading …",
                    id="events",
                )
                yield JsonTree(id="json")

    def on_mount(self) -> None:
        self.query_one("#events").focus()

    def draw(self) -> None:
        super().draw()
        self._focus_in_sight()

    def _focus_in_sight(self) -> None:
        """The keys are for what is seen: where there is room for one side only, for that one."""
        if not self.has_class("-normal"):
            return
        seen, first = ("right", "#events") if self.has_class("-events") else ("left", "#graph")
        places = self.focused.ancestors if self.focused is not None else []
        if not any(each.id == seen for each in places):
            self.query(first).focus()  # of none, while the page comes or goes

    def target(self) -> Target | None:
        opened = self.source.state.opened
        return Target(opened.workflow_id, opened.run_id) if opened is not None else None

    def show(self, state: ConsoleState, now: float) -> None:
        opened = state.opened
        if opened is None:
            return
        self.query_one("#facts", Static).update(_facts(opened, now), layout=False)
        events = opened.events
        if events is not self._drawn or self._of is not opened.definition:
            self._drawn, self._of = events, opened.definition
            self._tally = graph.tallies(events)
            known = graph.of_definition(opened.definition) if opened.definition is not None else []
            self._graph = known or graph.of_history(events)
        running = opened.seen.nodes if opened.seen is not None else []
        self.query_one("#graph", Lines).show(graph.lines(self._graph, self._tally, running))
        self.query_one("#waits", Lines).show(
            [telling.waits(view, now) for view in running] or [[("nothing", colours.QUIET)]]
        )
        self.query_one("#events", VirtualTable).show(
            [str(each.id) for each in events], lambda row: telling.row(events[row])
        )
        self._show_event()

    @on(VirtualTable.Moved, "#events")
    def _show_event(self) -> None:
        current = self.query_one("#events", VirtualTable).cursor
        events = self._drawn or ()
        if current < len(events) and events[current].id != self._shown_event:
            self._shown_event = events[current].id
            self.query_one(JsonTree).show(telling.document(events, events[current]))

    @on(VirtualTable.Chosen, "#events")
    def _into_json(self) -> None:
        self.query_one(JsonTree).focus()

    def action_view(self) -> None:
        self.toggle_class("-events")
        self._focus_in_sight()

    def action_back(self) -> None:
        tree = self.query_one(JsonTree)
        if tree.has_focus:
            self.query_one("#events").focus()
            return
        self.leave()

    def leave(self) -> None:
        """Back to the list."""
        self.source.look_away()
        self.dismiss()


def _facts(opened: Opened, now: float) -> Text:
    line = Text(opened.workflow_id, "bold", no_wrap=True, overflow="ellipsis")
    seen = opened.seen
    if opened.problem:
        line.append(f"  {safe(opened.problem)}", colours.BAD)
    if seen is None:
        return line
    ended = seen.closed_at.timestamp() if seen.closed_at is not None else now
    line.append(f"  {seen.status.value}", colours.STATUS[seen.status])
    line.append(f"  {seen.workflow or '(inline)'}{f' v{seen.version}' if seen.version else ''}", "")
    line.append(f"  {day(seen.started_at)}, {span(ended - seen.started_at.timestamp())}", colours.QUIET)
    if seen.error:
        line.append(f"  {safe(seen.error)}: {safe(seen.cause or '')}", colours.BAD)
    return line
