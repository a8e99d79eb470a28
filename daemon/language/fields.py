"""Reading a definition's fields with their types checked, and gathering what is wrong with them.

Every reader reports what it finds and answers something harmless, so that one pass finds every fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Final, TypeAlias

from daemon.language.definition import Fault
from daemon.language.values import kind
from daemon.language.variables import VariableScope
from enginekit.messages.json import JSON
from enginekit.node import Argument, ArgumentFault

ArgumentCheck: TypeAlias = Callable[[str, Argument], Iterable[ArgumentFault]]
"""What a node type (its name) has against arguments."""

MAX_FAULTS: Final = 1_000
_MAX_SUGGESTIONS: Final = 25
_MAX_COMPARED: Final = 10_000
"""How many characters of names that may have been meant are looked at in all."""
MAX_EXPRESSIONS: Final = 256 * 1024
"""How many characters of JSONata a definition may have in all, each expression counted for some more than it has."""
_EACH_EXPRESSION: Final = 30
MAX_PATTERNS: Final = 100

MAX_COUNT: Final = 2**31 - 1
LONGEST_SECONDS: Final = 99_999_999
"""The most seconds that a definition may name anywhere."""


class Findings:
    """What is wrong with a definition, and what is only worth a warning; the names used in it so far, and the
    variables of the machine being read."""

    def __init__(self, node_types: frozenset[str] | None, check: ArgumentCheck | None = None) -> None:
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self.names: dict[str, str] = {}
        self.node_types = node_types
        self.check = check
        self.variables = VariableScope()
        self._untold = 0
        self._suggestions = 0
        self._compared = _MAX_COMPARED
        self._expressions = MAX_EXPRESSIONS
        self._patterns = MAX_PATTERNS

    def fault(self, path: str, message: str) -> None:
        """Note a fault."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(path, message))
        else:
            self._untold += 1

    def warn(self, path: str, message: str) -> None:
        """Note a warning."""
        if len(self.warnings) < MAX_FAULTS:
            self.warnings.append(Fault(path, message))

    def all_faults(self) -> tuple[Fault, ...]:
        """The faults, and how many more there were than anybody would read."""
        more = (Fault("", f"and {self._untold:,} more faults"),) if self._untold else ()
        return (*self.faults, *more)

    def room_for(self, text: str, path: str) -> bool:
        """Account for an expression before it is read, which takes time. False where there are too many of them; that
        is reported once."""
        before, self._expressions = self._expressions, self._expressions - len(text) - _EACH_EXPRESSION
        if before >= 0 > self._expressions:
            self.fault(
                path, f"this is one expression too many: all together have {MAX_EXPRESSIONS:,} characters at most"
            )
        return self._expressions >= 0

    def count_patterns(self, patterns: int, path: str) -> None:
        """Account for regular expressions."""
        before, self._patterns = self._patterns, self._patterns - patterns
        if before >= 0 > self._patterns:
            self.fault(path, f"this is one regular expression too many: a definition has {MAX_PATTERNS} at most")
            self._expressions = -1

    def suggest(self, name: str, candidates: Iterable[str]) -> str:
        """`; did you mean "X"?` for the candidate most like the name, or nothing."""
        if self._suggestions >= _MAX_SUGGESTIONS:
            return ""
        self._suggestions += 1
        known: list[str] = []
        for each in candidates:
            self._compared -= len(each)
            if self._compared < 0:
                break
            known.append(each)
        near = get_close_matches(name[:80], known, 1) or [each for each in known if each.lower() == name.lower()][:1]
        return f'; did you mean "{near[0]}"?' if near else ""


class Fields:
    """One object of the definition at a path, read field by field. `jsonata`: its expressions are JSONata, else
    JSONPath. `place` is where it stands in its state (empty for the state itself), as causes name it."""

    def __init__(
        self, findings: Findings, where: str, values: dict[str, JSON], jsonata: bool = False, place: str = ""
    ) -> None:
        self.findings = findings
        self.where = where
        self.place = place
        self.values = values
        self.jsonata = jsonata

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def path(self, name: str) -> str:
        """The path of a field."""
        return f"{self.where}.{name}" if self.where else name

    def label(self, name: str) -> str:
        """Where a field stands in its state."""
        return f"{self.place}/{name}" if self.place else name

    def fault(self, name: str, message: str) -> None:
        """Note a fault of a field."""
        self.findings.fault(self.path(name), message)

    def _wrong(self, name: str, wanted: str) -> None:
        self.fault(name, f"must be {wanted}, not {kind(self.values[name])}")

    def text(self, name: str) -> str | None:
        """A string, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, str):
            return value
        if name in self.values:
            self._wrong(name, "a string")
        return None

    def flag(self, name: str) -> bool | None:
        """A boolean, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, bool):
            return value
        if name in self.values:
            self._wrong(name, "true or false")
        return None

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number in a range, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            if least <= value <= most:
                return value
            self.fault(name, f"must be from {least:,} to {most:,}, not {_shown(value)}")
        elif isinstance(value, float):
            self.fault(name, f"must be a whole number, not {value}")
        elif name in self.values:
            self._wrong(name, "a whole number")
        return None

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number in a range, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if least <= value <= most:
                return float(value)
            self.fault(name, f"must be from {_shown(least)} to {_shown(most)}, not {_shown(value)}")
        elif name in self.values:
            self._wrong(name, "a number")
        return None

    def object(self, name: str) -> Fields | None:
        """An object, None where there is none."""
        value = self.values.get(name)
        if isinstance(value, dict):
            return Fields(self.findings, self.path(name), value, self.jsonata, self.label(name))
        if name in self.values:
            self._wrong(name, "an object")
        return None

    def objects(self, name: str, *, empty: bool = False) -> list[Fields]:
        """An array of objects. Without `empty` there must be one at least."""
        value = self.values.get(name)
        if not isinstance(value, list):
            if name in self.values:
                self._wrong(name, "an array")
            return []
        if not value and not empty:
            self.fault(name, "must not be empty")
        made: list[Fields] = []
        for index, item in enumerate(value):
            if isinstance(item, dict):
                here = f"[{index}]"
                made.append(Fields(self.findings, self.path(name) + here, item, self.jsonata, self.label(name) + here))
            else:
                self.fault(f"{name}[{index}]", f"must be an object, not {kind(item)}")
        return made

    def only(self, names: Iterable[str], what: str) -> None:
        """Note every field that is not one of these. `what` the object is, for the message."""
        known = list(names)
        for name in self.values:
            if name not in known:
                self.fault(name, f"{what} has no such field{self.findings.suggest(name, known)}")


def _shown(number: float) -> str:
    if abs(number) >= 10**15:
        return f"{float(number):g}" if abs(number) < 10**300 else "a huge number"
    return f"{int(number):,}" if number == int(number) else f"{number:,}"
