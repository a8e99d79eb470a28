"""JSON values: their equality, their kind in words, their weight.

Python alone will not do: `True == 1` here and not in JSON, and deep values would use up its stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from daemon.language.errors import DATA_LIMIT_EXCEEDED, Failed
from enginekit.messages.json import JSON

MAX_BYTES: Final = 1024 * 1024
"""How much one expression may build, in bytes of JSON (about; a payload's own limit is lower and is the caller's)."""


def is_number(value: JSON) -> bool:
    """Whether it is a JSON number (which in Python a bool would be, too)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def kind(value: JSON) -> str:
    """What it is, in words for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def same(left: JSON, right: JSON, spend: Callable[[int], None] | None = None) -> bool:
    """Whether they are equal as JSON values: 1 and 1.0 are, 1 and true are not, fields have no order.

    `spend` is told how many values are looked at, before they are.
    """
    pending: list[tuple[JSON, JSON]] = [(left, right)]
    while pending:
        left, right = pending.pop()
        if isinstance(left, dict):
            if not isinstance(right, dict) or len(left) != len(right):
                return False
            if spend is not None:
                spend(len(left))
            if left.keys() != right.keys():
                return False
            pending.extend((value, right[name]) for name, value in left.items())
        elif isinstance(left, list):
            if not isinstance(right, list) or len(left) != len(right):
                return False
            if spend is not None:
                spend(len(left))
            pending.extend(zip(left, right, strict=True))
        elif isinstance(right, (dict, list)) or left != right or isinstance(left, bool) != isinstance(right, bool):
            return False
    return True


def identity(value: JSON) -> bytes:
    """Bytes that are the same for values that are equal as JSON values, and for no others.

    Bytes, because their hashes cannot be foreseen: no input can be made to collide in a set.
    """
    made = _ORDERED.encode(value)
    # A whole number may be written with a fraction or an exponent, which then is no difference.
    return _ORDERED.encode(_whole_numbers(value)) if b".0" in made or b"e" in made else made


_ORDERED: Final = msgspec.json.Encoder(order="sorted")


def _whole_numbers(value: JSON) -> JSON:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e18 else value
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _whole_numbers(item) for name, item in value.items()}
    return value


def weigh(value: JSON, limit: int = MAX_BYTES) -> int:
    """About how many bytes the value's JSON has. Raises Failed (States.DataLimitExceeded) beyond `limit`.

    Costs no more than the limit, however often the value shares its parts.
    """
    left = limit
    pending: list[JSON] = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            left -= len(value) + 3
        elif isinstance(value, list):
            left -= len(value) + 2
            if left >= 0:
                pending.extend(value)
        elif isinstance(value, dict):
            left -= 4 * len(value) + 2
            if left >= 0:
                left -= sum(map(len, value))
                pending.extend(value.values())
        else:
            left -= 4
        if left < 0:
            raise Failed(f"the value it builds is larger than {limit:,} bytes", DATA_LIMIT_EXCEEDED)
    return limit - left


def encodable(text: str) -> bool:
    """Whether it can be written as UTF-8: a lone half of a surrogate pair cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
