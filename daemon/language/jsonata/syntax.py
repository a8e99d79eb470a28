"""From text to a tree: the seam to the library that reads JSONata. Nothing of the library is seen beyond this file.

The library's tree is copied into one of our own, typed and measured: how deep it is and how many parts it has, which
later is what evaluating it costs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
from jsonata.jexception import JException
from jsonata.parser import Parser

from daemon.language.errors import Malformed
from daemon.language.jsonata.patterns import BadPattern, Pattern, compile_pattern

MAX_DEPTH: Final = 120
"""How deep expressions may nest in one another."""
MAX_TEXT: Final = 64 * 1024
MAX_PATTERNS: Final = 50
_PLAIN: Final = re.compile(
    r"\s*\$([A-Za-z_][A-Za-z0-9_]*)((?:\.(?!(?:and|or|in)\b)[A-Za-z_][A-Za-z0-9_]*)*)\s*", re.ASCII
)


class Tree(msgspec.Struct, kw_only=True, gc=False):
    """One part of an expression. `kind` says which of the fields mean something.

    `size` is how many parts it has in all, `height` how deep it is. `position` counts characters from 1.
    """

    kind: str
    position: int
    value: Any = None
    steps: list[Tree] = []
    expressions: list[Tree] = []
    pairs: list[tuple[Tree, Tree]] = []
    left: Tree | None = None
    right: Tree | None = None
    condition: Tree | None = None
    then: Tree | None = None
    otherwise: Tree | None = None
    procedure: Tree | None = None
    arguments: list[Tree] = []
    body: Tree | None = None
    pattern: Tree | None = None
    update: Tree | None = None
    delete: Tree | None = None
    stages: list[Tree] = []
    predicates: list[Tree] = []
    group: list[tuple[Tree, Tree]] | None = None
    terms: list[tuple[Tree, bool]] = []
    signature: str | None = None
    focus: str | None = None
    index: str | None = None
    ancestor: str | None = None
    keep_array: bool = False
    keep_singleton: bool = False
    made: bool = False
    tuples: bool = False
    thunk: bool = False
    size: int = 1
    height: int = 1


# The library types neither its parser's making nor its parts.
_fresh: Callable[[], Any] = Parser


class _Local(threading.local):
    parser: Any = None


_local = _Local()


def _counted() -> Callable[[str, Any], Pattern]:
    """What compiles the patterns of one expression, as many as it may have."""
    left = MAX_PATTERNS

    def engine(source: str, flags: Any) -> Pattern:
        nonlocal left
        left -= 1
        if left < 0:
            raise BadPattern(source, f"an expression has {MAX_PATTERNS} patterns at most")
        return compile_pattern(source, flags)

    return engine


def parse(text: str) -> Tree:
    """Read an expression. Raises Malformed."""
    if len(text) > MAX_TEXT:
        raise Malformed(f"the expression is longer than {MAX_TEXT:,} characters", 1)
    if not text.strip():
        raise Malformed("the expression is empty", 1)
    plain = _PLAIN.fullmatch(text)
    if plain is not None:
        return _plain(plain)
    _check_nesting(text)
    # Making a parser costs more than using it. One that has failed may be left in any state.
    parser, _local.parser = _local.parser or _fresh(), None
    parser.ancestry, parser.ancestor_label, parser.ancestor_index = [], 0, 0
    try:
        symbol = parser.parse(text, _counted())
    except JException as error:
        message = str(error)
        raise Malformed(f"{error.error}: {message[0].lower()}{message[1:]}", _place(error.location, text)) from None
    except BadPattern as error:
        raise Malformed(str(error), max(text.find(f"/{error.pattern}/"), 0) + 1) from None
    except RecursionError:
        raise _too_deep(1) from None
    except (AttributeError, IndexError, TypeError, ValueError, KeyError, RuntimeError, re.error) as error:
        # The library stumbles over some malformed texts instead of telling what is wrong.
        raise Malformed("S0201: syntax error", _place(getattr(parser.lexer, "position", 1), text)) from error
    tree = _tree(symbol, 0)
    _local.parser = parser
    return tree


def _plain(found: re.Match[str]) -> Tree:
    """What most expressions are, a variable and names after dots: it needs no parser."""
    variable = Tree(kind="variable", position=found.start(1) + 1, value=found[1])
    if not found[2]:
        return variable
    names = [Tree(kind="name", position=1, value=name) for name in found[2].split(".")[1:]]
    return Tree(kind="path", position=1, steps=[variable, *names], size=len(names) + 2, height=2)


def _check_nesting(text: str) -> None:
    depth = 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
            if depth > 4 * MAX_DEPTH:
                raise _too_deep(position + 1)
        elif character in ")]}":
            depth -= 1


def _too_deep(position: int) -> Malformed:
    return Malformed(f"nested more than {MAX_DEPTH} levels deep", position)


def _place(location: object, text: str) -> int:
    return min(location, len(text)) if isinstance(location, int) and location > 0 else 1


def _tree(symbol: Any, depth: int) -> Tree:
    """The library's symbol as a tree. What it lacks is None there."""
    position = symbol.position if isinstance(symbol.position, int) else 0
    if depth > MAX_DEPTH:
        raise _too_deep(position)
    inner = depth + 1

    def one(part: Any) -> Tree | None:
        return None if part is None else _tree(part, inner)

    def many(parts: Any) -> list[Tree]:
        if parts is None:
            return []
        return [_tree(part, inner) for part in (parts if isinstance(parts, list) else [parts])]

    def pairs(parts: Any) -> list[tuple[Tree, Tree]]:
        return [(_tree(pair[0], inner), _tree(pair[1], inner)) for pair in parts or []]

    value = symbol.value
    kind = symbol.type
    stages = [(stage.type, stage) for stage in symbol.stages or []]
    tree = Tree(
        kind=kind,
        position=max(position, 1),
        value=value if isinstance(value, (str, int, float, bool, Pattern)) else None,
        steps=many(symbol.steps),
        expressions=many(symbol.expressions),
        pairs=pairs(symbol.lhs_object),
        left=one(symbol.lhs),
        right=one(symbol.rhs),
        condition=one(symbol.condition),
        then=one(symbol.then),
        otherwise=one(symbol._else),
        procedure=one(symbol.procedure),
        arguments=many(symbol.arguments),
        body=one(symbol.body),
        pattern=one(symbol.pattern),
        update=one(symbol.update),
        delete=one(symbol.delete),
        stages=[_stage(sort, stage, inner) for sort, stage in stages],
        predicates=[_tree(each.expr, inner) for each in symbol.predicate or []],
        group=None if symbol.group is None else pairs(symbol.group.lhs_object),
        terms=[(_tree(term.expression, inner), bool(term.descending)) for term in symbol.terms or []],
        signature=None if symbol.signature is None else _signature(symbol.signature._params),
        focus=symbol.focus,
        index=symbol.index if isinstance(symbol.index, str) else None,
        ancestor=None if symbol.ancestor is None else symbol.ancestor.label,
        keep_array=bool(symbol.keep_array),
        keep_singleton=bool(symbol.keep_singleton_array),
        made=bool(symbol.consarray),
        tuples=bool(symbol.tuple),
        thunk=bool(symbol.thunk),
    )
    if kind == "parent":
        tree.value = symbol.slot.label
    if kind == "unary" and value == "-":
        tree.left = _tree(symbol.expression, inner)
    _measure(tree)
    return tree


