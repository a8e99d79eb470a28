"""Lines of coloured pieces that scroll."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from console.cells import Cell


class Lines(VerticalScroll):
    """Drawn anew only where they have changed."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: list[list[Cell]] | None = None

    def compose(self) -> ComposeResult:
        yield Static()

    def show(self, lines: list[list[Cell]]) -> None:
        if lines != self._shown:
            self._shown = lines
            text = Text("\n").join(Text.assemble(*line, no_wrap=True, overflow="ellipsis") for line in lines)
            self.query_one(Static).update(text)
