"""The functions of objects, booleans and types. Source: docs.jsonata.org/object-functions, boolean-functions."""

from __future__ import annotations

from typing import Final

from daemon.language.errors import Failed
from daemon.language.jsonata.calls import copy
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.selection import looked_up
from daemon.language.jsonata.values import UNDEFINED, Function, Sequence, Value, is_number, truth


def _keys(run: Run, value: Value) -> Value:
    found: dict[str, None] = {}
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            run.spend(len(each) + 1)
            found.update(dict.fromkeys(each))
        elif isinstance(each, list):
            names = _keys(run, each)
            found.update(dict.fromkeys(names))
    return Sequence(found)


def _lookup(run: Run, value: Value, name: Value) -> Value:
    return looked_up(value, name, run.spend)


def _spread(run: Run, value: Value) -> Value:
    if isinstance(value, list):
        found = Sequence()
        for each in value:
            spread = _spread(run, each)
            found.extend(spread) if isinstance(spread, list) else found.append(spread)
        return found
    if isinstance(value, dict):
        run.spend(2 * len(value) + 1)
        return Sequence([{name: item} for name, item in value.items()])
    return value


def _merge(run: Run, items: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    made: dict[str, Value] = {}
    for item in items:
        run.spend(len(item) + 1)
        made.update(item)
    return made


def _each(run: Run, value: Value, function: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    run.spend(2 * len(value))
    found = Sequence()
    for name, item in value.items():
        made = function.call([item, name, value][: max(1, function.arity)], UNDEFINED)
        if made is not UNDEFINED:
            found.append(made)
    return found


def _sift(run: Run, value: Value, function: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if function is UNDEFINED:
        raise Failed('T0410: Argument 2 of function "sift" does not match function signature')
    run.spend(2 * len(value))
    made = {
        name: item
        for name, item in value.items()
        if truth(function.call([item, name, value][: max(1, function.arity)], UNDEFINED), run.spend)
    }
    return made or UNDEFINED


def _clone(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else copy(value, run.spend)


def _boolean(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else truth(value, run.spend)


def _not(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else not truth(value, run.spend)


def _exists(run: Run, value: Value) -> Value:
    return value is not UNDEFINED


def _type(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if is_number(value):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "function" if isinstance(value, Function) else "object"


def _error(run: Run, message: Value) -> Value:
    raise Failed(f"D3137: {'$error() function evaluated' if message is UNDEFINED else message[:10_000]}")


def _assert(run: Run, condition: Value, message: Value) -> Value:
    if condition is not True:
        raise Failed(f"D3141: {'$assert() statement failed' if message is UNDEFINED else message[:10_000]}")
    return UNDEFINED


TABLE: Final = {
    "keys": ("<x-:a<s>>", _keys, 1),
    "lookup": ("<x-s:x>", _lookup, 2),
    "spread": ("<x-:a<o>>", _spread, 1),
    "merge": ("<a<o>:o>", _merge, 1),
    "each": ("<o-f:a>", _each, 2),
    "sift": ("<o-f?:o>", _sift, 2),
    "clone": ("<(oa)-:o>", _clone, 1),
    "boolean": ("<x-:b>", _boolean, 1),
    "not": ("<x-:b>", _not, 1),
    "exists": ("<x:b>", _exists, 1),
    "type": ("<x:s>", _type, 1),
    "error": ("<s?:x>", _error, 1),
    "assert": ("<bs?:x>", _assert, 2),
}
