"""Filters of a path, compiled: a condition becomes a function of the value at hand, the root and the evaluation.

The comparisons are Jayway's: types are not converted, except that a number equals a string that writes it; `<` and its
kin compare numbers with numbers and strings with strings, and anything else is not less, equal or greater.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from daemon.language.evaluation import Evaluation
from daemon.language.path_tree import And, Compare, Condition, Exists, Literal, Matches, Not, Or, PathTree
from daemon.language.values import is_number, same
from enginekit.messages.json import JSON

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)


class Absent(Enum):
    """What a path that leads nowhere is worth in a comparison."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
Found: TypeAlias = "JSON | Absent"
Operand: TypeAlias = Callable[[JSON, JSON, Evaluation], Found]
Predicate: TypeAlias = Callable[[JSON, JSON, Evaluation], bool]
"""(the value at hand, the root, the evaluation) -> whether the condition holds. Raises Failed when over budget."""


def compile_condition(condition: Condition, operand: Callable[[PathTree], Operand]) -> Predicate:
    """The condition as a function. `operand` compiles the paths in it."""
    if isinstance(condition, Not):
        negated = compile_condition(condition.condition, operand)
        return lambda value, root, evaluation: not negated(value, root, evaluation)
    if isinstance(condition, And):
        every = [compile_condition(each, operand) for each in condition.conditions]
        return lambda value, root, evaluation: all(each(value, root, evaluation) for each in every)
    if isinstance(condition, Or):
        some = [compile_condition(each, operand) for each in condition.conditions]
        return lambda value, root, evaluation: any(each(value, root, evaluation) for each in some)
    if isinstance(condition, Exists):
        lookup = operand(condition.path)
        return lambda value, root, evaluation: lookup(value, root, evaluation) is not ABSENT
    if isinstance(condition, Matches):
        return _matching(condition, operand)
    if isinstance(condition, Literal):
        truth = bool(condition.value)
        return lambda value, root, evaluation: truth
    return _comparison(condition, operand)


def _matching(condition: Matches, operand: Callable[[PathTree], Operand]) -> Predicate:
    left = _operand(condition.left, operand)
    matches = condition.pattern.matches

    def holds(value: JSON, root: JSON, evaluation: Evaluation) -> bool:
        text = left(value, root, evaluation)
        return isinstance(text, str) and matches(text, evaluation.spend)

    return holds


def _comparison(condition: Compare, operand: Callable[[PathTree], Operand]) -> Predicate:
    left = _operand(condition.left, operand)
    right = _operand(condition.right, operand)
    compare = _OPERATORS[condition.operator]

    def holds(value: JSON, root: JSON, evaluation: Evaluation) -> bool:
        one, other = left(value, root, evaluation), right(value, root, evaluation)
        evaluation.spend(3)  # It takes longer than to look at one value: two operands, and their types.
        return compare(one, other, evaluation)

    return holds


def _operand(tree: Literal | PathTree, operand: Callable[[PathTree], Operand]) -> Operand:
    if isinstance(tree, PathTree):
        return operand(tree)
    literal = tree.value
    return lambda value, root, evaluation: literal


def _equal(left: Found, right: Found, evaluation: Evaluation) -> bool:
    if isinstance(left, Absent) or isinstance(right, Absent):
        return False
    if isinstance(left, str):
        if isinstance(right, str):
            if len(left) != len(right):
                return False
            evaluation.spend(len(left) >> 6)
            return left == right
        return is_number(right) and _writes(left, right)
    if isinstance(right, str):
        return is_number(left) and _writes(right, left)
    return same(left, right, evaluation.spend)


def _writes(text: str, number: JSON) -> bool:
    """Whether the text is the number, written."""
    return len(text) <= 40 and _NUMBER.fullmatch(text) is not None and float(text) == number


def _different(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return not _equal(left, right, evaluation)


def _order(left: Found, right: Found, evaluation: Evaluation) -> int | None:
    """Negative, 0 or positive as left is less, equal or greater; None when the two have no order."""
    if isinstance(left, str) and isinstance(right, str):
        evaluation.spend(min(len(left), len(right)) >> 6)
        return (left > right) - (left < right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, bool) or isinstance(right, bool):
            return None
        return (left > right) - (left < right)
    return None


def _less(left: Found, right: Found, evaluation: Evaluation) -> bool:
    order = _order(left, right, evaluation)
    return order is not None and order < 0


def _at_most(left: Found, right: Found, evaluation: Evaluation) -> bool:
    order = _order(left, right, evaluation)
    return order is not None and order <= 0


def _greater(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return _less(right, left, evaluation)


def _at_least(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return _at_most(right, left, evaluation)


def _in(left: Found, right: Found, evaluation: Evaluation) -> bool:
    if not isinstance(right, list):
        return False
    evaluation.spend(len(right))
    return any(_equal(left, each, evaluation) for each in right)


def _not_in(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return not _in(left, right, evaluation)


def _subset_of(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return isinstance(left, list) and all(_in(each, right, evaluation) for each in left)


def _any_of(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return isinstance(left, list) and any(_in(each, right, evaluation) for each in left)


def _none_of(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return isinstance(left, list) and not any(_in(each, right, evaluation) for each in left)


def _size(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return isinstance(left, (list, str)) and isinstance(right, int) and right is not True and len(left) == right


def _empty(left: Found, right: Found, evaluation: Evaluation) -> bool:
    return isinstance(left, (list, str, dict)) and (len(left) == 0) is right


def _contains(left: Found, right: Found, evaluation: Evaluation) -> bool:
    if isinstance(left, str):
        evaluation.spend(len(left) >> 6)
        return isinstance(right, str) and right in left
    return _in(right, left, evaluation)


_OPERATORS: dict[str, Callable[[Found, Found, Evaluation], bool]] = {
    "==": _equal,
    "!=": _different,
    "<": _less,
    "<=": _at_most,
    ">": _greater,
    ">=": _at_least,
    "in": _in,
    "nin": _not_in,
    "subsetof": _subset_of,
    "anyof": _any_of,
    "noneof": _none_of,
    "size": _size,
    "empty": _empty,
    "contains": _contains,
}
