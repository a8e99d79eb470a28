"""The functions that a path may end with, such as `length()`: plain functions of a value and the written arguments.

The aggregates answer floating-point numbers, as Jayway's do, and pass over what is no number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from daemon.language.errors import Failed
from daemon.language.values import kind
from enginekit.messages.json import JSON

Arguments = tuple[JSON, ...]


def _length(value: JSON, arguments: Arguments) -> JSON:
    if not isinstance(value, (list, dict, str)):
        raise Failed(f"length() wants an array, an object or a string, not {kind(value)}")
    return len(value)


def _keys(value: JSON, arguments: Arguments) -> JSON:
    if not isinstance(value, dict):
        raise Failed(f"keys() wants an object, not {kind(value)}")
    return list(value)


def _items(name: str, value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise Failed(f"{name}() wants an array, not {kind(value)}")
    return value


def _aggregate(name: str, work: Callable[[list[float]], float]) -> Callable[[JSON, Arguments], JSON]:
    def apply(value: JSON, arguments: Arguments) -> JSON:
        try:
            numbers = [
                float(item)
                for item in _items(name, value)
                if isinstance(item, (int, float)) and not isinstance(item, bool)
            ]
            if not numbers:
                raise Failed(f"{name}() wants an array with numbers in it")
            answer = work(numbers)
        except OverflowError:
            answer = math.inf
        if not math.isfinite(answer):
            raise Failed(f"the answer of {name}() is too large for a number")
        return answer

    return apply


def _deviation(numbers: list[float]) -> float:
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))


def _item(name: str, value: JSON, index: int) -> JSON:
    items = _items(name, value)
    if not -len(items) <= index < len(items):
        raise Failed(f"{name}(): the array has {len(items)} items")
    return items[index]


def _index(value: JSON, arguments: Arguments) -> JSON:
    index = arguments[0]
    return _item("index", value, index if isinstance(index, int) else 0)


def _concat(value: JSON, arguments: Arguments) -> JSON:
    parts = [*(value if isinstance(value, list) else [value]), *arguments]
    return "".join([part for part in parts if isinstance(part, str)])


def _append(value: JSON, arguments: Arguments) -> JSON:
    return [*_items("append", value), *arguments]


FUNCTIONS: dict[str, Callable[[JSON, Arguments], JSON]] = {
    "length": _length,
    "size": _length,
    "keys": _keys,
    "min": _aggregate("min", min),
    "max": _aggregate("max", max),
    "avg": _aggregate("avg", lambda numbers: sum(numbers) / len(numbers)),
    "sum": _aggregate("sum", sum),
    "stddev": _aggregate("stddev", _deviation),
    "first": lambda value, arguments: _item("first", value, 0),
    "last": lambda value, arguments: _item("last", value, -1),
    "index": _index,
    "concat": _concat,
    "append": _append,
}
