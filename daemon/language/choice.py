"""Choice Rules, compiled: the comparison operators and what And, Or and Not make of them.

A comparison of values that are not both of the operator's type does not hold, as in the reference service. A `Variable`
that leads nowhere is an error (States.Runtime) for every operator but IsPresent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

from daemon.language.causes import of_rule
from daemon.language.definition import Rule
from daemon.language.errors import Failed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonpath import Path
from daemon.language.template import placed
from daemon.language.timestamps import order_of
from daemon.language.values import is_number
from enginekit.messages.json import JSON

Test: TypeAlias = Callable[[JSON, JSON], bool]
"""(the variable's value, the value compared with) -> whether the comparison holds."""


def comparison(variable: Path, test: Test, wanted: JSON) -> Rule:
    """A comparison with a value written in the definition."""
    read = placed(variable.read, of_rule(variable.text))
    return lambda value, evaluation: test(read(value, evaluation), wanted)


def comparison_with_path(variable: Path, test: Test, other: Path) -> Rule:
    """A comparison with the value at another path."""
    read = placed(variable.read, of_rule(variable.text))
    read_other = placed(other.read, of_rule(other.text))
    return lambda value, evaluation: test(read(value, evaluation), read_other(value, evaluation))


def presence(variable: Path, wanted: bool) -> Rule:
    """IsPresent: whether the variable leads anywhere."""
    read = variable.read
    phrase = of_rule(variable.text)

    def holds(value: JSON, evaluation: Evaluation) -> bool:
        try:
            found = read(value, evaluation)
        except Failed as failed:
            if failed.error:
                raise phrase(failed, value) from None
            return not wanted
        return (variable.reference is not None or found != []) is wanted

    return holds


def all_of(rules: tuple[Rule, ...]) -> Rule:
    """And: as far as the first that does not hold."""
    return lambda value, evaluation: all(rule(value, evaluation) for rule in rules)


def any_of(rules: tuple[Rule, ...]) -> Rule:
    """Or: as far as the first that holds."""
    return lambda value, evaluation: any(rule(value, evaluation) for rule in rules)


def opposite(rule: Rule) -> Rule:
    """Not."""
    return lambda value, evaluation: not rule(value, evaluation)


def pattern(text: str) -> tuple[str, ...] | None:
    """The fixed pieces of a StringMatches pattern between its `*`, or None for a backslash that escapes nothing."""
    pieces: list[str] = []
    piece: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            following = text[position : position + 1]
            if following not in ("*", "\\"):
                return None
            piece.append(following)
            position += 1
        elif character == "*":
            pieces.append("".join(piece))
            piece = []
        else:
            piece.append(character)
    pieces.append("".join(piece))
    return tuple(pieces)


def matching(pieces: tuple[str, ...]) -> Test:
    """StringMatches. Each piece is looked for once, from where the last one ended: time grows with the text alone."""
    first, last = pieces[0], pieces[-1]

    def test(found: JSON, _: JSON) -> bool:
        if not isinstance(found, str):
            return False
        if len(pieces) == 1:
            return found == first
        if len(found) < len(first) + len(last) or not found.startswith(first) or not found.endswith(last):
            return False
        position, end = len(first), len(found) - len(last)
        for piece in pieces[1:-1]:
            position = found.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return test


def _text_order(found: JSON, wanted: JSON) -> int | None:
    if not isinstance(found, str) or not isinstance(wanted, str):
        return None
    if found.isascii() and wanted.isascii():
        return (found > wanted) - (found < wanted)
    # By UTF-16 code units, as the reference service orders strings.
    one, other = found.encode("utf-16-be", "surrogatepass"), wanted.encode("utf-16-be", "surrogatepass")
    return (one > other) - (one < other)


def _number_order(found: JSON, wanted: JSON) -> int | None:
    if not isinstance(found, (int, float)) or not isinstance(wanted, (int, float)):
        return None
    if isinstance(found, bool) or isinstance(wanted, bool):
        return None
    return (found > wanted) - (found < wanted)


def _time_order(found: JSON, wanted: JSON) -> int | None:
    one, other = _moment(found), _moment(wanted)
    if one is None or other is None:
        return None
    return (one > other) - (one < other)


def _moment(value: JSON) -> tuple[datetime, str] | None:
    return order_of(value) if isinstance(value, str) else None


def _boolean_order(found: JSON, wanted: JSON) -> int | None:
    if not isinstance(found, bool) or not isinstance(wanted, bool):
        return None
    return int(found) - int(wanted)


Order: TypeAlias = Callable[[JSON, JSON], int | None]

_RELATIONS: Final[dict[str, Callable[[int], bool]]] = {
    "Equals": lambda order: order == 0,
    "LessThan": lambda order: order < 0,
    "GreaterThan": lambda order: order > 0,
    "LessThanEquals": lambda order: order <= 0,
    "GreaterThanEquals": lambda order: order >= 0,
}
_ORDERS: Final[dict[str, Order]] = {"String": _text_order, "Numeric": _number_order, "Timestamp": _time_order}


def _relation(order: Order, relation: Callable[[int], bool]) -> Test:
    def test(found: JSON, wanted: JSON) -> bool:
        ordered = order(found, wanted)
        return ordered is not None and relation(ordered)

    return test


COMPARISONS: Final[dict[str, Test]] = {
    **{
        f"{sort}{name}": _relation(order, relation)
        for sort, order in _ORDERS.items()
        for name, relation in _RELATIONS.items()
    },
    "BooleanEquals": _relation(_boolean_order, _RELATIONS["Equals"]),
}
"""The operators that compare with a value; each has a variant with `Path` at its end."""

TYPE_TESTS: Final[dict[str, Test]] = {
    "IsNull": lambda found, wanted: (found is None) is wanted,
    "IsNumeric": lambda found, wanted: is_number(found) is wanted,
    "IsString": lambda found, wanted: isinstance(found, str) is wanted,
    "IsBoolean": lambda found, wanted: isinstance(found, bool) is wanted,
    "IsTimestamp": lambda found, wanted: (_moment(found) is not None) is wanted,
}
"""The operators that ask what the variable is; they compare with a boolean."""
