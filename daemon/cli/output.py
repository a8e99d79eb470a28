"""What commands print: one JSON document, or a table for people. Whatever came from a workflow is made safe for a
terminal first."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """`--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def document(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def safe(text: str) -> str:
    """Without anything that a terminal would obey."""
    return "".join(
        character if unicodedata.category(character) not in ("Cc", "Cf") else f"\\x{ord(character):02x}"
        for character in text
    )


def line(text: str) -> None:
    click.echo(safe(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Ruled on a terminal, aligned in plain text elsewhere."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        ruled = Table(box=SIMPLE, header_style="bold")
        for column in columns:
            ruled.add_column(column, overflow="fold")
        for row in cells:
            ruled.add_row(*(Text(cell) for cell in row))
        Console().print(ruled)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [[column.upper() for column in columns], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(at: datetime | None) -> str:
    """A time in UTC to the millisecond; nothing for none."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def compact(raw: msgspec.Raw, limit: int = 2000) -> str:
    """A payload on one line, cut where it is long."""
    text = bytes(raw).decode(errors="replace")
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"
