"""Paths: steps, predicates, wildcards, grouping and order. Source: docs.jsonata.org, "Path Operators".

A path maps each value it has found over its next step and merges what that gives into one sequence. With a variable
bound to a step (`@`, `#`) or the parent asked for (`%`), what it has found is a stream of tuples instead: each holds
the value under "@" and what is bound beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cmp_to_key
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.language.errors import Failed
from daemon.language.jsonata.run import Code, Frame
from daemon.language.jsonata.values import (
    UNDEFINED,
    Made,
    Sequence,
    Value,
    as_list,
    is_number,
    joined,
    kind,
    settled,
    truth,
)

if TYPE_CHECKING:
    from daemon.language.jsonata.compiler import Compiler
    from daemon.language.jsonata.syntax import Tree

Filter = Callable[[Value, Frame], Sequence]
"""(what is filtered, the variables) -> what is left of it."""
Group = Callable[[Value, Frame], Value]

_VALUE: Final = "@"


class Step(NamedTuple):
    """A compiled step. `terms` is there for a step that orders."""

    code: Code
    stages: list[tuple[str | None, Filter | None]]
    size: int
    made: bool
    tuples: bool
    focus: str | None
    counter: str | None
    ancestor: str | None
    ordered: Callable[[list[Value], Frame, bool], Value] | None


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
        left = Sequence(tuples=_is_stream(found))
        if -len(items) <= wanted < len(items):
            item = items[wanted]
            if isinstance(item, list):
                return item if isinstance(item, Sequence) else _Whole(item)
            left.append(item)
        return left

    return apply


class _Whole(Sequence):
    """An array that is an item: it is what was asked for, not several things that were found."""

    __slots__ = ()


def by_condition(code: Code, size: int) -> Filter:
    """`[condition]`, or `[numbers]`."""

    def apply(found: Value, frame: Frame) -> Sequence:
        items = as_list(found)
        stream = _is_stream(found)
        frame.run.spend(size * len(items))
        left = Sequence(tuples=stream)
        for number, item in enumerate(items):
            held = code(item[_VALUE], frame.inner(item)) if stream else code(item, frame)
            if held is True or (held is not False and _holds(held, number, len(items))):
                left.append(item)
        return left

    return apply


def _holds(value: Value, number: int, count: int) -> bool:
    if is_number(value):
        value = [value]
    if isinstance(value, list) and value and all(map(is_number, value)):
        return any(math.floor(each) + (count if each < 0 else 0) == number for each in value)
    return truth(value)


def _is_stream(value: Value) -> bool:
    return isinstance(value, Sequence) and value.tuples


def filtered(code: Code, condition: Filter) -> Code:
    """Something that is no path, with a predicate."""

    def apply(context: Value, frame: Frame) -> Value:
        found = code(context, frame)
        return UNDEFINED if found is UNDEFINED else _unwrapped(condition(found, frame))

    return apply


def _unwrapped(found: Sequence) -> Value:
    return list(found) if isinstance(found, _Whole) else settled(found)


# --- grouping ----------------------------------------------------------------------------------------------------


def group(pairs: list[tuple[Code, Code]], size: int) -> Group:
    """`{name: value, …}` over what was found: one object."""

    def apply(found: Value, frame: Frame) -> Value:
        stream = _is_stream(found)
        items: list[Value] = as_list(found) if found is not UNDEFINED else []
        frame.run.spend((size + 30) * len(items))
        gathered: dict[str, tuple[int, Value]] = {}
        for item in items or [UNDEFINED]:
            inside = frame.inner(item) if stream else frame
            value = item[_VALUE] if stream else item
            for number, (name_code, _) in enumerate(pairs):
                name = name_code(value, inside)
                if name is UNDEFINED:
                    continue
                if not isinstance(name, str):
                    raise Failed(f"T1003: the name of a field must be a string, not {kind(name)}")
                if name not in gathered:
                    gathered[name] = (number, Sequence((item,), tuples=True) if stream else item)
                elif gathered[name][0] != number:
                    raise Failed(f'D1009: more than one definition gives the field "{name[:80]}"')
                else:
                    gathered[name] = (number, _gathered(gathered[name][1], item, stream))
        made: dict[str, Value] = {}
        for name, (number, value) in gathered.items():
            inside = frame
            if stream:
                tuples = _reduced(value)
                value = tuples.pop(_VALUE)
                inside = frame.inner(tuples)
            result = pairs[number][1](value, inside)
            if result is not UNDEFINED:
                made[name] = result
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


# --- paths -------------------------------------------------------------------------------------------------------


def path(tree: Tree, compiler: Compiler) -> Code:
    """The code of a path."""
    steps = [_step(step, compiler) for step in tree.steps]
    make = compiler.group(tree.group) if tree.group is not None else None
    general = _general(tree, steps, make)
    names = _plain_names(tree)
    if names is None:
        return general
    first = tree.steps[0]
    if first.kind == "name":
        return _plain_fields(names, general)
    return _plain_variable(str(first.value), names[1:], general)


def _plain_names(tree: Tree) -> tuple[str, ...] | None:
    """The names of a path like `$order.lines.count` or `lines.count`; None for any other."""
    first, *rest = tree.steps
    if tree.keep_singleton or tree.group is not None or tree.tuples:
        return None
    if first.kind != "name" and (first.kind != "variable" or first.value in ("", "$")):
        return None
    for step in tree.steps:
        if step.stages or step.predicates or step.focus or step.index or step.tuples or step.keep_array:
            return None
    if any(step.kind != "name" for step in rest):
        return None
    return tuple(str(step.value) for step in tree.steps)


def _plain_variable(name: str, fields: tuple[str, ...], general: Code) -> Code:
    """What nearly all paths are: from object to object. As soon as an array is on the way, it is a path as any."""

    def code(context: Value, frame: Frame) -> Value:
        value = frame.find(name)
        for each in fields:
            if type(value) is not dict:
                return general(context, frame) if isinstance(value, list) else UNDEFINED
            value = value.get(each, UNDEFINED)
        return value

    return code


def _plain_fields(fields: tuple[str, ...], general: Code) -> Code:
    """The same for a path that begins at the context value."""

    def code(context: Value, frame: Frame) -> Value:
        value = context
        for each in fields:
            if type(value) is not dict:
                return general(context, frame) if isinstance(value, list) else UNDEFINED
            value = value.get(each, UNDEFINED)
        return value

    return code


def _step(tree: Tree, compiler: Compiler) -> Step:
    ordered = _order(tree, compiler) if tree.kind == "sort" else None
    stages: list[tuple[str | None, Filter | None]] = [
        (str(stage.value), None) if stage.kind == "index" else (None, compiler.filter(stage)) for stage in tree.stages
    ]
    return Step(
        code=_nothing if ordered is not None else compiler.compile(tree),
        stages=stages,
        size=tree.size,
        made=tree.made,
        tuples=tree.tuples,
        focus=tree.focus,
        counter=tree.index,
        ancestor=tree.ancestor,
        ordered=ordered,
    )


def _nothing(context: Value, frame: Frame) -> Value:
    return UNDEFINED


def _general(tree: Tree, steps: list[Step], make: Group | None) -> Code:
    from_variable = tree.steps[0].kind == "variable"
    keep = tree.keep_singleton
    wants_stream = tree.tuples

    def code(context: Value, frame: Frame) -> Value:
        found: Value = context if isinstance(context, list) and not from_variable else Sequence((context,))
        stream: Sequence | None = None
        streaming = False
        last = len(steps) - 1
        for number, step in enumerate(steps):
            streaming = streaming or step.tuples
            if number == 0 and step.made:
                found = step.code(found, frame)
            elif streaming:
                stream = _over_tuples(step, found, stream, frame)
            else:
                found = _over(step, found, frame, number == last)
            if not streaming and (found is UNDEFINED or not found):
                break
        if streaming:
            assert stream is not None
            found = stream if wants_stream else Sequence([each[_VALUE] for each in stream])
        if keep:
            if isinstance(found, Made):
                found = Sequence((found,))
            if isinstance(found, Sequence):
                found.keep = True
        if make is not None:
            return make(stream if streaming else found, frame)
        return settled(found)

    return code


def _over(step: Step, found: list[Value], frame: Frame, last: bool) -> Value:
    """Each value found mapped over the step, and all that merged."""
    frame.run.spend(step.size * len(found))
    if step.ordered is not None:
        made = step.ordered(found, frame, False)
        return _staged(step, made, frame)
    results: list[Value] = []
    for item in found:
        value = step.code(item, frame)
        for _, stage in step.stages:
            if value is UNDEFINED:
                break
            assert stage is not None
            value = stage(value, frame)
        if value is not UNDEFINED:
            results.append(value)
    if last and len(results) == 1 and isinstance(results[0], list):
        only = results[0]
        if isinstance(only, _Whole):
            return list(only)
        if not isinstance(only, Sequence):
            return only
    merged = Sequence()
    for value in results:
        if isinstance(value, list) and not isinstance(value, Made):
            frame.run.spend(len(value))
            merged.extend(value)
        else:
            merged.append(value)
    return merged


def _staged(step: Step, found: Value, frame: Frame) -> Value:
    for name, stage in step.stages:
        if stage is not None:
            found = stage(found, frame)
        else:
            assert name is not None
            for number, each in enumerate(found):
                each[name] = number
    return found


def _over_tuples(step: Step, found: list[Value], stream: Sequence | None, frame: Frame) -> Sequence:
    """The step over each tuple of the stream, which begins here where there is none yet."""
    made = Sequence(tuples=True)
    spend = frame.run.spend
    if step.ordered is not None:
        if stream is not None:
            made.extend(step.ordered(stream, frame, True))
        else:
            for number, value in enumerate(step.ordered(found, frame, False)):
                made.append({_VALUE: value, **({step.counter: number} if step.counter else {})})
        return Sequence(_staged(step, made, frame), tuples=True)
    if stream is None:
        stream = Sequence([{_VALUE: item} for item in found], tuples=True)
    spend(step.size * len(stream))
    for each in stream:
        value = step.code(each[_VALUE], frame.inner(each))
        if value is UNDEFINED:
            continue
        nested = _is_stream(value)
        for number, one in enumerate(as_list(value)):
            spend(2 * len(each) + 4)
            bound = dict(each)
            if nested:
                bound.update(one)
            else:
                if step.focus:
                    bound[step.focus] = one
                else:
                    bound[_VALUE] = one
                if step.counter:
                    bound[step.counter] = number
                if step.ancestor:
                    bound[step.ancestor] = each[_VALUE]
            made.append(bound)
    return Sequence(_staged(step, made, frame), tuples=True)


# --- order -------------------------------------------------------------------------------------------------------


def _order(tree: Tree, compiler: Compiler) -> Callable[[list[Value], Frame, bool], Value]:
    """`^(term, >term)`"""
    terms = [(compiler.compile(term), descending) for term, descending in tree.terms]
    size = tree.size

    def ordered(found: list[Value], frame: Frame, stream: bool) -> Value:
        spend = frame.run.spend
        spend(size * len(found))
        keyed: list[tuple[list[Value], Value]] = []
        for item in found:
            inside = frame.inner(item) if stream else frame
            value = item[_VALUE] if stream else item
            keyed.append(([code(value, inside) for code, _ in terms], item))

        def compare(one: tuple[list[Value], Value], other: tuple[list[Value], Value]) -> int:
            spend(1)
            for left, right, (_, descending) in zip(one[0], other[0], terms, strict=True):
                order = _compared(left, right)
                if order:
                    return -order if descending else order
            return 0

        return Sequence([item for _, item in sorted(keyed, key=cmp_to_key(compare))], tuples=stream)

    return ordered


def _compared(left: Value, right: Value) -> int:
    if left is UNDEFINED or right is UNDEFINED:
        return (left is UNDEFINED) - (right is UNDEFINED)
    for side in (left, right):
        if not isinstance(side, str) and not is_number(side):
            raise Failed(f"T2008: order is by numbers or strings, not by {kind(side)}")
    if isinstance(left, str) is not isinstance(right, str):
        raise Failed("T2007: order cannot be by numbers here and by strings there")
    return int(left > right) - int(left < right)
