"""What one step of a path may do: find by name, filter by a predicate, gather into groups. Source: docs.jsonata.org,
"Path Operators", "Predicate Queries", "Sorting, Grouping and Aggregation".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from daemon.language.errors import Failed
from daemon.language.jsonata.run import Code, Frame
from daemon.language.jsonata.values import (
    UNDEFINED,
    Sequence,
    Value,
    as_list,
    is_number,
    joined,
    quoted,
    settled,
    truth,
)

Filter = Callable[[Value, Frame], Sequence]
"""(what is filtered, the variables) -> what is left of it."""
Group = Callable[[Value, Frame], Value]

VALUE: Final = "@"
"""Where a tuple of a stream holds the value; what is bound stands beside it."""


# --- names -------------------------------------------------------------------------------------------------------


def looked_up(value: Value, name: str, spend: Callable[[int], None]) -> Value:
    """The field of an object, or those of all objects in an array, merged."""
    if isinstance(value, dict):
        return value.get(name, UNDEFINED)
    if not isinstance(value, list):
        return UNDEFINED
    spend(len(value))
    found = Sequence()
    for item in value:
        one = item.get(name, UNDEFINED) if isinstance(item, dict) else looked_up(item, name, spend)
        if isinstance(one, list):
            found.extend(one)
        elif one is not UNDEFINED:
            found.append(one)
    return found


def field(name: str) -> Code:
    """A name alone."""

    def code(context: Value, frame: Frame) -> Value:
        if type(context) is dict:
            return context.get(name, UNDEFINED)
        return settled(looked_up(context, name, frame.run.spend))

    return code


def wildcard(context: Value, frame: Frame) -> Value:
    """`*`: the values of all fields."""
    found: Value = Sequence()
    values = list(context.values()) if isinstance(context, dict) else context if isinstance(context, list) else []
    frame.run.spend(len(values))
    for value in values:
        if isinstance(value, list):
            found.extend(_flat(value, frame))
        else:
            found.append(value)
    return settled(found)


def _flat(value: list[Value], frame: Frame) -> list[Value]:
    made: list[Value] = []
    pending: list[Value] = value[::-1]
    while pending:
        item = pending.pop()
        frame.run.spend(1)
        if isinstance(item, list):
            pending.extend(reversed(item))
        else:
            made.append(item)
    return made


def descendants(context: Value, frame: Frame) -> Value:
    """`**`: the value and everything below it."""
    found = Sequence()
    if context is UNDEFINED:
        return UNDEFINED
    pending: list[Value] = [context]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            frame.run.spend(len(value) + 1)
            pending.extend(reversed(value))
            continue
        found.append(value)
        if isinstance(value, dict):
            frame.run.spend(len(value) + 1)
            pending.extend(reversed(value.values()))
    return settled(found)


# --- predicates --------------------------------------------------------------------------------------------------


def by_index(value: float) -> Filter:
    """`[number]`"""
    wanted = math.floor(value)

    def apply(found: Value, frame: Frame) -> Sequence:
        items = as_list(found)
        left = Sequence(tuples=is_stream(found))
        if -len(items) <= wanted < len(items):
            item = items[wanted]
            if isinstance(item, list):
                return item if isinstance(item, Sequence) else Whole(item)
            left.append(item)
        return left

    return apply


class Whole(Sequence):
    """An array that is an item: it is what was asked for, not several things that were found."""

    __slots__ = ()


def by_condition(code: Code, size: int) -> Filter:
    """`[condition]`, or `[numbers]`."""

    def apply(found: Value, frame: Frame) -> Sequence:
        items = as_list(found)
        stream = is_stream(found)
        frame.run.spend(size * len(items))
        left = Sequence(tuples=stream)
        for number, item in enumerate(items):
            held = code(item[VALUE], frame.inner(item)) if stream else code(item, frame)
            if held is True:
                left.append(item)
            elif held is not False:
                left.extend([item] * _times(held, number, len(items), frame.run.spend))
        return left

    return apply


def _times(value: Value, number: int, count: int, spend: Callable[[int], None]) -> int:
    """How often a predicate's value takes the item with this number: numbers are those of items, which may repeat."""
    if is_number(value):
        value = [value]
    if isinstance(value, list) and value and all(map(is_number, value)):
        spend(len(value))
        return sum(math.floor(each) + (count if each < 0 else 0) == number for each in value)
    return int(truth(value, spend))


