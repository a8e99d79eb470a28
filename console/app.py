"""The console as a Textual application: its pages, the keys that lead to them, and the beat at which they are drawn.

Everything that is shown comes out of `source.state`. Drawing goes by the clock, not by what arrives: however many
changes there are, there are a few pictures a second, and a key is answered between two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from console.connection import Connection
from console.pages.executions import ExecutionsPage
from console.pages.page import Page
from console.pages.queues import QueuesPage
from console.pages.services import ServicesPage
from console.source import Source
from enginekit.local import Access

DRAW_SECONDS = 0.25


class ConsoleApp(App[None]):
    """`beat_seconds` None: nothing is drawn by the clock (for pictures of a state that does not move)."""

    TITLE = "engine console"
    CSS_PATH = "console.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-normal"), (120, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (24, "-tall")]
    MODES: ClassVar[dict[str, str | Callable[[], Screen[None]]]] = {
        "services": ServicesPage,
        "queues": QueuesPage,
        "executions": ExecutionsPage,
    }
    DEFAULT_MODE = "services"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "go('services')", "Services", show=False),
        Binding("2", "go('queues')", "Queues", show=False),
        Binding("3", "go('executions')", "Executions", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, source: Source, beat_seconds: float | None = DRAW_SECONDS) -> None:
        super().__init__()
        self.source = source
        self._beat_seconds = beat_seconds

    def on_mount(self) -> None:
        if self._beat_seconds is not None:
            self.set_interval(self._beat_seconds, self._beat)

    def _beat(self) -> None:
        if isinstance(self.screen, Page):
            self.screen.draw()

    async def action_go(self, name: str) -> None:
        await self.switch_mode(name)

    def open_execution(self, workflow_id: str, run_id: str) -> None:
        self.source.look_at(workflow_id, run_id)


async def run_console(access: Access) -> None:
    """Show the console of this daemon in the terminal, until the user leaves."""
    connection = Connection(access)
    app = ConsoleApp(connection)
    async with connection.attached(app.exit):
        await app.run_async()
