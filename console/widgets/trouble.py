"""What is shown below the first line when there is no connection: why, and what to do."""

from __future__ import annotations

from textual.widgets import Static

from console.state import Link, Standing
from console.words import safe


class Trouble(Static):
    """Not there while all is well."""

    def __init__(self) -> None:
        super().__init__(id="trouble", markup=False)
        self.display = False
        self._shown: tuple[Standing, str] | None = None

    def show(self, link: Link) -> None:
        if (link.standing, link.problem) == self._shown:
            return
        self._shown = (link.standing, link.problem)
        self.display = link.standing is not Standing.LIVE
        self.set_class(link.standing is Standing.REFUSED, "-refused")
        problem = safe(link.problem, lines=True)
        if link.standing is Standing.REFUSED:
            self.update(
                f"The daemon does not let this console in.\n{problem}\n"
                "Leave with q and come back with a token that is valid (ENGINE_TOKEN, from `engine token`); "
                "ctrl+r tries again."
            )
        elif link.standing is Standing.LOST:
            self.update(f"The connection is lost, and is being made again. What you see is old.\n{problem}")
        elif link.standing is Standing.CONNECTING:
            self.update(f"Looking for the daemon …\n{problem}")
