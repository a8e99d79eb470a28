"""The last line of every page: the keys that matter most there. (Textual's Footer is a widget for each key, made anew
whenever the page is another one, which costs more than the page.)"""

from __future__ import annotations

from rich.text import Text
from textual.binding import ActiveBinding
from textual.widgets import Static


class Bottom(Static):
    def __init__(self) -> None:
        super().__init__(id="bottom")

    def show(self, bindings: list[ActiveBinding]) -> None:
        line = Text(no_wrap=True, overflow="ellipsis")
        for active in bindings:
            if active.binding.show and active.enabled:
                line.append(f" {self.app.get_key_display(active.binding)} ", "bold cyan")
                line.append(f"{active.binding.description} ")
        self.update(line, layout=False)
