"""docs/language.md names every argument, output and error of the model nodes, and which errors pass by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ai_bench import Bench

from daemon.execution.transient import is_transient
from daemon.nodes.ai.answer import StopReason
from daemon.nodes.ai.arguments import FIELDS
from daemon.nodes.ai.errors import AiError

TEXT = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
SECTION = TEXT[TEXT.index("## The `ai:openai`") :].partition("\n## ")[0]


@pytest.mark.parametrize("name", [*FIELDS, *(reason.value for reason in StopReason)])
def test_every_word_is_documented(name: str) -> None:
    assert f"`{name}`" in SECTION


@pytest.mark.parametrize("error", AiError)
def test_every_error_is_documented(error: AiError) -> None:
    (row,) = re.findall(rf"^\| `{error.value}` \|.*\| ?(.*) \|$", SECTION, re.MULTILINE)
    assert (row == "yes") == is_transient(error.value, "ai:openai", {})


async def test_every_output_is_documented(bench: Bench) -> None:
    result = await bench.answered(bench.events("{}"), ResponseSchema={"type": "object"})
    assert isinstance(result.output, dict)
    for name in result.output:
        assert f"| `{name}` |" in SECTION
