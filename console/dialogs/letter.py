"""The whole of a dead letter: what the task was given, and how each attempt failed."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from console import colours
from console.widgets.json_tree import JsonTree
from console.widgets.lines import Lines
from console.words import day, safe
from enginekit.messages.dead_letters import GetDeadLetterResult
from enginekit.messages.json import decode


class LetterDialog(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "Leave")]

    def __init__(self, letter: GetDeadLetterResult) -> None:
        super().__init__()
        self._letter = letter

    def compose(self) -> ComposeResult:
        letter = self._letter
        facts = Text(f"{letter.workflow_id}  {safe(letter.path)}  {safe(letter.resource)}\n", "bold")
        facts.append(f"{safe(letter.error)}: {safe(letter.cause, lines=True)}\n", colours.BAD)
        facts.append(f"{letter.id}", colours.QUIET)
        with Vertical(id="letter"):
            yield Static(facts)
            yield Static("Attempts", classes="heading")
            yield Lines(id="attempts")
            yield Static("Input", classes="heading")
            yield JsonTree()
            yield Static("Escape: leave it", id="keys")

    def on_mount(self) -> None:
        self.query_one(JsonTree).show(decode(self._letter.input))
        self.query_one(JsonTree).focus()
        self.query_one(Lines).show(
            [
                [
                    (f"{each.attempt:>4}  {day(each.failed_at)}  ", colours.QUIET),
                    (each.error, colours.BAD),
                    (f"  {each.cause}", ""),
                ]
                for each in self._letter.failures
            ]
        )

    def action_leave(self) -> None:
        self.dismiss()