def _signature(parameters: Any) -> str:
    """The library keeps a signature read, and not its text."""
    made: list[str] = []
    for each in parameters:
        item = f"<{each.subtype}>" if each.array and each.subtype else ""
        optional = "?" if each.regex.endswith("?") and not each.context else ""
        made.append(
            f"{each.type}{item}{'-' if each.context else ''}{optional}{'+' if each.regex.endswith('+') else ''}"
        )
    return f"<{''.join(made)}>"


def _stage(sort: str, stage: Any, depth: int) -> Tree:
    if sort == "index":
        return Tree(kind="index", position=1, value=stage.value)
    return _tree(stage.expr, depth)


def _measure(tree: Tree) -> None:
    parts: list[Tree] = [
        *tree.steps,
        *tree.expressions,
        *tree.arguments,
        *tree.stages,
        *tree.predicates,
        *(each for pair in (*tree.pairs, *(tree.group or ())) for each in pair),
        *(term for term, _ in tree.terms),
    ]
    parts += [
        part
        for part in (
            tree.left,
            tree.right,
            tree.condition,
            tree.then,
            tree.otherwise,
            tree.procedure,
            tree.body,
            tree.pattern,
            tree.update,
            tree.delete,
        )
        if part is not None
    ]
    tree.size = 1 + sum(part.size for part in parts)
    tree.height = 1 + max((part.height for part in parts), default=0)
