"""Paths: one step after the other, and order. What a step may do is in `selection.py`. Source: docs.jsonata.org, "Path
Operators".

A path maps each value it has found over its next step and merges what that gives into one sequence. With a variable
bound to a step (`@`, `#`) or the parent asked for (`%`), what it has found is a stream of tuples instead: each holds
the value under "@" and what is bound beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cmp_to_key
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from daemon.language.errors import Failed
from daemon.language.jsonata.run import Code, Frame
from daemon.language.jsonata.selection import VALUE, Filter, Group, Whole, is_stream
from daemon.language.jsonata.values import (
    UNDEFINED,
    Made,
    Sequence,
    Value,
    as_list,
    is_number,
    quoted,
    settled,
)

if TYPE_CHECKING:
    from daemon.language.jsonata.compiler import Compiler
    from daemon.language.jsonata.syntax import Tree


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


# --- paths -------------------------------------------------------------------------------------------------------


def path(tree: Tree, compiler: Compiler) -> Code:
    """The code of a path."""
    steps = [_step(step, compiler) for step in tree.steps]
    make = compiler.group(tree.group) if tree.group is not None else None
    general = _general(tree, steps, make)
    plain = _plain_steps(tree)
    if plain is None:
        return general
    first = tree.steps[0]
    if first.kind == "name":
        return _plain(None, plain, general)
    return _plain(str(first.value), plain[1:], general)


PlainStep = tuple[str, int | None]
"""A field, and which item of the array in it."""


def _plain_steps(tree: Tree) -> tuple[PlainStep, ...] | None:
    """The steps of a path like `$order.lines[0].count` or `lines.count`; None for any other."""
    first, *rest = tree.steps
    if tree.keep_singleton or tree.group is not None or tree.tuples:
        return None
    if first.kind != "name" and (first.kind != "variable" or first.value in ("", "$")):
        return None
    if first.stages or any(step.kind != "name" for step in rest):
        return None
    plain: list[PlainStep] = []
    for step in tree.steps:
        if step.predicates or step.focus or step.index or step.tuples or step.keep_array or len(step.stages) > 1:
            return None
        if any(stage.kind != "number" for stage in step.stages):
            return None
        plain.append((str(step.value), math.floor(step.stages[0].value) if step.stages else None))
    return tuple(plain)


def _plain(variable: str | None, steps: tuple[PlainStep, ...], general: Code) -> Code:
    """What nearly all paths are: from object to object, or to an item of its array. With anything else on the way, it
    is a path as any. It begins at the variable, or else at the context value."""

    def code(context: Value, frame: Frame) -> Value:
        value = context if variable is None else frame.find(variable)
        for name, index in steps:
            if type(value) is not dict:
                return general(context, frame) if isinstance(value, list) else UNDEFINED
            value = value.get(name, UNDEFINED)
            if index is not None:
                if type(value) is not list or not -len(value) <= index < len(value):
                    return general(context, frame)
                value = value[index]
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
                if found is UNDEFINED:
                    return UNDEFINED
            elif streaming:
                stream = _over_tuples(step, found, stream, frame)
            else:
                found = _over(step, found, frame, number == last)
            if not streaming and (found is UNDEFINED or not found):
                break
        if streaming:
            assert stream is not None
            found = stream if wants_stream else Sequence([each[VALUE] for each in stream])
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
        if isinstance(only, Whole):
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
                made.append({VALUE: value, **({step.counter: number} if step.counter else {})})
        return Sequence(_staged(step, made, frame), tuples=True)
    if stream is None:
        stream = Sequence([{VALUE: item} for item in found], tuples=True)
    spend(step.size * len(stream))
    for each in stream:
        value = step.code(each[VALUE], frame.inner(each))
        if value is UNDEFINED:
            continue
        nested = is_stream(value)
        for number, one in enumerate(as_list(value)):
            spend(2 * len(each) + 4)
            bound = dict(each)
            if nested:
                bound.update(one)
            else:
                if step.focus:
                    bound[step.focus] = one
                else:
                    bound[VALUE] = one
                if step.counter:
                    bound[step.counter] = number
                if step.ancestor:
                    bound[step.ancestor] = each[VALUE]
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
            value = item[VALUE] if stream else item
            keyed.append(([code(value, inside) for code, _ in terms], item))

        if len(terms) == 1:
            keys = [key[0] for key, _ in keyed]
            if all(map(is_number, keys)) or all(isinstance(key, str) for key in keys):
                # Nearly always: then nothing need be called to compare two items.
                spend(4 * len(keyed))
                keyed.sort(key=itemgetter(0), reverse=terms[0][1])
                return Sequence([item for _, item in keyed], tuples=stream)

        def compare(one: tuple[list[Value], Value], other: tuple[list[Value], Value]) -> int:
            spend(3)
            for left, right, (_, descending) in zip(one[0], other[0], terms, strict=True):
                order = _compared(left, right)
                if order:
                    # What has no value stands last, whichever way the order goes.
                    return -order if descending and left is not UNDEFINED and right is not UNDEFINED else order
            return 0

        return Sequence([item for _, item in sorted(keyed, key=cmp_to_key(compare))], tuples=stream)

    return ordered


def _compared(left: Value, right: Value) -> int:
    if left is UNDEFINED or right is UNDEFINED:
        return (left is UNDEFINED) - (right is UNDEFINED)
    for side in (left, right):
        if not isinstance(side, str) and not is_number(side):
            raise Failed("T2008: The expressions within an order-by clause must evaluate to numeric or string values")
    if isinstance(left, str) is not isinstance(right, str):
        raise Failed(
            f"T2007: Type mismatch when comparing values {quoted(left)} and {quoted(right)} in order-by clause"
        )
    return int(left > right) - int(left < right)
