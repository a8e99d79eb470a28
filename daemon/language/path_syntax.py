"""The syntax of JSONPath: from text to a tree of plain values. No evaluation here.

The grammar is Jayway's, which the reference service uses: `$`, `$$` or `$variable`, `.name` (a backslash makes the next
character part of the name), `['name']`, `[0]`, `[-1]`, `[1:3]`, `[0,2]`, `['a','b']`, `*`, `..`, `[?(filter)]` and
functions such as `.length()` at the end. Regular expressions in filters go to RE2.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, NamedTuple

from daemon.language.jsonata.patterns import BadPattern, Pattern, compile_pattern
from daemon.language.path_tree import (
    SPACE,
    And,
    Compare,
    Condition,
    Cursor,
    Descend,
    Exists,
    Filter,
    Function,
    Indices,
    Literal,
    Matches,
    Names,
    Not,
    Or,
    PathTree,
    Slice,
    Token,
    Wildcard,
)
from enginekit.messages.json import JSON

FUNCTIONS: Final = frozenset(
    {"length", "size", "keys", "min", "max", "avg", "sum", "stddev", "first", "last", "index", "concat", "append"}
)
COMPARISONS: Final = ("==", "!=", "<=", ">=", "<", ">")
WORDS: Final = frozenset({"in", "nin", "subsetof", "anyof", "noneof", "size", "empty", "contains"})

MAX_STEPS: Final = 100
"""How many steps one path may have."""

_PLAIN: Final = re.compile(r"(\$\$|\$(?:[A-Za-z_][A-Za-z0-9_]*)?)((?:\.[A-Za-z0-9_-]+)*)", re.ASCII)
_VARIABLE: Final = re.compile(r"[^\W\d]\w*")
"""What nearly all paths are: names after dots, which need no cursor."""

_REFUSED_IN_NAMES: Final = "*,?()]'\"" + SPACE
_ENDS_IN_ARGUMENT: Final = ",)" + SPACE
_ENDS_IN_FILTER: Final = ",)]=<>!&|~" + SPACE


def parse_path(text: str) -> PathTree:
    """Read a whole path. Raises Malformed."""
    plain = _PLAIN.fullmatch(text)
    if plain is not None and len(text) <= MAX_STEPS:
        return PathTree(plain[1], tuple(plain[2].split(".")[1:]))
    cursor = Cursor(text)
    tree = read_path(cursor, "")
    if cursor.position < len(text):
        raise cursor.malformed(f"unexpected {cursor.found()}")
    return tree


def read_argument_path(cursor: Cursor) -> PathTree:
    """Read the path that is an argument of an intrinsic function: a comma or a bracket ends it. Raises Malformed."""
    return read_path(cursor, _ENDS_IN_ARGUMENT)


def read_path(cursor: Cursor, ends: str) -> PathTree:
    """Read a path up to one of the characters in `ends` (or the end of the text). Raises Malformed."""
    if cursor.accept("$$"):
        root = "$$"
    elif cursor.accept("$"):
        name = _VARIABLE.match(cursor.text, cursor.position)
        root = f"${name[0]}" if name is not None else "$"
        cursor.position += len(root) - 1
    elif ends == _ENDS_IN_FILTER and cursor.accept("@"):
        root = "@"
    else:
        raise cursor.malformed(f'a path begins with "$", not with {cursor.found()}')
    tokens: list[Token] = []
    while cursor.position < len(cursor.text) and cursor.peek() not in ends:
        if len(tokens) >= MAX_STEPS:
            raise cursor.malformed(f"a path has {MAX_STEPS} steps at most")
        if tokens and isinstance(tokens[-1], Function) and cursor.peek() not in ".":
            raise cursor.malformed(f"unexpected {cursor.found()} after a function")
        if cursor.accept(".."):
            tokens.append(Descend())
            tokens.append(_bracket(cursor) if cursor.accept("[") else _step(cursor, ends))
        elif cursor.accept("."):
            tokens.append(_bracket(cursor) if cursor.accept("[") else _step(cursor, ends))
        elif cursor.accept("["):
            tokens.append(_bracket(cursor))
        else:
            raise cursor.malformed(f'expected ".", "[" or the end of the path, found {cursor.found()}')
        if isinstance(tokens[-1], Function) and len(tokens) > 1 and isinstance(tokens[-2], Descend):
            raise cursor.malformed('".." needs a name, "*" or "[" after it, not a function')
    for earlier, later in pairwise(tokens):
        if isinstance(earlier, Function) and not isinstance(later, Function):
            raise cursor.malformed("a function ends a path: nothing but another function may follow it")
    return PathTree(root, tuple(tokens))


def _step(cursor: Cursor, ends: str) -> Token:
    """What follows a dot: a name, `*` or a function call."""
    if cursor.accept("*"):
        return Wildcard()
    start = cursor.position
    name: list[str] = []
    while cursor.position < len(cursor.text):
        character = cursor.peek()
        if character == "\\":
            name.append(_escape(cursor))
        elif character in ".[":
            break
        elif character == "(":
            return _function(cursor, "".join(name), start)
        elif character in ends:
            break
        elif character in _REFUSED_IN_NAMES:
            raise cursor.malformed(f"""write a name that holds {character!r} as ['name'], or a backslash before it""")
        else:
            name.append(character)
            cursor.position += 1
    if not name:
        raise cursor.malformed(f"expected a name, found {cursor.found()}")
    return "".join(name)


def _escape(cursor: Cursor) -> str:
    """What a backslash and the characters after it stand for."""
    start = cursor.position
    cursor.position += 1
    character = cursor.peek()
    if not character:
        raise cursor.malformed("the backslash at the end escapes nothing", start)
    cursor.position += 1
    if character != "u":
        return character
    code = _hexadecimal(cursor)
    if code is None:
        return character
    if 0xD800 <= code < 0xDC00 and cursor.text.startswith("\\u", cursor.position):
        cursor.position += 2
        low = _hexadecimal(cursor)
        if low is not None and 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
    if 0xD800 <= code < 0xE000:
        raise cursor.malformed("half of a surrogate pair", start)
    return chr(code)


def _hexadecimal(cursor: Cursor) -> int | None:
    digits = cursor.text[cursor.position : cursor.position + 4]
    if len(digits) < 4 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return None
    cursor.position += 4
    return int(digits, 16)


def _function(cursor: Cursor, name: str, start: int) -> Function:
    if name not in FUNCTIONS:
        raise cursor.malformed(f'no path function "{name}" (there are {", ".join(sorted(FUNCTIONS))})', start)
    cursor.expect("(", "after the function's name")
    arguments: list[JSON] = []
    cursor.skip_space()
    while not cursor.accept(")"):
        if arguments:
            cursor.expect(",", "between arguments")
            cursor.skip_space()
        arguments.append(read_literal(cursor))
        cursor.skip_space()
    wanted = {"index": (1, 1), "concat": (1, 100), "append": (1, 100)}.get(name, (0, 0))
    if not wanted[0] <= len(arguments) <= wanted[1]:
        raise cursor.malformed(f"{name}() takes {'an argument' if wanted[0] else 'no arguments'}", start)
    if name == "index" and (not isinstance(arguments[0], int) or isinstance(arguments[0], bool)):
        raise cursor.malformed("index() takes a whole number", start)
    return Function(name, tuple(arguments))


def _bracket(cursor: Cursor) -> Token:
    """What stands between `[` and `]`; the `[` is read already."""
    cursor.skip_space()
    token: Token
    if cursor.accept("*"):
        token = Wildcard()
    elif cursor.peek() in ("'", '"'):
        names = [read_quoted(cursor)]
        cursor.skip_space()
        while cursor.accept(","):
            cursor.skip_space()
            if cursor.peek() not in ("'", '"'):
                raise cursor.malformed(f"expected a quoted name, found {cursor.found()}")
            names.append(read_quoted(cursor))
            cursor.skip_space()
        token = names[0] if len(names) == 1 else Names(tuple(names))
    elif cursor.accept("?"):
        cursor.skip_space()
        cursor.expect("(", "after the ? of a filter")
        token = Filter(_either(cursor))
        cursor.expect(")", "at the end of the filter")
    else:
        token = _numbers(cursor)
    cursor.skip_space()
    cursor.expect("]", "to close the bracket")
    return token


def _numbers(cursor: Cursor) -> Token:
    first = _integer(cursor)
    cursor.skip_space()
    if cursor.peek() == ":":
        bounds: list[int | None] = [first]
        while cursor.accept(":"):
            cursor.skip_space()
            bounds.append(_integer(cursor))
            cursor.skip_space()
        if len(bounds) > 3 or (len(bounds) == 3 and bounds[2] == 0):
            raise cursor.malformed("a slice is [start:end] or [start:end:step], its step not 0")
        return Slice(bounds[0], bounds[1], bounds[2] if len(bounds) == 3 else None)
    if first is None:
        raise cursor.malformed(
            f"expected a quoted name, a number, a slice, * or a ?(filter) in brackets, found {cursor.found()}"
        )
    indices = [first]
    while cursor.accept(","):
        cursor.skip_space()
        index = _integer(cursor)
        if index is None:
            raise cursor.malformed(f"expected a number, found {cursor.found()}")
        indices.append(index)
        cursor.skip_space()
    return first if len(indices) == 1 else Indices(tuple(indices))


def _integer(cursor: Cursor) -> int | None:
    start = cursor.position
    cursor.accept("-")
    while cursor.peek() and cursor.peek() in "0123456789":
        cursor.position += 1
    digits = cursor.text[start : cursor.position]
    if not digits or digits == "-":
        cursor.position = start
        return None
    if len(digits) > 10:
        raise cursor.malformed("the number is too large", start)
    return int(digits)


def read_quoted(cursor: Cursor) -> str:
    """Read text in single or double quotes, in which a backslash escapes. Raises Malformed."""
    start = cursor.position
    quote = cursor.peek()
    cursor.position += 1
    made: list[str] = []
    while not cursor.accept(quote):
        character = cursor.peek()
        if not character:
            raise cursor.malformed("the quote that opens here is never closed", start)
        if character == "\\":
            made.append(_escape(cursor))
        else:
            made.append(character)
            cursor.position += 1
    return "".join(made)


def read_number(cursor: Cursor) -> int | float:
    """Read a JSON number. Raises Malformed."""
    start = cursor.position
    while cursor.peek() and cursor.peek() in "+-0123456789.eE":
        cursor.position += 1
    written = cursor.text[start : cursor.position]
    try:
        number: int | float = int(written)
    except ValueError:
        try:
            number = float(written)
        except ValueError:
            raise cursor.malformed(f'"{written[:40]}" is not a number', start) from None
    if abs(number) > 1.7e308:
        raise cursor.malformed("the number is too large", start)
    return number


def read_literal(cursor: Cursor) -> JSON:
    """Read a quoted text, a number, true, false, null or an array of these. Raises Malformed."""
    character = cursor.peek()
    if character in ("'", '"'):
        return read_quoted(cursor)
    if character and character in "-0123456789":
        return read_number(cursor)
    for word, value in (("true", True), ("false", False), ("null", None)):
        if cursor.accept(word):
            return value
    if not cursor.accept("["):
        raise cursor.malformed(f"expected a quoted text, a number, true, false, null or a path, found {cursor.found()}")
    cursor.enter()
    values: list[JSON] = []
    cursor.skip_space()
    while not cursor.accept("]"):
        if values:
            cursor.expect(",", "between values")
            cursor.skip_space()
        values.append(read_literal(cursor))
        cursor.skip_space()
    cursor.leave()
    return values


def _either(cursor: Cursor) -> Condition:
    conditions = [_both(cursor)]
    while cursor.accept("||"):
        conditions.append(_both(cursor))
    return conditions[0] if len(conditions) == 1 else Or(tuple(conditions))


def _both(cursor: Cursor) -> Condition:
    conditions = [_single(cursor)]
    while cursor.accept("&&"):
        conditions.append(_single(cursor))
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _single(cursor: Cursor) -> Condition:
    cursor.enter()
    cursor.skip_space()
    condition: Condition
    if cursor.accept("!"):
        condition = Not(_single(cursor))
    elif cursor.accept("("):
        condition = _either(cursor)
        cursor.expect(")", "to close the bracket")
    else:
        condition = _comparison(cursor)
    cursor.skip_space()
    cursor.leave()
    return condition


def _comparison(cursor: Cursor) -> Condition:
    left = _operand(cursor)
    cursor.skip_space()
    if cursor.accept("=~"):
        cursor.skip_space()
        return Matches(left, _pattern(cursor))
    operator = next((each for each in COMPARISONS if cursor.accept(each)), "")
    if not operator:
        start = cursor.position
        while cursor.peek().isalpha():
            cursor.position += 1
        operator = cursor.text[start : cursor.position].lower()
        if operator and operator not in WORDS:
            raise cursor.malformed(f'"{operator}" is not an operator of filters', start)
    if not operator:
        return Exists(left) if isinstance(left, PathTree) else left
    cursor.skip_space()
    return Compare(operator, left, _operand(cursor))


class _Flags(NamedTuple):
    case_insensitive: bool
    multiline: bool = False


def _pattern(cursor: Cursor) -> Pattern:
    """`/expression/` with an `i` after it, perhaps."""
    start = cursor.position
    cursor.expect("/", "before a regular expression")
    source: list[str] = []
    while not cursor.accept("/"):
        character = cursor.peek()
        if not character:
            raise cursor.malformed("the regular expression that begins here is never closed", start)
        if character == "\\":
            source.append(character)
            cursor.position += 1
        source.append(cursor.peek())
        cursor.position += 1
    flags = cursor.position
    while cursor.peek().isalpha():
        cursor.position += 1
    if cursor.text[flags : cursor.position] not in ("", "i"):
        raise cursor.malformed('of the flags of a regular expression, only "i" is known', flags)
    try:
        return compile_pattern("".join(source), _Flags(case_insensitive=flags < cursor.position))
    except BadPattern as bad:
        raise cursor.malformed(str(bad), start) from None


def _operand(cursor: Cursor) -> Literal | PathTree:
    if cursor.peek() not in ("@", "$"):
        return Literal(read_literal(cursor))
    cursor.enter()
    tree = read_path(cursor, _ENDS_IN_FILTER)
    cursor.leave()
    return tree
