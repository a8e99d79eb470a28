"""Dead letters: listed, shown, redriven and discarded, one by one or all that the filter finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

import msgspec
from msgspec import UNSET, Raw
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from console import colours
from console.cells import Cell
from console.dialogs.dialog import Dialog, Field
from console.dialogs.letter import LetterDialog
from console.pages.polled import PolledPage
from console.source import FAILURES
from console.state import ConsoleState
from console.widgets.table import Column, VirtualTable
from console.words import safe, since
from enginekit.messages.dead_letters import (
    DeadLetterSummary,
    DiscardDeadLetter,
    GetDeadLetter,
    ListDeadLetters,
    RedriveDeadLetter,
)

PAGE: Final = 200
MOST_IN_A_CALL: Final = 1000
REASON: Final = Field(name="reason", label="Reason (kept in the history)")


class LettersPage(PolledPage):
    NAME = "Dead letters"
    HELP = (
        "Tasks that failed for good, and made their execution fail. Redriving opens the execution again: it goes on at "
        "that task, with its own input or (`e`) another. Capitals do it for all that the filter finds."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "redrive", "Redrive"),
        Binding("e", "edit", "Edit"),
        Binding("d", "discard", "Discard"),
        Binding("slash", "filter", "Filter"),
        Binding("R", "redrive_all", "Redrive all", show=False),
        Binding("D", "discard_all", "Discard all", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._query = ListDeadLetters()
        self._letters: list[DeadLetterSummary] = []
        self._wanted = PAGE
        self._more = False
        self._known = False

    def compose_body(self) -> ComposeResult:
        yield Static(id="choice", classes="line", markup=False)
        yield VirtualTable(
            [
                Column("execution", 0),
                Column("workflow", 12),
                Column("node", 14),
                Column("error", 16),
                Column("tries", 5, True),
                Column("failed", 13, True),
            ],
            empty="reading …",
            id="letters",
        )

    async def read(self) -> None:
        query = self._query
        letters, self._more = await self._list(query, self._wanted)
        if query is self._query:
            self._letters, self._known = letters, True

    async def _list(self, query: ListDeadLetters, wanted: int | None) -> tuple[list[DeadLetterSummary], bool]:
        """As many as are wanted (None: all), and whether there are more."""
        found: list[DeadLetterSummary] = []
        token: str | None = None
        while True:
            size = MOST_IN_A_CALL if wanted is None else min(MOST_IN_A_CALL, wanted - len(found))
            page = await self.source.call(msgspec.structs.replace(query, page_size=size, page_token=token))
            found += page.dead_letters
            token = page.next_page_token
            if token is None or (wanted is not None and len(found) >= wanted):
                return found, token is not None

    def show(self, state: ConsoleState, now: float) -> None:
        letters = self._letters
        words = f"{len(letters):,}{'+' if self._more else ''} · {self._filter()}"
        line = f"{words} · {self.problem}" if self.problem else words
        self.query_one("#choice", Static).update(line, layout=False)
        self.query_one(VirtualTable).show(
            [each.id for each in letters],
            lambda row: _letter(letters[row], now),
            "none" if self._known else "reading …",
        )

    def _filter(self) -> str:
        query = self._query
        return f"workflow {query.workflow or 'any'} · node {query.node or 'any'} · error {query.error or 'any'}"

    @on(VirtualTable.NearEnd)
    def _read_on(self) -> None:
        if self._more and self._wanted <= len(self._letters):
            self._wanted = len(self._letters) + PAGE
            self.read_now()

    def _current(self) -> DeadLetterSummary | None:
        key = self.query_one(VirtualTable).current
        return next((each for each in self._letters if each.id == key), None)

    # --- one -----------------------------------------------------------------------------------------------------

    @on(VirtualTable.Chosen)
    @work(exclusive=True, group="acting")
    async def _open(self, event: VirtualTable.Chosen) -> None:
        letter = await self.attempt(self.source.call(GetDeadLetter(id=event.key)))
        if letter is not None:
            await self.app.push_screen_wait(LetterDialog(letter))

    @work(exclusive=True, group="acting")
    async def action_redrive(self) -> None:
        letter = self._current()
        if letter is not None:
            question = f"Redrive {letter.workflow_id}?\nIt goes on at {letter.path}, which failed with {letter.error}."
            answer = await self.app.push_screen_wait(Dialog(question, [REASON]))
            if answer is not None:
                await self._redrive(RedriveDeadLetter(id=letter.id, reason=answer["reason"]))

    @work(exclusive=True, group="acting")
    async def action_edit(self) -> None:
        current = self._current()
        letter = await self.attempt(self.source.call(GetDeadLetter(id=current.id))) if current is not None else None
        if letter is None:
            return
        pretty = msgspec.json.format(bytes(letter.input)).decode()
        field = Field(
            name="input", label="What the task is given (JSON; nothing: its own input)", value=pretty, json=True
        )
        question = f"Redrive {letter.workflow_id} at {letter.path} with another input?"
        answer = await self.app.push_screen_wait(Dialog(question, [field, REASON]))
        if answer is not None:
            given = Raw(answer["input"].encode()) if answer["input"] else UNSET
            await self._redrive(RedriveDeadLetter(id=letter.id, reason=answer["reason"], input=given))

    async def _redrive(self, call: RedriveDeadLetter) -> None:
        done = await self.attempt(self.source.call(call))
        if done is not None:
            self.notify(f"{done.workflow_id} goes on", markup=False)
        self.read_now()

    @work(exclusive=True, group="acting")
    async def action_discard(self) -> None:
        letter = self._current()
        if letter is None:
            return
        question = f"Discard the dead letter of {letter.workflow_id}?\nThe execution stays as it is, failed."
        if await self.app.push_screen_wait(Dialog(question)) is not None:
            if await self.attempt(self.source.call(DiscardDeadLetter(id=letter.id))):
                self.notify("discarded", markup=False)
            self.read_now()

    # --- all that the filter finds ---------------------------------------------------------------------------------

    @work(exclusive=True, group="acting")
    async def action_filter(self) -> None:
        query = self._query
        fields = [
            Field(name="workflow", label="Workflow (nothing: any)", value=query.workflow or ""),
            Field(name="node", label="Node", value=query.node or ""),
            Field(name="error", label="Error", value=query.error or ""),
        ]
        answer = await self.app.push_screen_wait(Dialog("Which dead letters?", fields))
        if answer is None:
            return
        try:
            chosen = {name: text for name, text in answer.items() if text}
            self._query = msgspec.convert(chosen, ListDeadLetters)
        except msgspec.ValidationError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self._letters, self._known, self._wanted = [], False, PAGE
        self.read_now()

    @work(exclusive=True, group="acting")
    async def action_redrive_all(self) -> None:
        async def one(letter: DeadLetterSummary, answer: dict[str, str]) -> object:
            return await self.source.call(RedriveDeadLetter(id=letter.id, reason=answer["reason"]))

        await self._each("Redrive", "redriven", [REASON], one)

    @work(exclusive=True, group="acting")
    async def action_discard_all(self) -> None:
        async def one(letter: DeadLetterSummary, answer: dict[str, str]) -> object:
            return await self.source.call(DiscardDeadLetter(id=letter.id))

        await self._each("Discard", "discarded", [], one)

    async def _each(
        self,
        verb: str,
        done: str,
        fields: list[Field],
        one: Callable[[DeadLetterSummary, dict[str, str]], Awaitable[object]],
    ) -> None:
        """One that is refused does not stop the others."""
        found = await self.attempt(self._list(self._query, None))
        if not found or not found[0]:
            return
        letters = found[0]
        answer = await self.app.push_screen_wait(
            Dialog(f"{verb} {len(letters):,} dead letters?\n{self._filter()}", fields)
        )
        if answer is None:
            return
        failures: list[str] = []
        for letter in letters:
            try:
                await one(letter, answer)
            except FAILURES as failure:
                failures.append(str(failure))
        self.notify(f"{len(letters) - len(failures):,} {done}", markup=False)
        if failures:
            message = f"{len(failures):,} were not; the last: {safe(failures[-1], lines=True)}"
            self.notify(message, severity="error", markup=False, timeout=8)
        self.read_now()


def _letter(each: DeadLetterSummary, now: float) -> list[Cell]:
    return [
        (each.workflow_id, "bold"),
        (each.workflow or "(inline)", "" if each.workflow else colours.QUIET),
        (each.path, ""),
        (each.error, colours.BAD),
        (f"{each.attempts:,}", ""),
        (since(each.at, now), ""),
    ]
