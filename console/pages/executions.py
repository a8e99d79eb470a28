"""All executions, newest first, tens of thousands if need be: found by status, workflow and text, opened with Enter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from msgspec.structs import replace
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from console import colours
from console.cells import Cell
from console.pages.acting import ActingPage, Target
from console.state import ConsoleState, Executions
from console.views import choice_in_words, visible
from console.widgets.table import Column, VirtualTable
from console.words import since, span
from enginekit.messages.calls import ExecutionSummary
from enginekit.messages.status import ExecutionStatus

if TYPE_CHECKING:
    from console.app import ConsoleApp

STATUSES = [None, *ExecutionStatus]


class ExecutionsPage(ActingPage):
    NAME = "Executions"
    HELP = (
        "Executions, newest first; older ones are read as you come to them. `f` goes through the statuses, `w` asks "
        "for those of one workflow, `/` looks for a text in ids, errors and labels of what has been read."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "status", "Status"),
        Binding("w", "workflow", "Workflow"),
        Binding("slash", "text", "Text"),
        Binding("x", "all", "All", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._seen: Executions | None = None
        self._runs: list[str] = []
        self._asks = ""

    def compose_body(self) -> ComposeResult:
        yield Static(id="choice", classes="line", markup=False)
        field = Input(id="field")
        field.display = False
        yield field
        yield VirtualTable(
            [
                Column("execution", 0),
                Column("workflow", 16),
                Column("status", 10),
                Column("started", 13, True),
                Column("took", 9, True),
                Column("error", 14),
            ],
            empty="none",
            id="executions",
        )

    def on_mount(self) -> None:
        self.query_one(VirtualTable).focus()

    def show(self, state: ConsoleState, now: float) -> None:
        executions = state.executions
        if executions is not self._seen:
            self._seen = executions
            self._runs = visible(executions)
        runs, by_run = self._runs, executions.by_run
        self.query_one("#choice", Static).update(choice_in_words(executions, len(runs)), layout=False)
        table = self.query_one(VirtualTable)
        table.show(runs, lambda row: _execution(by_run[runs[row]], now))
        if executions.choice.text and len(runs) < table.size.height:
            self.source.read_on()  # the text may stand further down

    @on(VirtualTable.NearEnd)
    def _read_on(self) -> None:
        if not self.source.state.executions.complete:
            self.source.read_on()

    @on(VirtualTable.Chosen)
    def _open(self, event: VirtualTable.Chosen) -> None:
        chosen = self.source.state.executions.by_run.get(event.key)
        if chosen is not None:
            cast("ConsoleApp", self.app).open_execution(chosen.workflow_id, chosen.run_id)

    def target(self) -> Target | None:
        run_id = self.query_one(VirtualTable).current
        chosen = self.source.state.executions.by_run.get(run_id or "")
        return Target(chosen.workflow_id, chosen.run_id) if chosen is not None else None

    # --- choosing ------------------------------------------------------------------------------------------------

    def action_status(self) -> None:
        choice = self.source.state.executions.choice
        following = STATUSES[(STATUSES.index(choice.status) + 1) % len(STATUSES)]
        self.source.choose(replace(choice, status=following))
        self.draw()

    def action_workflow(self) -> None:
        self._ask("workflow", self.source.state.executions.choice.workflow or "", "workflow (empty: any), then Enter")

    def action_text(self) -> None:
        self._ask("text", self.source.state.executions.choice.text, "text to look for, then Enter")

    def action_all(self) -> None:
        self.source.choose(replace(self.source.state.executions.choice, status=None, workflow=None, text=""))
        self.draw()

    def _ask(self, what: str, value: str, hint: str) -> None:
        field = self.query_one("#field", Input)
        self._asks = what
        field.placeholder = hint
        field.value = value
        field.display = True
        field.focus()

    @on(Input.Changed, "#field")
    def _typed(self, event: Input.Changed) -> None:
        if self._asks == "text":
            self.source.choose(replace(self.source.state.executions.choice, text=event.value))
            self.draw()

    @on(Input.Submitted, "#field")
    def _entered(self, event: Input.Submitted) -> None:
        choice = self.source.state.executions.choice
        if self._asks == "workflow":
            self.source.choose(replace(choice, workflow=event.value.strip() or None))
        self._leave_field()

    def key_escape(self) -> None:
        self._leave_field()

    def _leave_field(self) -> None:
        self.query_one("#field", Input).display = False
        self._asks = ""
        self.query_one(VirtualTable).focus()
        self.draw()


def _execution(each: ExecutionSummary, now: float) -> list[Cell]:
    ended = each.closed_at.timestamp() if each.closed_at is not None else now
    return [
        (each.workflow_id, "bold"),
        (each.workflow or "(inline)", "" if each.workflow else colours.QUIET),
        (each.status.value, colours.STATUS[each.status]),
        (since(each.started_at, now), ""),
        (span(ended - each.started_at.timestamp()), ""),
        (each.error or "", colours.BAD),
    ]
