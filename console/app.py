"""The console as a Textual application: its pages, the keys that lead to them, and the beat at which they are drawn.

Everything that is shown comes out of `source.state`. Drawing goes by the clock, not by what arrives: however many
changes there are, there are a few pictures a second, and a key is answered between two of them.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.events import Event, Key
from textual.screen import Screen
from textual.theme import Theme

from console.collecting import collecting
from console.connection import Connection
from console.dialogs.help import Help
from console.pages.execution import ExecutionPage
from console.pages.executions import ExecutionsPage
from console.pages.letters import LettersPage
from console.pages.page import Page
from console.pages.queues import QueuesPage
from console.pages.schedules import SchedulesPage
from console.pages.services import ServicesPage
from console.source import Source
from enginekit.local import Access

DRAW_SECONDS = 0.25
ANSWER_SECONDS = 0.1
"""A key is being answered so long; the beat does not come in between."""
LEFT_OUT_AT_MOST = 3
"""Beats, one after the other, for somebody who holds a key down."""
_UNNAMED = ("scroll_", "page_", "app.focus_", "screen.", "command_palette", "maximize", "minimize")
"""Actions of Textual's own that need no line in the help."""


class ConsoleApp(App[None]):
    """`beat_seconds` None: nothing is drawn by the clock (for pictures of a state that does not move). `after_beat` is
    told how long ago the last key was, in seconds."""

    TITLE = "engine console"
    CSS_PATH = "console.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-normal"), (120, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (24, "-tall")]
    MODES: ClassVar[dict[str, str | Callable[[], Screen[None]]]] = {
        "services": ServicesPage,
        "queues": QueuesPage,
        "executions": ExecutionsPage,
        "letters": LettersPage,
        "schedules": SchedulesPage,
    }
    DEFAULT_MODE = "services"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "go('services')", "Services", show=False),
        Binding("2", "go('queues')", "Queues", show=False),
        Binding("3", "go('executions')", "Executions", show=False),
        Binding("4", "go('letters')", "Dead letters", show=False),
        Binding("5", "go('schedules')", "Schedules", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("ctrl+p", "command_palette", "Commands", priority=True, show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        source: Source,
        beat_seconds: float | None = DRAW_SECONDS,
        after_beat: Callable[[float], None] = lambda quiet: None,
    ) -> None:
        super().__init__()
        self.source = source
        self._beat_seconds = beat_seconds
        self._after_beat = after_beat
        self._key_at = time.monotonic()
        self._left_out = 0
        self._styled_for: Theme | None = None

    def on_mount(self) -> None:
        if self._beat_seconds is not None:
            self.set_interval(self._beat_seconds, self._beat)

    def delay_update(self, delay: float = 0.05) -> None:
        """Textual draws nothing for so long after every change of page, to hide a page's coming together. Ours are
        whole before they are drawn, and whoever pressed the key waits."""

    def refresh_css(self, animate: bool = True) -> None:
        """Textual reads all styles anew at the first two visits to each page, which takes longer than to draw it.
        A page's own are read as it is put together; all the others stay as they are while the theme does."""
        if self._styled_for is not self.current_theme:
            self._styled_for = self.current_theme
            super().refresh_css(animate)

    def _beat(self) -> None:
        quiet = time.monotonic() - self._key_at
        self._left_out = self._left_out + 1 if quiet < ANSWER_SECONDS else 0
        if 0 < self._left_out < LEFT_OUT_AT_MOST:
            return
        self._left_out = 0
        pages = self.screen_stack  # there is none any more while the console is left
        if pages and isinstance(pages[-1], Page):
            pages[-1].draw()
        self._after_beat(quiet)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Key):
            self._key_at = time.monotonic()
        await super().on_event(event)

    def action_help(self) -> None:
        """What can be done here."""
        if isinstance(self.screen, Page):
            self.push_screen(
                Help(self.screen.NAME, self.screen.HELP, [(key, what) for key, what, _ in self._keys(self.screen)])
            )

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Everything that has a key, by its name."""
        for key, what, run in self._keys(screen):
            yield SystemCommand(what, f"key {key}", run)

    def _keys(self, screen: Screen[Any]) -> list[tuple[str, str, Callable[[], object]]]:
        """Every key of the page that is there: how it is written, what it does, and that."""
        found: dict[tuple[DOMNode, str], list[str]] = {}
        bindings: dict[tuple[DOMNode, str], Binding] = {}
        for active in screen.active_bindings.values():
            place = (active.node, active.binding.action)
            action = active.binding.action
            if active.binding.description and active.enabled and not action.startswith(_UNNAMED):
                found.setdefault(place, []).append(self.get_key_display(active.binding))
                bindings[place] = active.binding
        places = sorted(found, key=lambda place: (place[0] is not screen, place[0] is not self))
        return [
            (
                ", ".join(dict.fromkeys(found[place])),
                bindings[place].description,
                partial(self.run_action, bindings[place].action, place[0]),
            )
            for place in places
        ]

    async def action_go(self, name: str) -> None:
        if name == self.current_mode and isinstance(self.screen, ExecutionPage):
            self.screen.leave()
        await self.switch_mode(name)

    def open_execution(self, workflow_id: str, run_id: str) -> None:
        """Look at this execution, on a page above the one that is there. A second click of a double one opens none."""
        if isinstance(self.screen, ExecutionPage):
            return
        self.source.look_at(workflow_id, run_id)
        self.push_screen(ExecutionPage())


async def run_console(access: Access) -> None:
    """Show the console of this daemon in the terminal, until the user leaves, or SIGTERM ends it: whoever dies of that
    leaves a terminal behind that shows nothing one types."""
    connection = Connection(access)
    app = ConsoleApp(connection, after_beat=collecting())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.exit)
    async with connection.attached(app.exit):
        await app.run_async()
