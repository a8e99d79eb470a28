"""The first line of every page: the pages' names and keys, and how fresh the picture is."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from console.state import Link, Standing
from console.views import staleness

_STYLES = {
    Standing.LIVE: "bold green",
    Standing.CONNECTING: "bold yellow",
    Standing.LOST: "bold yellow",
    Standing.REFUSED: "bold red",
}


class Top(Static):
    """`names`: of all pages, in the order of their keys."""

    def __init__(self, names: list[str], current: str) -> None:
        super().__init__(id="top")
        self._names = names
        self._current = current
        self._shown = Text()

    def show(self, link: Link, now: float) -> None:
        fresh = f"● {staleness(link, now)}"
        left = Text(" ", no_wrap=True, overflow="crop")
        for number, name in enumerate(self._names, 1):
            style = "reverse bold" if name == self._current else ""
            left.append(f" {number} {name} ", style)
        room = self.size.width - left.cell_len - 1
        if room < len(fresh):
            # The freshness matters more than the names of the other pages.
            left = Text(f"  {self._current} ", "reverse bold", no_wrap=True, overflow="crop")
            room = self.size.width - left.cell_len - 1
        about = f"{link.tenant} " if link.tenant and room > len(fresh) + len(link.tenant) + 1 else ""
        left.append(" " * max(1, room - len(fresh) - len(about)))
        left.append(about, "bright_black")
        left.append(fresh, _STYLES[link.standing])
        if left != self._shown:
            self._shown = left
            self.update(left, layout=False)
