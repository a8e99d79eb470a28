"""Signatures of functions, `<s-n?:s>`: which arguments they take, and where the context value stands in.

Source: docs.jsonata.org/programming, "Function signatures".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from daemon.language.errors import Failed, Malformed
from daemon.language.jsonata.values import UNDEFINED, Function, Undefined, Value

_TYPES: Final = {**dict(zip("snblof", "snblof", strict=True)), "a": "asnblfo", "j": "asnblo", "x": "asnblfo"}
_SYMBOLS: Final[dict[type, str]] = {
    Undefined: "m",
    type(None): "l",
    bool: "b",
    int: "n",
    float: "n",
    str: "s",
    list: "a",
    dict: "o",
}
_PLURALS: Final = {
    "a": "arrays",
    "b": "booleans",
    "f": "functions",
    "l": "nulls",
    "n": "numbers",
    "o": "objects",
    "s": "strings",
}


class Parameter(NamedTuple):
    """One parameter: the symbols of the types it takes, and whether it is an array, may be left out, repeats."""

    types: str
    array: bool = False
    item: str = ""
    optional: bool = False
    context: bool = False
    repeats: bool = False
    fitting: str = ""
    """`types`, and that of nothing."""


class Signature:
    """The parameters of a function called `name` in messages."""

    __slots__ = ("_name", "_needed", "_parameters")

    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        self._name = name
        self._parameters = tuple(each._replace(fitting=each.types + "m") for each in parameters)
        self._needed = [
            sum(not (each.optional or each.context) for each in parameters[number + 1 :])
            for number in range(len(parameters))
        ]

    def checked(self, arguments: list[Value], context: Value) -> list[Value]:
        """The arguments, one for each parameter; single values made arrays where one is wanted.

        Raises Failed T0410, T0411, T0412.
        """
        made: list[Value] = []
        position = 0
        for number, parameter in enumerate(self._parameters):
            left = len(arguments) - position
            fits = left > 0 and symbol(arguments[position]) in parameter.fitting
            spare = left > self._needed[number]
            if fits and (spare or not (parameter.context or parameter.optional)):
                made.append(self._as_wanted(parameter, arguments[position], position))
                position += 1
                while parameter.repeats and position < len(arguments):
                    made.append(self._as_wanted(parameter, arguments[position], position))
                    position += 1
            elif parameter.context:
                if symbol(context) not in parameter.fitting:
                    raise Failed(
                        f"T0411: Context value is not a compatible type with argument {position + 1} of function "
                        f'"{self._name}"'
                    )
                made.append(self._as_wanted(parameter, context, position))
            elif parameter.optional:
                made.append(UNDEFINED)
            else:
                raise self._unfit(position + 1)
        if position < len(arguments):
            raise self._unfit(position + 1)
        return made

    def _unfit(self, position: int) -> Failed:
        return Failed(f'T0410: Argument {position} of function "{self._name}" does not match function signature')

    @property
    def several(self) -> bool:
        """Whether it needs more than one argument."""
        return sum(not each.optional for each in self._parameters) > 1

    def demand(self, checked: list[Value]) -> None:
        """Raises Failed T0410 where an argument after the first is there and has no value."""
        for number, (parameter, argument) in enumerate(zip(self._parameters, checked, strict=False)):
            if argument is UNDEFINED and number and not parameter.optional:
                raise self._unfit(number + 1)

    def _as_wanted(self, parameter: Parameter, argument: Value, position: int) -> Value:
        if not parameter.array or argument is UNDEFINED:
            return argument
        items = argument if isinstance(argument, list) else [argument]
        if parameter.item:
            wanted = parameter.item[0]
            for item in items:
                if symbol(item) != wanted:
                    raise Failed(
                        f'T0412: Argument {position + 1} of function "{self._name}" must be an array of '
                        f'"{_PLURALS[wanted]}"'
                    )
        return items


def symbol(value: Value) -> str:
    """The letter of a value's type."""
    known = _SYMBOLS.get(type(value))
    if known is not None:
        return known
    return "a" if isinstance(value, list) else "f" if isinstance(value, Function) else "o"


@lru_cache(maxsize=512)
def read_signature(text: str, name: str) -> Signature:
    """Read `<…>`. Raises Malformed."""
    inner = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    parameters: list[Parameter] = []
    position = 0
    while position < len(inner) and inner[position] != ":":
        letter = inner[position]
        if letter in _TYPES:
            parameters.append(Parameter(_TYPES[letter], array=letter == "a"))
        elif letter == "(":
            end = inner.find(")", position)
            group = inner[position + 1 : end]
            if end < 0 or "<" in group:
                raise Malformed("S0402: a choice of parameterized types is not supported in a signature", position + 1)
            parameters.append(Parameter("".join(_TYPES.get(each, "") for each in group)))
            position = end
        elif letter == "<" and parameters:
            end = _closing(inner, position)
            last = parameters[-1]
            if last.array:
                if inner[position + 1 : position + 2] not in _PLURALS:
                    raise Malformed("S0401: the items of an array in a signature have no such type", position + 2)
                parameters[-1] = last._replace(item=inner[position + 1 : end])
            elif last.types != "f":
                raise Malformed("S0401: only functions and arrays have type parameters in a signature", position + 1)
            position = end
        elif letter in "-?+" and parameters:
            last = parameters[-1]
            parameters[-1] = last._replace(
                context=last.context or letter == "-",
                optional=last.optional or letter == "?",
                repeats=last.repeats or letter == "+",
            )
        else:
            raise Malformed(f'"{letter}" means nothing in a signature', position + 1)
        position += 1
    return Signature(name, tuple(parameters))


def _closing(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += {"<": 1, ">": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise Malformed("a bracket of the signature is never closed", start + 1)
