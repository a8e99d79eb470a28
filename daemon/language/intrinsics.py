"""Intrinsic functions, compiled: a call becomes a function of the input and the evaluation.

What a call may build is bounded by the reference service's own limits (1,000 items of a range, 10,000 characters to
hash or to code) and by the weight of a value, so that no nesting of calls builds without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from daemon.language.causes import of_call
from daemon.language.errors import Failed
from daemon.language.evaluation import Evaluation, Expression
from daemon.language.intrinsic_functions import FUNCTIONS, interpolate
from daemon.language.intrinsic_syntax import Argument, Call, Place, Text, Value, parse_call, split_template
from daemon.language.jsonpath import compile_tree
from enginekit.messages.json import JSON

Argued: TypeAlias = Callable[[JSON, Evaluation], JSON]
_MAX_TEMPLATE: Final = 256 * 1024
_OTHER_PLACES: Final = "Invalid arguments in States.Format: number of arguments do not match the occurrences of {}."


def compile_intrinsic(text: str) -> tuple[Expression, set[str]]:
    """Compile a call; with it, the variables it refers to. Raises Malformed. The function raises Failed."""
    call = parse_call(text)
    return _call(call), _variables(call)


def _variables(call: Call) -> set[str]:
    found: set[str] = set()
    for argument in call.arguments:
        if isinstance(argument, Place):
            found |= argument.tree.variables()
        elif isinstance(argument, Call):
            found |= _variables(argument)
    return found


def _argument(argument: Argument) -> Argued:
    if isinstance(argument, (Text, Value)):
        constant = argument.value
        return lambda value, evaluation: constant
    if isinstance(argument, Place):
        return compile_tree(argument.text, argument.tree).read
    return _call(argument)


def _call(call: Call) -> Argued:
    if call.name == "States.Format":
        return _format(call)
    arguments = [_argument(argument) for argument in call.arguments]
    work = FUNCTIONS[call.name]
    name = call.name

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        given = [argument(value, evaluation) for argument in arguments]
        try:
            return work(given, evaluation)
        except Failed as failed:
            raise of_call(name, failed) from None

    return apply


def _format(call: Call) -> Argued:
    first = call.arguments[0]
    values = [_argument(argument) for argument in call.arguments[1:]]
    if isinstance(first, Text):
        pieces = first.pieces

        def fill(value: JSON, evaluation: Evaluation) -> JSON:
            return _filled(pieces, [each(value, evaluation) for each in values], evaluation)

        return fill
    template = _argument(first)

    def apply(value: JSON, evaluation: Evaluation) -> JSON:
        text = template(value, evaluation)
        if not isinstance(text, str) or len(text) > _MAX_TEMPLATE:
            raise of_call("States.Format", Failed())
        evaluation.spend(len(text) >> 3)
        found = split_template(text)
        if len(found) - 1 != len(values):
            raise of_call("States.Format", Failed(_OTHER_PLACES))
        return _filled(found, [each(value, evaluation) for each in values], evaluation)

    return apply


def _filled(pieces: Sequence[str], values: list[JSON], evaluation: Evaluation) -> str:
    try:
        return interpolate(pieces, values, evaluation)
    except Failed as failed:
        raise of_call("States.Format", failed) from None
