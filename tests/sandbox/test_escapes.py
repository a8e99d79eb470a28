"""Every escape in escapes.yaml against real processes: contained, named, and the next call answered."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import trio
from escapes import BEGIN, DOCUMENT, END, rows, table
from sandbox_calls import call, code_node

from enginekit.messages.json import JSON
from enginekit.node import NodeFailure, NodeResult

LIMITS: dict[str, JSON] = {"TimeoutMilliseconds": 1000, "MemoryBytes": 32 * 1024 * 1024, "OutputBytes": 64 * 1024}

LEAVE = {
    "python": "leftover = 'secret'\nimport json\ntry:\n    json.leftover = 1\nexcept Exception:\n    pass\n0",
    "javascript": """
        globalThis.leftover = "secret";
        for (const kind of [Object, Array, Function, String, Promise]) kind.prototype.leftover = "secret";
        Object.prototype.toJSON = () => "secret"; Array.prototype.sort = () => [];
        JSON.parse = () => "secret";
        new Uint8Array(8 << 20).fill(7);
        const late = () => { globalThis.late = 1; };
        Promise.resolve().then(late).then(late);
        0
    """,
}
"""What is run before each row, by another tenant, in the hope that the row sees something of it."""

LANGUAGES = ("python", "javascript")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_was_tried_is_contained(language: str) -> None:
    tried = [row for row in rows() if row["language"] == language]
    wrong: list[str] = []
    async with code_node(language, processes=1) as node:
        for row in tried:
            await node.run(call(LEAVE[language], "secret", tenant="other", **LIMITS))
            found = await attempt(node, row)
            if not agrees(row, found):
                wrong.append(f"{row['tried']} ({row['source'][:60]}): {found}")
            assert "secret" not in found, row
            after = await node.run(call("return input + 1", 1, tenant="third"))
            assert isinstance(after, NodeResult)
            assert after.output == 2, row
    assert not wrong, "\n".join(wrong)
    assert "escaped" not in os.listdir("/tmp")


async def attempt(node: Any, row: dict[str, Any]) -> str:
    with trio.fail_after(60):
        try:
            result = await node.run(call(row["source"], **limits(row)))
        except NodeFailure as failure:
            return str(failure)[: 4096 + 100]
    assert len(result.log) <= 16 * 1024
    return f"={result.output!r}"


def limits(row: dict[str, Any]) -> dict[str, JSON]:
    """What never ends need not be waited for that long."""
    return LIMITS | ({"TimeoutMilliseconds": 300} if "Timeout" in row.get("error", "") else {})


def agrees(row: dict[str, Any], found: str) -> bool:
    if "error" not in row:
        return found == f"={row['output']!r}"
    return re.match(rf"{row['error']}: .*{row.get('cause', '')}", found, re.DOTALL) is not None


def test_enough_was_tried() -> None:
    for language in LANGUAGES:
        assert len([row for row in rows() if row["language"] == language]) >= 40


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table()
