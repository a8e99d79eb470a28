"""What `?` shows: what this page is for, and every key that works on it."""

from __future__ import annotations

from itertools import zip_longest
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static


class Help(ModalScreen[None]):
    """`keys`: each with what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark", "leave", "Leave")]

    def __init__(self, title: str, text: str, keys: list[tuple[str, str]]) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._keys = keys

    def compose(self) -> ComposeResult:
        table = Table.grid(padding=(0, 2))
        half = (len(self._keys) + 1) // 2
        for left, right in zip_longest(self._keys[:half], self._keys[half:], fillvalue=("", "")):
            table.add_row(Text(left[0], "bold cyan"), left[1], Text(right[0], "bold cyan"), right[1])
        with VerticalScroll(id="dialog"):
            yield Static(Text(self._title, "bold"))
            yield Static(Text(f"{self._text}\n"))
            yield Static(table)
            yield Static("\nEscape: leave", id="keys")

    def action_leave(self) -> None:
        self.dismiss()
