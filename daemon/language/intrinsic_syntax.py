"""The syntax of intrinsic functions: from `States.Format('{}!', $.name)` to a tree. No evaluation here."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final, NamedTuple, TypeAlias

from daemon.language.path_syntax import read_argument_path, read_number
from daemon.language.path_tree import Cursor, PathTree
from enginekit.messages.json import JSON

MAX_NESTED: Final = 10

ARGUMENTS: Final[dict[str, tuple[int, int]]] = {
    "States.Array": (0, 10_000),
    "States.ArrayContains": (2, 2),
    "States.ArrayGetItem": (2, 2),
    "States.ArrayLength": (1, 1),
    "States.ArrayPartition": (2, 2),
    "States.ArrayRange": (3, 3),
    "States.ArrayUnique": (1, 1),
    "States.Base64Decode": (1, 1),
    "States.Base64Encode": (1, 1),
    "States.Format": (1, 10_000),
    "States.Hash": (2, 2),
    "States.JsonMerge": (3, 3),
    "States.JsonToString": (1, 1),
    "States.MathAdd": (2, 2),
    "States.MathRandom": (2, 3),
    "States.StringSplit": (2, 2),
    "States.StringToJson": (1, 1),
    "States.UUID": (0, 0),
}
"""Every intrinsic function, and how many arguments it takes: at least, at most."""

_RESERVED: Final = "'{}\\"


class Text(NamedTuple):
    """Text in quotes. `pieces` is what stands before, between and after the `{}` in it."""

    value: str
    pieces: tuple[str, ...]


class Value(NamedTuple):
    """A number, true, false or null."""

    value: JSON


class Place(NamedTuple):
    """A path, and how it was written."""

    text: str
    tree: PathTree


class Call(NamedTuple):
    """A function and its arguments."""

    name: str
    arguments: tuple[Argument, ...]


Argument: TypeAlias = "Text | Value | Place | Call"


def parse_call(text: str) -> Call:
    """Read a whole call. Raises Malformed."""
    cursor = Cursor(text)
    cursor.skip_space()
    call = _call(cursor)
    cursor.skip_space()
    if cursor.position < len(text):
        raise cursor.malformed(f"unexpected {cursor.found()} after the function")
    return call


def split_template(text: str) -> tuple[str, ...]:
    """The pieces of a template before, between and after its `{}`; a backslash lets a reserved character stand."""
    pieces: list[str] = []
    piece: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        following = text[position + 1 : position + 2]
        if character == "\\" and following and following in _RESERVED:
            piece.append(following)
            position += 2
        elif character == "{" and following == "}":
            pieces.append("".join(piece))
            piece = []
            position += 2
        else:
            piece.append(character)
            position += 1
    pieces.append("".join(piece))
    return tuple(pieces)


def _call(cursor: Cursor) -> Call:
    start = cursor.position
    while cursor.peek().isalnum() or cursor.peek() in (".", "_"):
        cursor.position += 1
    name = cursor.text[start : cursor.position]
    if name not in ARGUMENTS:
        near = get_close_matches(name[:60], list(ARGUMENTS), 1, 0.75)
        hint = f', did you mean "{near[0]}"?' if near else ""
        raise cursor.malformed(f'no intrinsic function "{name[:60]}"{hint}', start)
    cursor.depth += 1
    if cursor.depth > MAX_NESTED:
        raise cursor.malformed(f"intrinsic functions may nest {MAX_NESTED} deep", start)
    cursor.expect("(", f"after {name}")
    cursor.skip_space()
    arguments: list[Argument] = []
    while not cursor.accept(")"):
        if arguments:
            cursor.expect(",", "or a closing bracket between arguments")
            cursor.skip_space()
        arguments.append(_argument(cursor))
        cursor.skip_space()
    cursor.depth -= 1
    least, most = ARGUMENTS[name]
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} or {most}" if most == least + 1 else f"at least {least}"
        raise cursor.malformed(f"{name} takes {wanted} argument{'s' * (wanted != '1')}, not {len(arguments)}", start)
    call = Call(name, tuple(arguments))
    if name == "States.Format" and isinstance(call.arguments[0], Text):
        places = len(call.arguments[0].pieces) - 1
        if places != len(arguments) - 1:
            raise cursor.malformed(
                f"the template has {places} places {{}} and {len(arguments) - 1} values are given for them", start
            )
    return call


def _argument(cursor: Cursor) -> Argument:
    character = cursor.peek()
    start = cursor.position
    if character == "'":
        return _text(cursor)
    if character == "$":
        depth, cursor.depth = cursor.depth, 0
        tree = read_argument_path(cursor)
        cursor.depth = depth
        return Place(cursor.text[start : cursor.position], tree)
    if character and character in "-0123456789":
        return Value(read_number(cursor))
    for word, value in (("true", True), ("false", False), ("null", None)):
        if cursor.accept(word):
            return Value(value)
    if character == '"':
        raise cursor.malformed("text in an intrinsic function stands in single quotes")
    if not character.isalpha():
        raise cursor.malformed(
            f"expected an argument (a path, a text in single quotes, a number, true, false, null or a function), "
            f"found {cursor.found()}"
        )
    return _call(cursor)


def _text(cursor: Cursor) -> Text:
    start = cursor.position
    cursor.position += 1
    raw: list[str] = []
    value: list[str] = []
    while not cursor.accept("'"):
        character = cursor.peek()
        if not character:
            raise cursor.malformed("the quote that opens here is never closed", start)
        cursor.position += 1
        raw.append(character)
        if character == "\\":
            character = cursor.peek()
            if not character or character not in _RESERVED:
                raise cursor.malformed(r"a backslash may stand before ' { } and \ only", cursor.position - 1)
            raw.append(character)
            cursor.position += 1
        value.append(character)
    return Text("".join(value), split_template("".join(raw)))
