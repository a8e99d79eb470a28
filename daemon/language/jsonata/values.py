"""The values of an evaluation: JSON, nothing, sequences and functions; their truth, equality and text.

A sequence is what a path finds: alone it is its one item, empty it is nothing. A `Made` array is one that was written
in brackets as a step of a path, which keeps it from being merged into what the path finds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias

from daemon.language.causes import UNSUPPORTED
from daemon.language.errors import Failed, shown
from enginekit.messages.json import JSON

Value: TypeAlias = Any
"""JSON, UNDEFINED, a Sequence or a Function. Inside this package only."""

MAX_EXACT: Final = 2**53
"""JSONata's numbers are IEEE doubles: beyond this, whole numbers are not exact."""


class Undefined(Enum):
    """Nothing was found, which is not the same as null."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED


_LEAVES: Final = frozenset({str, int, bool, type(None)})
"""Types whose values are JSON as they are."""


class Sequence(list[Value]):
    """What a path finds. `keep`: it stays an array even with one item. `tuples`: its items are tuples of bindings."""

    __slots__ = ("keep", "tuples")

    def __init__(self, items: Any = (), *, tuples: bool = False) -> None:
        super().__init__(items)
        self.keep = False
        self.tuples = tuples


class Made(list[Value]):
    """An array that was written as a step of a path."""

    __slots__ = ()


class Function:
    """Something that can be called. `call` gets the arguments and the context value; `arity` is how many it takes."""

    __slots__ = ("arity", "call", "name")

    def __init__(self, name: str, arity: int, call: Callable[[list[Value], Value], Value]) -> None:
        self.name = name
        self.arity = arity
        self.call = call


def is_number(value: Value) -> bool:
    """Whether it is a number (a bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def kind(value: Value) -> str:
    """What it is, for a message."""
    if value is UNDEFINED:
        return "nothing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else "a function"


def settled(value: Value) -> Value:
    """A sequence of one is its item, an empty one nothing."""
    if isinstance(value, Sequence) and not value.tuples:
        if not value:
            return UNDEFINED
        if len(value) == 1 and not value.keep:
            return value[0]
    return value


def as_list(value: Value) -> list[Value]:
    """An array as it is, anything else alone in one."""
    return value if isinstance(value, list) else Sequence((value,))


def joined(one: Value, other: Value) -> Value:
    """The items of both. Source: the function append of the language."""
    if one is UNDEFINED:
        return other
    if other is UNDEFINED:
        return one
    return [*as_list(one), *as_list(other)]


def truth(value: Value, spend: Callable[[int], None]) -> bool:
    """The effective boolean value. `spend` is told how many items of arrays are looked at.

    Source: docs.jsonata.org/boolean-functions, $boolean.
    """
    if value is True or value is False:
        return value
    if isinstance(value, list):
        pending = [value]
        while pending:
            items = pending.pop()
            spend(len(items) + 1)
            for item in items:
                if isinstance(item, list):
                    pending.append(item)
                elif truth(item, spend):
                    return True
        return False
    if value is UNDEFINED or value is None or isinstance(value, Function):
        return False
    return bool(value)


def number(value: float) -> int | float:
    """A result of arithmetic: whole where it is whole. Beyond what a double holds it is infinite, as it is in the
    reference service."""
    if isinstance(value, int):
        return value if -MAX_EXACT <= value <= MAX_EXACT else _whole(_double(value))
    return _whole(value)


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and -MAX_EXACT <= value <= MAX_EXACT else value


def double(value: int | float) -> int | float:
    """An operand of arithmetic: whole numbers that a double cannot hold become what it holds."""
    if isinstance(value, int) and not -MAX_EXACT <= value <= MAX_EXACT:
        return _double(value)
    return value


def number_text(value: int | float) -> str:
    """A number as JavaScript prints it, to 15 digits as $string does."""
    if isinstance(value, int) and -MAX_EXACT <= value <= MAX_EXACT:
        return str(value)
    value = float(f"{_double(value) if isinstance(value, int) else value:.15g}")
    if not math.isfinite(value):
        return endless(value)
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        shown = f"{Decimal(repr(value)):f}"
        return shown.rstrip("0").rstrip(".") if "." in shown else shown
    mantissa, _, power = f"{value:.14e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    exponent = int(power)
    return f"{mantissa}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


def endless(value: float) -> str:
    """The name of a number that JSON has no digits for, which stands in its place."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def quoted(value: Value) -> str:
    """The value as an error's message quotes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'"{endless(value)}"'
    return shown(number(value) if is_number(value) else value)


def plain(value: Value, spend: Callable[[int], None]) -> JSON:
    """The value as JSON alone, its sequences made arrays. `spend` is told of each value looked at.

    Raises Failed where a function stands in it.
    """
    if type(value) in _LEAVES:
        leaf: JSON = value
        return leaf
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else endless(value)
    if isinstance(value, dict):
        spend(len(value) + 2)
        return {
            name: item if type(item) in _LEAVES else plain(item, spend)
            for name, item in value.items()
            if item is not UNDEFINED
        }
    if isinstance(value, list):
        spend(len(value) + 1)
        return [item if type(item) in _LEAVES else plain(item, spend) for item in value]
    raise Failed(UNSUPPORTED)


def text(value: Value, spend: Callable[[int], None], indent: int | None = None) -> str:
    """What $string makes of it, UNDEFINED left out. `spend` is told of what is built."""
    if isinstance(value, str):
        return value
    if isinstance(value, Function):
        return ""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    made = _printed(value, spend, indent, 0)
    spend(len(made) >> 4)
    return made


def _printed(value: Value, spend: Callable[[int], None], indent: int | None, level: int) -> str:
    """JSON text. `indent` is how many spaces a level has, None for all in one line."""
    if isinstance(value, str):
        spend((len(value) >> 4) + 1)
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (dict, list)):
        spend(2 * len(value) + 4)
        inner = level + 1
        if isinstance(value, dict):
            colon = ":" if indent is None else ": "
            parts = [
                f"{json.dumps(name, ensure_ascii=False)}{colon}{_printed(item, spend, indent, inner)}"
                for name, item in value.items()
                if item is not UNDEFINED
            ]
            opening, closing = "{", "}"
        else:
            parts = [_printed(item, spend, indent, inner) for item in value]
            opening, closing = "[", "]"
        # What is built is copied once a level.
        spend(sum(map(len, parts)) >> 5)
        if indent is None or not parts:
            return f"{opening}{','.join(parts)}{closing}"
        pad = "\n" + " " * (indent * inner)
        return f"{opening}{pad}{f',{pad}'.join(parts)}\n{' ' * (indent * level)}{closing}"
    if isinstance(value, Function):
        return '""'
    return "null" if value is UNDEFINED else text(value, spend)


def same(one: Value, other: Value, spend: Callable[[int], None]) -> bool:
    """Whether two values are deeply equal. `spend` is told of each pair looked at."""
    pending = [(one, other)]
    while pending:
        left, right = pending.pop()
        if isinstance(left, dict):
            if not isinstance(right, dict) or left.keys() != right.keys():
                return False
            spend(len(left) + 1)
            pending.extend((value, right[name]) for name, value in left.items())
        elif isinstance(left, list):
            if not isinstance(right, list) or len(left) != len(right):
                return False
            spend(len(left) + 1)
            pending.extend(zip(left, right, strict=True))
        elif isinstance(right, (dict, list)) or isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True
