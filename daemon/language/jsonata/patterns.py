"""Regular expressions, matched by RE2: in time that grows with the text alone, whatever the pattern.

What RE2 cannot do in linear time (backreferences, looking around) is refused when the expression is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import re2

MAX_PATTERN: Final = 1_000
_MAX_MEMORY: Final = 1024 * 1024
"""What RE2 may use for one pattern: a large counted repetition is refused."""


compile_linear: Callable[..., Any] = re2.compile
"""RE2's own, which it does not type."""


class BadPattern(Exception):
    """A pattern that cannot be used."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"the pattern /{pattern[:40]}/ cannot be used: {reason}")
        self.pattern = pattern


class Match(NamedTuple):
    """Where a pattern was found: the text, where it begins and ends, and what its groups found (None for nothing)."""

    text: str
    start: int
    end: int
    groups: list[str | None]


class Pattern:
    """A compiled pattern."""

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str, compiled: Any) -> None:
        self.source = source
        self._compiled = compiled

    def find(self, text: str, spend: Callable[[int], None]) -> Iterator[Match]:
        """Every match, one after the other. `spend` is told what looking for it may cost."""
        spend((len(text) >> 3) + 1)
        for found in self._compiled.finditer(text):
            # Looking for the next one may go through all that is left, however near it is.
            spend(25 + len(found.groups()) + ((len(text) - found.start()) >> 9))
            yield Match(found[0], found.start(), found.end(), list(found.groups()))


def compile_pattern(source: str, flags: Any) -> Pattern:
    """Compile a pattern as it stands between the slashes. `flags` has `case_insensitive` and `multiline`.

    Raises BadPattern.
    """
    if len(source) > MAX_PATTERN:
        raise BadPattern(source, f"it has more than {MAX_PATTERN:,} characters")
    options = re2.Options()
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.case_sensitive = not flags.case_insensitive
    prefix = "(?m)" if flags.multiline else ""
    try:
        compiled = compile_linear(prefix + source.replace("\\/", "/"), options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        detail = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise BadPattern(source, detail) from None
    return Pattern(source, compiled)