def is_stream(value: Value) -> bool:
    return isinstance(value, Sequence) and value.tuples


def filtered(code: Code, condition: Filter) -> Code:
    """Something that is no path, with a predicate."""

    def apply(context: Value, frame: Frame) -> Value:
        found = code(context, frame)
        return UNDEFINED if found is UNDEFINED else _unwrapped(condition(found, frame))

    return apply


def _unwrapped(found: Sequence) -> Value:
    return list(found) if isinstance(found, Whole) else settled(found)


# --- grouping ----------------------------------------------------------------------------------------------------

_GROUPED: Final = 30
"""What gathering one item costs beside evaluating its names and values."""


def group(pairs: list[tuple[Code, Code]], size: int) -> Group:
    """`{name: value, …}` over what was found: one object."""
    size += _GROUPED

    def apply(found: Value, frame: Frame) -> Value:
        items: list[Value] = as_list(found) if found is not UNDEFINED else []
        stream = is_stream(found) and bool(items)
        frame.run.spend(size * len(items))
        gathered: dict[str, tuple[int, Value]] = {}
        for item in items or [UNDEFINED]:
            inside = frame.inner(item) if stream else frame
            value = item[VALUE] if stream else item
            for number, (name_code, _) in enumerate(pairs):
                name = name_code(value, inside)
                if name is UNDEFINED:
                    continue
                if not isinstance(name, str):
                    raise Failed(f"T1003: Key in object structure must evaluate to a string; got: {quoted(name)}")
                if name not in gathered:
                    gathered[name] = (number, Sequence((item,), tuples=True) if stream else item)
                elif gathered[name][0] != number:
                    raise Failed(f"D1009: Multiple key definitions evaluate to same key: {quoted(name)}")
                else:
                    gathered[name] = (number, _gathered(gathered[name][1], item, stream))
        made: dict[str, Value] = {}
        for name, (number, value) in gathered.items():
            inside = frame
            if stream:
                tuples = _reduced(value)
                value = tuples.pop(VALUE)
                inside = frame.inner(tuples)
            result = pairs[number][1](value, inside)
            if result is not UNDEFINED:
                made[name] = result
        return made

    return apply


def written(fields: list[tuple[str, Code]], make: Group, size: int) -> Code:
    """An object whose fields' names are written, and differ: over a single value there is nothing to gather."""
    size += _GROUPED

    def apply(context: Value, frame: Frame) -> Value:
        if isinstance(context, list):
            return make(context, frame)
        if context is not UNDEFINED:
            frame.run.spend(size)
        made: dict[str, Value] = {}
        for name, code in fields:
            value = code(context, frame)
            if value is not UNDEFINED:
                made[name] = value
        return made

    return apply


def _gathered(held: Value, item: Value, stream: bool) -> Value:
    if stream:
        held.append(item)
        return held
    if isinstance(held, _Gathered):
        held.extend(as_list(item))
        return held
    return _Gathered(joined(held, item))


class _Gathered(list[Value]):
    """The values of one group so far, when there are several."""

    __slots__ = ()


def _reduced(stream: Sequence) -> dict[str, Value]:
    """The tuples of one group as one: what is bound in several of them becomes an array."""
    reduced: dict[str, Value] = dict(stream[0])
    for each in stream[1:]:
        for name, value in each.items():
            reduced[name] = joined(reduced.get(name, UNDEFINED), value)
    return reduced


def grouped(code: Code, make: Group) -> Code:
    """Something that is no path, grouped."""
    return lambda context, frame: make(code(context, frame), frame)


def built(make: Group) -> Code:
    """An object that is written."""

    def apply(context: Value, frame: Frame) -> Value:
        return make(context, frame)

    return apply
