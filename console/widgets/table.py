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
from textual.color import Color
from textual.filter import LineFilter
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from console.cells import Cell
from console.words import safe

AHEAD_ROWS = 200
STRIPS_KEPT = 400
_UNDERLINED = Style(underline=True)


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
        self._titles: tuple[Cell, ...] = tuple((column.title, "") for column in self._columns)
        self._fitted: tuple[int, list[int]] = (-1, [])
        self._paint = _Paint()
        self._strips: dict[tuple[tuple[Cell, ...], int, Style], Strip] = {}

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
        self._make_room(Size(self.size.width, len(keys) + 1))
        if moved and self.scroll_y:
            self.scroll_to(y=self.scroll_y + moved, animate=False, immediate=True)
        if self.current != before and self.current is not None:
            self.post_message(self.Moved(self, self.current))
        self.refresh()

    def _make_room(self, size: Size) -> None:
        """What only grows needs no new layout of the page, which a new virtual size is; the scrollbar follows once its
        thumb would be another one."""
        before, seen = self.virtual_size, self.size.height
        if before.width != size.width or before.height > size.height or before.height <= seen < size.height:
            self.virtual_size = size
            return
        self.set_reactive(Widget.virtual_size, size)
        if size.height > seen:
            bar = self.vertical_scrollbar
            if (size.height - bar.window_virtual_size) * seen > bar.window_virtual_size:
                bar.window_virtual_size = size.height

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

    def render_lines(self, crop: Region) -> list[Strip]:
        """Past what Textual does to the lines of widgets with borders, paddings and opacity, of which there is none
        here; and a row that says what it said is the strip that it was, down to the bytes for the terminal."""
        width = self.size.width
        self._paint.prepare(self.get_line_filters(), self.background_colors[1])
        plain = self.get_component_rich_style("table--row")
        cursor = self.get_component_rich_style("table--cursor") if self.has_focus else plain + _UNDERLINED
        top = self.scroll_offset.y - 1
        strips: list[Strip] = []
        for y in crop.line_range:
            row = top + y
            if y == 0:
                strips.append(self._line(self._titles, width, self.get_component_rich_style("table--title")))
            elif row < len(self._keys):
                strips.append(self._line(tuple(self._cells(row)), width, cursor if row == self._cursor else plain))
            else:
                strips.append(self._blank(f" {safe(self._empty)}" if y == 1 and not self._keys else "", width, plain))
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def _blank(self, text: str, width: int, style: Style) -> Strip:
        known = (((text, ""),), width, style)
        if known not in self._strips:
            self._strips[known] = Strip([Segment(set_cell_size(text, width), self._paint.style(style, ""))], width)
        return self._strips[known]

    def _line(self, cells: tuple[Cell, ...], width: int, style: Style) -> Strip:
        known = (cells, width, style)
        strip = self._strips.get(known)
        if strip is None:
            if len(self._strips) > STRIPS_KEPT:
                self._strips.clear()
            strip = self._strips[known] = self._drawn(cells, width, style)
        return strip

    def _drawn(self, cells: tuple[Cell, ...], width: int, style: Style) -> Strip:
        """Neighbours of one look are one segment."""
        segments: list[Segment] = []
        text, look = " ", self._paint.style(style, "")
        for column, (said, colour), wide in zip(self._columns, cells, self._widths(width), strict=True):
            own = self._paint.style(style, colour)
            if own is not look:
                segments.append(Segment(text, look))
                text, look = "", own
            text += f"{_fitted(said, wide, column.right)} "
        segments.append(Segment(text, look))
        return Strip(segments).adjust_cell_length(width, self._paint.style(style, ""))

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


class _Paint:
    """Styles as the screen has them: what Textual's filters make of a look, once for each."""

    def __init__(self) -> None:
        self._for: tuple[tuple[LineFilter, ...], Color] | None = None
        self._styles: dict[tuple[Style, str], Style] = {}

    def prepare(self, filters: Sequence[LineFilter], background: Color) -> None:
        now = (tuple(filters), background)
        if now != self._for:
            self._for = now
            self._styles.clear()

    def style(self, style: Style, colour: str) -> Style:
        """`style` with this colour, in rich's words."""
        painted = self._styles.get((style, colour))
        if painted is None and self._for is not None:
            filters, background = self._for
            segments = [Segment(" ", style + Style.parse(colour) if colour else style)]
            for each in filters:
                segments = each.apply(segments, background)
            painted = self._styles[(style, colour)] = segments[0].style or style
        return painted or style


def _fitted(text: str, wide: int, right: bool) -> str:
    if text.isascii() and text.isprintable():
        if len(text) > wide:
            return f"{text[: max(wide - 1, 0)]}…"
        return text.rjust(wide) if right else text.ljust(wide)
    text = safe(text)
    if cell_len(text) > wide:
        text = set_cell_size(text, max(wide - 1, 0)) + "…"
    return " " * (wide - cell_len(text)) + text if right else set_cell_size(text, wide)
