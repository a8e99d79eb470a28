"""What a terminal shows that is smaller than 80×24: the sums, and how to see more."""

from __future__ import annotations

from textual.widgets import Static

from console.state import ConsoleState
from console.views import staleness, summary
from console.words import safe


class Small(Static):
    def __init__(self) -> None:
        super().__init__(id="small", markup=False)

    def show(self, state: ConsoleState, now: float) -> None:
        width, height = self.app.size
        problem = [safe(state.link.problem, lines=True)] if state.link.problem else []
        lines = [
            f"engine: {staleness(state.link, now)}",
            *problem,
            "",
            *summary(state),
            "",
            f"This terminal is {width}×{height}; the pages need 80×24.",
            "q: quit",
        ]
        self.update("\n".join(lines))
