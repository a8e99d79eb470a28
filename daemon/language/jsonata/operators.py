"""The operators: arithmetic, comparison, joining texts, membership, ranges. Source: docs.jsonata.org, "Operators"."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Final

from daemon.language.errors import Failed
from daemon.language.evaluation import MAX_STEPS
from daemon.language.jsonata.run import MEMORY, Code, Frame
from daemon.language.jsonata.values import (
    UNDEFINED,
    Sequence,
    Value,
    double,
    is_number,
    number,
    quoted,
    same,
    text,
    truth,
)

Work = Callable[[Value, Value, Frame], Value]


def binary(sign: str, left: Code, right: Code) -> Code:
    """An operator with two sides."""
    if sign == "and":
        return lambda context, frame: _truth(left, context, frame) and _truth(right, context, frame)
    if sign == "or":
        return lambda context, frame: _truth(left, context, frame) or _truth(right, context, frame)
    work = _WORK[sign]
    return lambda context, frame: work(left(context, frame), right(context, frame), frame)


def _truth(code: Code, context: Value, frame: Frame) -> bool:
    return truth(code(context, frame), frame.run.spend)


def negated(code: Code) -> Code:
    """`-value`"""

    def negate(context: Value, frame: Frame) -> Value:
        value = code(context, frame)
        if value is UNDEFINED:
            return UNDEFINED
        if not is_number(value):
            raise Failed(f"D1002: Cannot negate a non-numeric value: {quoted(value)}")
        return number(-value)

    return negate


def _arithmetic(sign: str, work: Callable[[float, float], float]) -> Work:
    def apply(left: Value, right: Value, frame: Frame) -> Value:
        if left is not UNDEFINED and not is_number(left):
            raise Failed(f'T2001: The left side of the "{sign}" operator must evaluate to a number')
        if right is not UNDEFINED and not is_number(right):
            raise Failed(f'T2002: The right side of the "{sign}" operator must evaluate to a number')
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        try:
            return number(work(double(left), double(right)))
        except ZeroDivisionError:
            return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left)
        except ValueError:
            return math.nan

    return apply


def _comparison(sign: str, work: Callable[[Value, Value], bool]) -> Work:
    def apply(left: Value, right: Value, frame: Frame) -> Value:
        for side in (left, right):
            if side is not UNDEFINED and not isinstance(side, str) and not is_number(side):
                raise Failed(
                    f'T2010: The expressions either side of operator "{sign}" must evaluate to numeric or string values'
                )
        if left is UNDEFINED or right is UNDEFINED:
            return UNDEFINED
        if isinstance(left, str) is not isinstance(right, str):
            raise Failed(
                f'T2009: The values {quoted(left)} and {quoted(right)} either side of operator "{sign}" must be of the '
                "same data type"
            )
        return work(left, right)

    return apply


def _equal(left: Value, right: Value, frame: Frame) -> Value:
    return left is not UNDEFINED and right is not UNDEFINED and same(left, right, frame.run.spend)


def _unequal(left: Value, right: Value, frame: Frame) -> Value:
    return left is not UNDEFINED and right is not UNDEFINED and not same(left, right, frame.run.spend)


def _concatenated(left: Value, right: Value, frame: Frame) -> Value:
    spend = frame.run.spend
    one = "" if left is UNDEFINED else text(left, spend)
    other = "" if right is UNDEFINED else text(right, spend)
    spend((len(one) + len(other)) >> 4)
    return one + other


def _included(left: Value, right: Value, frame: Frame) -> Value:
    if left is UNDEFINED or right is UNDEFINED:
        return False
    items = right if isinstance(right, list) else [right]
    spend = frame.run.spend
    spend(len(items))
    return any(same(left, item, spend) for item in items)


def _range(left: Value, right: Value, frame: Frame) -> Value:
    for code, side, value in (("T2003", "left", left), ("T2004", "right", right)):
        if value is not UNDEFINED and not (is_number(value) and float(value).is_integer()):
            raise Failed(f"{code}: The {side} side of the range operator (..) must evaluate to an integer")
    if left is UNDEFINED or right is UNDEFINED or left > right:
        return UNDEFINED
    first, last = int(left), int(right)
    if last - first + 1 > MAX_STEPS:
        raise Failed(MEMORY)
    frame.run.spend(last - first + 1)
    return Sequence(range(first, last + 1))


def _quotient(left: float, right: float) -> float:
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return left / right


_WORK: Final[dict[str, Work]] = {
    "+": _arithmetic("+", operator.add),
    "-": _arithmetic("-", operator.sub),
    "*": _arithmetic("*", operator.mul),
    "/": _arithmetic("/", _quotient),
    "%": _arithmetic("%", math.fmod),
    "=": _equal,
    "!=": _unequal,
    "<": _comparison("<", operator.lt),
    "<=": _comparison("<=", operator.le),
    ">": _comparison(">", operator.gt),
    ">=": _comparison(">=", operator.ge),
    "&": _concatenated,
    "in": _included,
    "..": _range,
}
