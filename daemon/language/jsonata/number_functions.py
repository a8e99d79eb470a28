"""The functions of numbers and of their aggregates.

Source: docs.jsonata.org/numeric-functions, aggregation-functions.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from daemon.language.errors import Failed
from daemon.language.jsonata.formats import format_integer, format_number, parse_integer
from daemon.language.jsonata.run import Run
from daemon.language.jsonata.values import UNDEFINED, Value, double, number, quoted

_DECIMAL: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[Ee][-+]?[0-9]+)?")
_RADIX: Final = re.compile(r"0(?:[xX][0-9A-Fa-f]+|[oO][0-7]+|[bB][01]+)")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
MAX_DIGITS: Final = 400
_EXACT: Final = Context(prec=2 * MAX_DIGITS)


def _number(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and len(value) <= MAX_DIGITS:
        if _DECIMAL.fullmatch(value):
            made = number(double(int(value)) if value.lstrip("-").isdecimal() else float(value))
            if math.isfinite(made):
                return made
        elif _RADIX.fullmatch(value):
            return number(double(int(value, 0)))
    raise Failed(f"D3030: Unable to cast value to a number: {quoted(value)}")


def _abs(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else abs(value)


def _floor(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else number(math.floor(value))


def _ceil(run: Run, value: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else number(math.ceil(value))


def _round(run: Run, value: Value, precision: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if not math.isfinite(value):
        return value
    places = 0 if precision is UNDEFINED else int(precision)
    if abs(places) > MAX_DIGITS:
        return value if places > 0 else 0
    try:
        rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN, _EXACT)
    except InvalidOperation:
        return value if places > 0 else 0
    return number(float(rounded))


def _power(run: Run, base: Value, exponent: Value) -> Value:
    if base is UNDEFINED or exponent is UNDEFINED:
        return UNDEFINED
    try:
        made = math.pow(base, exponent)
    except (OverflowError, ValueError):
        made = math.inf
    if not math.isfinite(made):
        raise Failed(
            "D3061: The power function has resulted in a value that cannot be represented as a JSON number: "
            f"base={quoted(base)}, exponent={quoted(exponent)}"
        )
    return number(made)


def _sqrt(run: Run, value: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    if value < 0:
        raise Failed(f"D3060: The sqrt function cannot be applied to a negative number: {quoted(value)}")
    return number(math.sqrt(value))


def _format_base(run: Run, value: Value, radix: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    base = 10 if radix is UNDEFINED else int(radix)
    if not 2 <= base <= 36:
        raise Failed(f"D3100: The radix of the formatBase function must be between 2 and 36.  It was given {base}")
    left = abs(int(_round(run, value, UNDEFINED)))
    digits: list[str] = []
    while left:
        left, digit = divmod(left, base)
        digits.append(_DIGITS[digit])
    return ("-" if value < 0 and digits else "") + ("".join(reversed(digits)) or "0")


def _format_number(run: Run, value: Value, picture: Value, options: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else format_number(value, picture, options)


def _format_integer(run: Run, value: Value, picture: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else format_integer(value, picture)


def _parse_integer(run: Run, value: Value, picture: Value) -> Value:
    return UNDEFINED if value is UNDEFINED else number(parse_integer(value, picture))


def _sum(run: Run, items: Value) -> Value:
    if items is UNDEFINED:
        return UNDEFINED
    run.spend(len(items))
    total: float = 0
    for item in items:
        total += double(item)
    return number(total)


def _max(run: Run, items: Value) -> Value:
    if items is UNDEFINED or not items:
        return UNDEFINED
    run.spend(len(items))
    return max(items)


def _min(run: Run, items: Value) -> Value:
    if items is UNDEFINED or not items:
        return UNDEFINED
    run.spend(len(items))
    return min(items)


def _average(run: Run, items: Value) -> Value:
    if items is UNDEFINED or not items:
        return UNDEFINED
    return number(double(_sum(run, items)) / len(items))


TABLE: Final = {
    "number": ("<(nsb)-:n>", _number, 1),
    "abs": ("<n-:n>", _abs, 1),
    "floor": ("<n-:n>", _floor, 1),
    "ceil": ("<n-:n>", _ceil, 1),
    "round": ("<n-n?:n>", _round, 2),
    "power": ("<n-n:n>", _power, 2),
    "sqrt": ("<n-:n>", _sqrt, 1),
    "formatBase": ("<n-n?:s>", _format_base, 2),
    "formatNumber": ("<n-so?:s>", _format_number, 3),
    "formatInteger": ("<n-s:s>", _format_integer, 2),
    "parseInteger": ("<s-s:n>", _parse_integer, 2),
    "sum": ("<a<n>:n>", _sum, 1),
    "max": ("<a<n>:n>", _max, 1),
    "min": ("<a<n>:n>", _min, 1),
    "average": ("<a<n>:n>", _average, 1),
}
