"""What all pages have in common: the line on top, what stands there in trouble, the small picture, the keys' line; and
being drawn anew when the state or the clock has moved on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import ScreenResume
from textual.screen import Screen

from console.source import FAILURES, Source
from console.state import ConsoleState
from console.widgets.bottom import Bottom
from console.widgets.small import Small
from console.widgets.top import Top
from console.widgets.trouble import Trouble
from console.words import safe

if TYPE_CHECKING:
    from console.app import ConsoleApp

NAMES = ["Services", "Queues", "Executions", "Dead letters", "Schedules"]

PARTS = ("Top", "Trouble", "Small", "#body > *", "Bottom")
"""What a whole page has."""

T = TypeVar("T")


class Page(Screen[None]):
    """`NAME` is one of NAMES; `HELP` a few lines for `?`."""

    NAME: ClassVar[str]
    HELP: ClassVar[str]
    AUTO_FOCUS = "VirtualTable"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "again", "Reload", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Top(NAMES, self.NAME)
        yield Trouble()
        yield Small()
        with Vertical(id="body"):
            yield from self.compose_body()
        yield Bottom()

    @abstractmethod
    def compose_body(self) -> ComposeResult: ...

    @abstractmethod
    def show(self, state: ConsoleState, now: float) -> None:
        """Draw this state."""

    @property
    def source(self) -> Source:
        return cast("ConsoleApp", self.app).source

    def draw(self) -> None:
        """Everything, as it is now."""
        if not self.is_mounted or not all(self.query(part) for part in PARTS):
            # It comes, or goes: while a page is taken apart it still counts as mounted, but has nothing to draw on.
            return
        state, now = self.source.state, self.source.now()
        self.query_one(Top).show(state.link, now)
        self.query_one(Trouble).show(state.link)
        if self.has_class("-narrow") or self.has_class("-short"):
            self.query_one(Small).show(state, now)
        else:
            self.show(state, now)

    def on_screen_resume(self, event: ScreenResume) -> None:
        event.refresh_styles = False  # they are what they were when it was left
        self._show_keys()
        self.draw()

    def on_descendant_focus(self) -> None:
        self._show_keys()

    def _show_keys(self) -> None:
        self.query_one(Bottom).show(list(self.active_bindings.values()))

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def action_again(self) -> None:
        self.source.try_again()

    async def attempt(self, call: Awaitable[T]) -> T | None:
        """The answer of a call; where it failed, why is said on the screen."""
        try:
            return await call
        except FAILURES as failure:
            self.notify(safe(str(failure), lines=True), severity="error", markup=False, timeout=8)
            return None
