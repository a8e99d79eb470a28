"""A question before something is done: what will happen, and what has to be said for it."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static, TextArea

from console.words import safe


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """`json`: more lines, which are JSON or nothing. `needed`: not empty."""

    name: str
    label: str
    value: str = ""
    json: bool = False
    needed: bool = False


class Dialog(ModalScreen[dict[str, str] | None]):
    """Answers what stands in the fields, or None where it was left with Escape. Enter (in a field of more lines Ctrl+S)
    does it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", priority=True),
        Binding("ctrl+s", "do", "Do it", priority=True),
        Binding("enter", "do", "Do it", show=False),
    ]

    def __init__(self, question: str, fields: list[Field] | None = None) -> None:
        super().__init__()
        self._question = question
        self._fields = fields or []

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="dialog"):
            yield Static(safe(self._question, lines=True), id="question", markup=False)
            for field in self._fields:
                yield Label(field.label, markup=False)
                if field.json:
                    yield TextArea(field.value, id=f"field-{field.name}", tab_behavior="focus")
                else:
                    yield Input(field.value, id=f"field-{field.name}")
            yield Static("", id="fault", markup=False)
            enter = "Ctrl+S" if any(field.json for field in self._fields) else "Enter"
            yield Static(f"{enter}: do it   Escape: leave it", id="keys", markup=False)

    def on_mount(self) -> None:
        fields = self.query("Input, TextArea")
        if fields:
            fields.first().focus()

    @on(Input.Submitted)
    def action_do(self) -> None:
        answer: dict[str, str] = {}
        for field in self._fields:
            text = self._text(field).strip()
            if field.needed and not text:
                self._fault(f"{field.label}: is needed")
                return
            if field.json and text:
                try:
                    msgspec.json.decode(text)
                except msgspec.DecodeError as error:
                    self._fault(f"{field.label}: is not JSON: {error}")
                    return
            answer[field.name] = text
        self.dismiss(answer)

    def action_leave(self) -> None:
        self.dismiss(None)

    def _text(self, field: Field) -> str:
        if field.json:
            return self.query_one(f"#field-{field.name}", TextArea).text
        return self.query_one(f"#field-{field.name}", Input).value

    def _fault(self, text: str) -> None:
        self.query_one("#fault", Static).update(text)
