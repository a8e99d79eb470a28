"""The functions of arrays, and those that call a function for each item.

Source: docs.jsonata.org/array-functions, higher-order-functions.
"""

from __future__ import annotations

from typing import Any, Final

from daemon.language.errors import Failed
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.values import (
    UNDEFINED,
    Function,
    Sequence,
    Value,
    as_list,
    is_number,
    joined,
    plain,
    truth,
)
from daemon.language.values import identity


def _count(run: Run, items: Value) -> Value:
    return 0 if items is UNDEFINED else len(items)


def _append(run: Run, one: Value, other: Value) -> Value:
    run.spend(len(as_list(one)) + len(as_list(other)))
    return joined(one, other)


def _reverse(run: Run, items: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(len(items))
    return items[::-1] if len(items) > 1 else items


def _shuffle(run: Run, items: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(4 * len(items))
    made = list(items)
    random = run.evaluation.scope.random
    for last in range(len(made) - 1, 0, -1):
        other = int(random() * (last + 1))
        made[last], made[other] = made[other], made[last]
    return made


def _distinct(run: Run, items: Value) -> Value:
    if items is UNDEFINED or not isinstance(items, list) or len(items) <= 1:
        return items
    run.spend(2 * len(items))
    made: dict[bytes, Value] = {}
    functions: list[Value] = []
    for item in items:
        if isinstance(item, Function):
            functions.append(item)
        else:
            made.setdefault(_identity(run, item), item)
    distinct = [*made.values(), *functions]
    return Sequence(distinct) if isinstance(items, Sequence) else distinct


def _identity(run: Run, value: Value) -> bytes:
    if isinstance(value, (list, dict)):
        value = plain(value, run.spend)
    elif isinstance(value, str):
        run.spend(len(value) >> 6)
    try:
        return identity(value)
    except UnicodeEncodeError:
        raise Failed("$distinct: a text holds half of a surrogate pair") from None


def _zip(run: Run, *arrays: Value) -> Value:
    shortest = min((len(each) if isinstance(each, list) else 0 for each in arrays), default=0)
    run.spend(shortest * (len(arrays) + 1))
    return [list(each) for each in zip(*(array[:shortest] for array in arrays if array is not UNDEFINED), strict=False)]


class _Ordered:
    """An item that knows whether another one must stand before it."""

    __slots__ = ("after", "value")

    def __init__(self, value: Value, after: Any) -> None:
        self.value = value
        self.after = after

    def __lt__(self, other: _Ordered) -> bool:
        # The function says whether its first argument comes after its second.
        return bool(self.after(other.value, self.value))


def _sort(run: Run, items: Value, comparator: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    if len(items) <= 1:
        return items
    spend = run.spend
    spend(4 * len(items))
    if comparator is UNDEFINED:
        if not all(map(is_number, items)) and not all(isinstance(item, str) for item in items):
            raise Failed(
                "D3070: The single argument form of the sort function can only be applied to an array of strings or an "
                "array "
                "of numbers.  Use the second argument to specify a comparison function"
            )
        return sorted(items)

    def after(one: Value, other: Value) -> bool:
        spend(3)
        return truth(comparator.call([one, other], UNDEFINED), spend)

    return [each.value for each in sorted(_Ordered(item, after) for item in items)]


def _given(function: Function, *arguments: Value) -> list[Value]:
    """As many of the arguments as the function takes, one at least."""
    return list(arguments[: max(1, function.arity)])


def _map(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(4 * len(items))
    made = Sequence()
    for number, item in enumerate(items):
        value = function.call(_given(function, item, number, items), UNDEFINED)
        if value is not UNDEFINED:
            made.append(value)
    return made


def _filter(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(4 * len(items))
    made = Sequence()
    for number, item in enumerate(items):
        if truth(function.call(_given(function, item, number, items), UNDEFINED), run.spend):
            made.append(item)
    return made


def _single(run: Run, items: Value, function: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(4 * len(items))
    found: Value = UNDEFINED
    for number, item in enumerate(items):
        if function is UNDEFINED or truth(function.call(_given(function, item, number, items), UNDEFINED), run.spend):
            if found is not UNDEFINED:
                raise Failed(
                    "D3138: The $single() function expected exactly 1 matching result.  Instead it matched more."
                )
            found = item
    if found is UNDEFINED:
        raise Failed("D3139: The $single() function expected exactly 1 matching result.  Instead it matched 0.")
    return found


def _reduce(run: Run, items: Value, function: Value, start: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    if function.arity < 2:
        raise Failed("D3050: The second argument of reduce function must be a function with at least two arguments")
    run.spend(4 * len(items))
    number = 0
    value = start
    if start is UNDEFINED and items:
        value = items[0]
        number = 1
    for index in range(number, len(items)):
        value = function.call(_given(function, value, items[index], index, items), UNDEFINED)
    return value


TABLE: Final = {
    "count": ("<a:n>", _count, 1),
    "append": ("<xx:a>", _append, 2),
    "reverse": ("<a:a>", _reverse, 1),
    "shuffle": ("<a:a>", _shuffle, 1),
    "distinct": ("<x:x>", _distinct, 1),
    "zip": ("<a+>", _zip, 1),
    "sort": ("<af?:a>", _sort, 2),
    "map": ("<af>", _map, 2),
    "filter": ("<af>", _filter, 2),
    "single": ("<af?>", _single, 2),
    "reduce": ("<afj?:j>", _reduce, 3),
}
