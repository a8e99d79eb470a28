"""A table of any number of rows, of which only those on the screen are made: a line each, a cursor, one row of titles.

It is given the rows' keys and a function that makes the cells of one. The cursor stays on its row while rows come and
go around it; on the first row it stays first, so that the newest is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.cells import Cell

AHEAD_ROWS = 200


class Column(NamedTuple):
    """`width` 0: what the others leave, shared equally. `right`: numbers."""

    title: str
    width: int
    right: bool = False


class VirtualTable(ScrollView, can_focus=True):
    """Posts Chosen on Enter or a click, Moved when the cursor has moved, NearEnd when the last rows come into sight."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "leap(-1)", "Page up", show=False),
        Binding("pagedown", "leap(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First", show=False),
        Binding("end,G", "edge(1)", "Last", show=False),
        Binding("enter", "choose", "Open", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--title", "table--cursor", "table--row"}

    class AboutRow(Message):
        def __init__(self, table: VirtualTable, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> VirtualTable:
            return self.table

    class Chosen(AboutRow):
        pass

    class Moved(AboutRow):
        pass

    class NearEnd(Message):
        pass

    def __init__(self, columns: Sequence[Column], *, empty: str = "none", id: str | None = None) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._keys: Sequence[str] = ()
        self._cells: Callable[[int], Sequence[Cell]] = lambda index: ()
        self._empty = empty
        self._cursor = 0
        self._fitted: tuple[int, list[int]] = (-1, [])

    @property
    def cursor(self) -> int:
        return self._cursor

    @property
    def current(self) -> str | None:
        """The key of the row that the cursor is on."""
        return self._keys[self._cursor] if self._cursor < len(self._keys) else None

    def show(self, keys: Sequence[str], cells: Callable[[int], Sequence[Cell]], empty: str | None = None) -> None:
        """These rows from now on; `cells` makes those of one, by its place. `empty`: what stands there for none."""
        before = self.current
        if empty is not None:
            self._empty = empty
        self._cells = cells
        moved = 0
        if self._cursor and before is not None:
            place = self._place(keys, before)
            moved = place - self._cursor
        self._keys = keys
        self._cursor = max(0, min(self._cursor + moved, len(keys) - 1))
        self.virtual_size = Size(self.size.width, len(keys) + 1)
        if moved and self.scroll_y:
            self.scroll_to(y=self.scroll_y + moved, animate=False, immediate=True)
        if self.current != before and self.current is not None:
            self.post_message(self.Moved(self, self.current))
        self.refresh()

    def _place(self, keys: Sequence[str], key: str) -> int:
        if self._cursor < len(keys) and keys[self._cursor] == key:
            return self._cursor
        try:
            return list(keys).index(key)
        except ValueError:
            return self._cursor

    # --- moving --------------------------------------------------------------------------------------------------

    def action_move(self, rows: int) -> None:
        self.move_to(self._cursor + rows)

    def action_leap(self, pages: int) -> None:
        self.move_to(self._cursor + pages * max(1, self.size.height - 2))

    def action_edge(self, end: int) -> None:
        self.move_to(0 if end < 0 else len(self._keys) - 1)

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self, self.current))

    def move_to(self, row: int) -> None:
        row = max(0, min(row, len(self._keys) - 1))
        if row != self._cursor:
            self._cursor = row
            if self.current is not None:
                self.post_message(self.Moved(self, self.current))
        self.scroll_to_region(Region(0, row, 1, 2), animate=False, immediate=True, force=True)
        self._tell_end()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        row = self.scroll_offset.y + event.y - 1
        if event.y > 0 and row < len(self._keys):
            self.move_to(row)
            self.action_choose()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._keys) + 1)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._tell_end()

    def _tell_end(self) -> None:
        if max(self._cursor, self.scroll_offset.y + self.size.height) + AHEAD_ROWS >= len(self._keys):
            self.post_message(self.NearEnd())

    # --- drawing -------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            title = self.get_component_rich_style("table--title")
            return self._line([(column.title, "") for column in self._columns], width, title)
        plain = self.get_component_rich_style("table--row")
        row = self.scroll_offset.y + y - 1
        if not self._keys and y == 1:
            return Strip([Segment(set_cell_size(f" {self._empty}", width), plain)], width)
        if row >= len(self._keys):
            return Strip.blank(width, plain)
        style = self.get_component_rich_style("table--cursor") if row == self._cursor and self.has_focus else plain
        if row == self._cursor and not self.has_focus:
            style += Style(underline=True)
        return self._line(self._cells(row), width, style)

    def _line(self, cells: Sequence[Cell], width: int, style: Style) -> Strip:
        segments = [Segment(" ", style)]
        for column, cell, wide in zip(self._columns, cells, self._widths(width), strict=True):
            text = cell[0].replace("\n", " ")
            if cell_len(text) > wide:
                text = set_cell_size(text, max(wide - 1, 0)) + "…"
            text = " " * (wide - cell_len(text)) + text if column.right else set_cell_size(text, wide)
            segments.append(Segment(text + " ", style + Style.parse(cell[1]) if cell[1] else style))
        return Strip(segments).adjust_cell_length(width, style)

    def _widths(self, width: int) -> list[int]:
        if self._fitted[0] != width:
            self._fitted = (width, self._fit(width))
        return self._fitted[1]

    def _fit(self, width: int) -> list[int]:
        left = width - 1 - sum(column.width + 1 for column in self._columns)
        stretching = [at for at, column in enumerate(self._columns) if column.width == 0]
        widths = [column.width for column in self._columns]
        for place, at in enumerate(stretching):
            share = left // len(stretching) + (1 if place < left % len(stretching) else 0)
            widths[at] = max(share, 4)
        return widths
