"""What a JSONPath is once it is read: a tree of plain values. And the cursor that reads one."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from daemon.language.errors import Malformed
from daemon.language.jsonata.patterns import Pattern
from enginekit.messages.json import JSON

MAX_NESTING: Final = 20
"""How deep brackets, negations and paths may nest in one another within one path."""

SPACE: Final = " \t\r\n"


class Wildcard(NamedTuple):
    """`*`"""


class Slice(NamedTuple):
    """`[start:end:step]`"""

    start: int | None
    end: int | None
    step: int | None


class Names(NamedTuple):
    """`['a','b']`"""

    names: tuple[str, ...]


class Indices(NamedTuple):
    """`[0,2]`"""

    indices: tuple[int, ...]


class Descend(NamedTuple):
    """`..`; the token after it is looked for everywhere below."""


class Filter(NamedTuple):
    """`[?(condition)]`"""

    condition: Condition


class Function(NamedTuple):
    """`.name(arguments)`"""

    name: str
    arguments: tuple[JSON, ...]


Token: TypeAlias = "str | int | Wildcard | Slice | Names | Indices | Descend | Filter | Function"


class PathTree(NamedTuple):
    """A path. `root` is `$` (the input), `$$` (the context object), `$name` (a variable) or, in a filter, `@`."""

    root: str
    tokens: tuple[Token, ...]

    def variables(self) -> set[str]:
        """The variables it refers to, those in its filters too."""
        found = {self.root[1:]} if is_variable(self.root) else set()
        for token in self.tokens:
            if isinstance(token, Filter):
                found |= _variables_of(token.condition)
        return found


def is_variable(root: str) -> bool:
    """Whether a path's root is a variable."""
    return len(root) > 1 and root != "$$"


class Literal(NamedTuple):
    """A value written in a filter."""

    value: JSON


class Compare(NamedTuple):
    """`left operator right`"""

    operator: str
    left: Literal | PathTree
    right: Literal | PathTree


class Matches(NamedTuple):
    """`left =~ /pattern/`: the whole text matches."""

    left: Literal | PathTree
    pattern: Pattern


class Exists(NamedTuple):
    """A path alone: whether it leads anywhere."""

    path: PathTree


class Not(NamedTuple):
    """`!condition`"""

    condition: Condition


class And(NamedTuple):
    """`a && b`"""

    conditions: tuple[Condition, ...]


class Or(NamedTuple):
    """`a || b`"""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = "Compare | Matches | Exists | Not | And | Or | Literal"


def _variables_of(condition: Condition) -> set[str]:
    if isinstance(condition, Compare):
        sides = (condition.left, condition.right)
        return set().union(*(side.variables() for side in sides if isinstance(side, PathTree)))
    if isinstance(condition, Matches):
        return condition.left.variables() if isinstance(condition.left, PathTree) else set()
    if isinstance(condition, Exists):
        return condition.path.variables()
    if isinstance(condition, Not):
        return _variables_of(condition.condition)
    if isinstance(condition, (And, Or)):
        return set().union(*map(_variables_of, condition.conditions))
    return set()


class Cursor:
    """Text and how far it has been read."""

    __slots__ = ("depth", "position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def peek(self) -> str:
        """The next character, or nothing at the end."""
        return self.text[self.position : self.position + 1]

    def accept(self, wanted: str) -> bool:
        """Read over `wanted` if it comes next."""
        if self.text.startswith(wanted, self.position):
            self.position += len(wanted)
            return True
        return False

    def expect(self, wanted: str, what: str) -> None:
        """Read over `wanted`, which must come next."""
        if not self.accept(wanted):
            raise self.malformed(f'expected "{wanted}" {what}, found {self.found()}')

    def skip_space(self) -> None:
        """Read over white space."""
        while self.position < len(self.text) and self.text[self.position] in SPACE:
            self.position += 1

    def found(self) -> str:
        """The next character, for a message."""
        return f'"{self.peek()}"' if self.position < len(self.text) else "the end"

    def malformed(self, reason: str, position: int | None = None) -> Malformed:
        """The error to raise for what stands here."""
        return Malformed(reason, (self.position if position is None else position) + 1)

    def enter(self) -> None:
        """Go one level deeper."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self.malformed(f"nested more than {MAX_NESTING} levels deep")

    def leave(self) -> None:
        """Come back from a level."""
        self.depth -= 1
