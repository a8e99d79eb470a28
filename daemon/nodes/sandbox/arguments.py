"""What may stand in the arguments of the nodes that run code. Pure: judged here, run elsewhere.

The same judgement is passed on a definition, where some values are COMPUTED and count as right, and on what a task is
given.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from daemon.settings import CodeSettings
from enginekit.node import COMPUTED, Argument, ArgumentFault

FIELDS: Final = ("Source", "Input", "TimeoutMilliseconds", "MemoryBytes", "OutputBytes")
LEAST_MEMORY: Final = 1024 * 1024

_NEWER: Final = re.compile(
    r"""[ft]r?["']|rf["']|rt["']|^\s*type\s|\b(?:def|class)\s+\w+\s*\[|^\s*except\*?\s[^(\n]*,|\\""",
    re.MULTILINE | re.I,
)
"""Where a Python that is newer than the daemon's own may read what that does not, or where it would warn."""


def faults_in(arguments: Argument, settings: CodeSettings, language: str) -> Iterator[ArgumentFault]:
    """Every fault in them."""
    if arguments is COMPUTED:
        return
    if not isinstance(arguments, dict):
        yield ArgumentFault("", "must be an object with Source")
        return
    for name in arguments:
        if name not in FIELDS:
            yield ArgumentFault(name[:100], f"is not a field of code:{language} (there are {', '.join(FIELDS)})")
    yield from _source(arguments.get("Source"), settings, language)
    for name, least, most, setting in (
        ("TimeoutMilliseconds", 1, settings.timeout_limit_milliseconds, "timeout_limit_milliseconds"),
        ("MemoryBytes", LEAST_MEMORY, settings.memory_limit_bytes, "memory_limit_bytes"),
        ("OutputBytes", 1, settings.output_limit_bytes, "output_limit_bytes"),
    ):
        value = arguments.get(name)
        if value is None or value is COMPUTED:
            continue
        if type(value) is not int or not least <= value <= most:
            yield ArgumentFault(name, f"must be a whole number from {least} to {most} (code.{setting})")


def _source(source: Argument, settings: CodeSettings, language: str) -> Iterator[ArgumentFault]:
    if source is COMPUTED:
        return
    if not isinstance(source, str) or not source.strip():
        yield ArgumentFault("Source", f"must be the text of a program in {language}")
        return
    size = len(source.encode("utf-8", "replace"))
    if size > settings.source_bytes:
        yield ArgumentFault(
            "Source", f"has {size} bytes, over the limit of {settings.source_bytes} (code.source_bytes)"
        )
    elif "\0" in source:
        yield ArgumentFault("Source", "must not have NUL characters")


def syntax_faults(arguments: Argument, language: str) -> Iterator[ArgumentFault]:
    """What is wrong with a literal Source in the eyes of Python's own parser, where that is sure to be right.

    Only Python has a parser that is safe and quick enough to be used in the daemon itself.
    """
    source = arguments.get("Source") if isinstance(arguments, dict) else None
    if language != "python" or not isinstance(source, str) or _NEWER.search(source):
        return
    try:
        ast.parse(source)
    except SyntaxError as error:
        if not isinstance(error, IndentationError) or "tabs" not in error.msg:
            yield ArgumentFault("Source", f"is not Python: {error.msg} (line {error.lineno}, column {error.offset})")
    except (ValueError, MemoryError, RecursionError):
        return  # Too deep for this parser: the interpreter will have its say.
