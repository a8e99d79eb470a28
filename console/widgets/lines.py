"""Lines of coloured pieces that scroll."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from console.cells import Cell
from console.words import safe


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
            text = Text("\n").join(_line(line) for line in lines)
            self.query_one(Static).update(text)


def _line(cells: list[Cell]) -> Text:
    pieces = [(safe(said), look) for said, look in cells]
    return Text.assemble(*pieces, no_wrap=True, overflow="ellipsis")
