"""Regular expressions, matched by RE2: in time that grows with the text alone, whatever the pattern.

What RE2 cannot do in linear time (backreferences, looking around) is refused when the expression is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import re2

MAX_PATTERN: Final = 1_000
_MAX_MEMORY: Final = 1024 * 1024
_PROBE_MEMORY: Final = 64 * 1024
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
    """A compiled pattern.

    RE2 matches in time that grows with the text times the pattern at worst, so that is what the first look for a match
    costs. Every further one may go through all that is left of the text, but only where something in the pattern
    repeats without bound; and that is slow only where the pattern has many parts, which have too many states together
    for RE2 to remember.
    """

    __slots__ = ("_compiled", "_endless", "_many", "_size", "source")

    def __init__(self, source: str, compiled: Any) -> None:
        self.source = source
        self._compiled = compiled
        self._size: int = compiled.programsize
        parts, self._endless = _shape(source)
        self._many = parts > _FEW_PARTS

    def find(self, text: str, spend: Callable[[int], None]) -> Iterator[Match]:
        """Every match, one after the other. `spend` is told what looking for it may cost."""
        size = self._size
        spend((len(text) * size >> 5) + 1)
        for found in self._compiled.finditer(text):
            left = len(text) - found.start()
            if not self._endless:
                again = min(left, size) * size >> 5
            elif self._many:
                again = left * size >> 5
            else:
                again = left >> 7
            spend(25 + len(found.groups()) + again)
            yield Match(found[0], found.start(), found.end(), list(found.groups()))

    def matches(self, text: str, spend: Callable[[int], None]) -> bool:
        """Whether it matches the text as a whole."""
        spend((len(text) * self._size >> 5) + 1)
        return self._compiled.fullmatch(text) is not None


_FEW_PARTS: Final = 10
_COUNTS: Final = re.compile(r"\{([0-9]{1,9})(,?)([0-9]{0,9})\}")
_NAMED_CLASS: Final = re.compile(r"\[:\^?\w+:\]")
_GROUP_BEGINS: Final = re.compile(r"\(\?(?:P?<\w+>|[a-zA-Z-]*[:)])")


def _shape(source: str) -> tuple[int, bool]:
    """How many parts that match a character a pattern has, written out, and whether any repeats without bound."""
    counts = [0]
    last = 0
    endless = False
    position = 0
    while position < len(source):
        character = source[position]
        position += 1
        if character in "*+":
            endless = True
        elif character == "{" and (times := _COUNTS.match(source, position - 1)) is not None:
            endless = endless or (bool(times[2]) and not times[3])
            counts[-1] += last * (max(int(times[1]), int(times[3] or 0)) - 1)
            position = times.end()
        elif character == "(":
            begins = _GROUP_BEGINS.match(source, position - 1)
            position = begins.end() if begins is not None else position
            if begins is None or not begins[0].endswith(")"):
                counts.append(0)
        elif character == ")":
            last = counts.pop() if len(counts) > 1 else last
            counts[-1] += last
        elif character not in "|^$?":
            if character == "[":
                position = _class_end(source, position)
            elif character == "\\":
                position += 1
            last = 1
            counts[-1] += 1
    return sum(counts), endless


def _class_end(source: str, position: int) -> int:
    """Behind the bracket that closes the class whose inside begins here."""
    start = position + source.startswith("^", position)
    position = start
    while position < len(source):
        named = _NAMED_CLASS.match(source, position)
        if named is not None:
            position = named.end()
            continue
        if source[position] == "]" and position > start:
            break
        position += 2 if source[position] == "\\" else 1
    return position + 1


def compile_pattern(source: str, flags: Any) -> Pattern:
    """Compile a pattern as it stands between the slashes. `flags` has `case_insensitive` and `multiline`.

    Raises BadPattern.
    """
    if len(source) > MAX_PATTERN:
        raise BadPattern(source, f"it has more than {MAX_PATTERN:,} characters")
    # A large pattern takes long to compile: what does not fit into little memory is refused at little cost.
    _compiled(source, flags, _PROBE_MEMORY)
    return Pattern(source, _compiled(source, flags, _MAX_MEMORY))


def _compiled(source: str, flags: Any, memory: int) -> Any:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    options.case_sensitive = not flags.case_insensitive
    prefix = "(?m)" if flags.multiline else ""
    try:
        return compile_linear(prefix + source.replace("\\/", "/"), options=options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        detail = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise BadPattern(source, detail) from None
