"""The escapes that were tried, read from escapes.yaml, and the table that docs/sandbox.md has of them.

`python tests/sandbox/escapes.py` writes the table anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROWS = Path(__file__).with_name("escapes.yaml")
DOCUMENT = Path(__file__).parents[2] / "docs" / "sandbox.md"
BEGIN, END = "<!-- escapes: begin -->", "<!-- escapes: end -->"

NAMES = {"python": "Python", "javascript": "JavaScript"}


def rows() -> list[dict[str, Any]]:
    """Every row, with its source as text."""
    found: list[dict[str, Any]] = yaml.safe_load(ROWS.read_text())
    for row in found:
        if "repeat" in row:
            text, times = row["repeat"]
            row["source"] = text * times
        row["source"] = str(row["source"])
    return found


def outcome(row: dict[str, Any]) -> str:
    """What the row comes to, for a person."""
    if "error" not in row:
        return "nothing to be had"
    names = row["error"].removeprefix("Code\\.(").removesuffix(")").split("|")
    errors = " or ".join(f"`Code.{name.removeprefix('Code.')}`" for name in names)
    cause = row.get("cause", "")
    return f"{errors} ({cause})" if cause else errors


def table() -> str:
    lines = ["| Tried | In | Outcome |", "| --- | --- | --- |"]
    lines += [f"| {row['tried']} | {NAMES[row['language']]} | {outcome(row)} |" for row in rows()]
    return "\n".join(lines)


if __name__ == "__main__":
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")
