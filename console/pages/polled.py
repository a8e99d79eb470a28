"""A page of what there is no topic for: it is asked for while the page is there, every few seconds, and after whatever
was done on it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from textual import work
from textual.events import ScreenResume

from console.pages.page import Page
from console.source import FAILURES
from console.words import safe

READ_SECONDS: Final = 5.0


class PolledPage(Page):
    """`problem`: why the last reading failed."""

    problem: str = ""

    @abstractmethod
    async def read(self) -> None:
        """Ask for all that is shown. Raises FAILURES."""

    def on_mount(self) -> None:
        self.set_interval(READ_SECONDS, self._read_if_seen)

    def on_screen_resume(self, event: ScreenResume) -> None:
        super().on_screen_resume(event)
        self.read_now()

    def action_again(self) -> None:
        super().action_again()
        self.read_now()

    def _read_if_seen(self) -> None:
        if self.is_current:
            self.read_now()

    @work(exclusive=True, group="reading")
    async def read_now(self) -> None:
        try:
            await self.read()
        except FAILURES as failure:
            self.problem = safe(str(failure))
        else:
            self.problem = ""
        self.draw()
