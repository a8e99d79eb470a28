"""Calling and making functions: lambdas and their closures, tail calls, partial application, chains, transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from daemon.language.errors import Failed
from daemon.language.jsonata.patterns import Match, Pattern
from daemon.language.jsonata.run import Code, Frame, Run
from daemon.language.jsonata.signatures import read_signature
from daemon.language.jsonata.syntax import Tree
from daemon.language.jsonata.values import UNDEFINED, Function, Value, quoted, settled

_LEVELS: Final = 3
"""How many of Python's frames a level of an expression takes, about."""
_CALL: Final = 4
"""What calling a function costs beside its body."""


class _TailCall:
    """A call that a function ends with, made when the function has been left: a recursion of them takes no stack."""

    __slots__ = ("arguments", "context", "function", "size")

    def __init__(self, function: Function, arguments: list[Value], context: Value, size: int) -> None:
        self.function = function
        self.arguments = arguments
        self.context = context
        self.size = size


class _Lambda(Function):
    """A function that is written. `once` runs it as far as the call it ends with."""

    __slots__ = ("once",)

    def __init__(self, arity: int, once: Callable[[list[Value], Value], Value], run: Run) -> None:
        self.once = once

        def call(arguments: list[Value], at: Value) -> Value:
            value = once(arguments, at)
            while isinstance(value, _TailCall):
                run.spend(value.size + _CALL)
                following = value.function
                work = following.once if isinstance(following, _Lambda) else following.call
                value = work(value.arguments, value.context)
            return value

        super().__init__("function", arity, call)


class Matcher(Function):
    """A regular expression. Called with a text, it answers the first match, and a function for the next."""

    __slots__ = ("pattern",)

    def __init__(self, pattern: Pattern, run: Run) -> None:
        self.pattern = pattern

        def call(arguments: list[Value], context: Value) -> Value:
            if not arguments or not isinstance(arguments[0], str):
                return UNDEFINED
            found = pattern.find(arguments[0], run.spend)

            def following() -> Value:
                match = next(found, None)
                return UNDEFINED if match is None else _told(match, lambda more, at: following())

            return following()

        super().__init__("regex", 1, call)


def _told(match: Match, following: Callable[[list[Value], Value], Value]) -> Value:
    return {
        "match": match.text,
        "start": match.start,
        "end": match.end,
        "groups": match.groups,
        "next": Function("next", 0, following),
    }


def regex(tree: Tree) -> Code:
    """`/pattern/`"""
    pattern = tree.value
    assert isinstance(pattern, Pattern)
    return lambda context, frame: Matcher(pattern, frame.run)


def call(procedure: Code, arguments: list[Code], tree: Tree) -> Code:
    """`$function(arguments)`"""

    def code(context: Value, frame: Frame) -> Value:
        function = procedure(context, frame)
        if not isinstance(function, Function):
            raise _no_function(tree, "T1005", "T1006", "call", frame)
        return settled(function.call([argument(context, frame) for argument in arguments], context))

    return code


def tail_call(procedure: Code, arguments: list[Code], tree: Tree) -> Code:
    """A call in the last place of a function."""
    size = tree.size

    def code(context: Value, frame: Frame) -> Value:
        function = procedure(context, frame)
        if not isinstance(function, Function):
            raise _no_function(tree, "T1005", "T1006", "call", frame)
        return _TailCall(function, [argument(context, frame) for argument in arguments], context, size)

    return code


def _no_function(tree: Tree, known: str, unknown: str, verb: str, frame: Frame) -> Failed:
    procedure = tree.procedure
    if procedure is None:
        return Failed(f"{unknown}: there is no function to {verb}")
    if procedure.kind == "path" and len(procedure.steps) == 1 and isinstance(procedure.steps[0].value, str):
        name = procedure.steps[0].value
        if frame.find(name) is not UNDEFINED:
            return Failed(f'{known}: "{name}" is no function to {verb}; did you mean "${name}"?')
        return Failed(f'{unknown}: "{name}" is no function to {verb}')
    if procedure.kind == "variable" and procedure.value:
        return Failed(f'{unknown}: "${procedure.value}" is no function to {verb}')
    return Failed(f"{unknown}: what is called is no function")


def function(names: list[str], body: Code, tree: Tree) -> Code:
    """`function($a, $b) { … }`: a closure over the frame and the context value it is made in."""
    signature = read_signature(tree.signature, "function") if tree.signature else None
    levels = _LEVELS * tree.height + 4
    size = tree.size + _CALL
    arity = len(names)

    def code(context: Value, frame: Frame) -> Value:
        run = frame.run

        def once(arguments: list[Value], at: Value) -> Value:
            run.spend(size)
            if signature is not None:
                arguments = signature.checked(arguments, at)
            run.descend(levels)
            bound = dict(zip(names, arguments, strict=False))
            for name in names[len(arguments) :]:
                bound[name] = UNDEFINED
            value = body(context, Frame(run, frame, bound))
            run.depth -= levels
            return value

        return _Lambda(arity, once, run)

    return code


def partial(procedure: Code, arguments: list[Code | None], tree: Tree) -> Code:
    """`$function(?, argument)`: a function of what is left open."""
    arity = arguments.count(None)

    def code(context: Value, frame: Frame) -> Value:
        function = procedure(context, frame)
        if not isinstance(function, Function):
            raise _no_function(tree, "T1007", "T1008", "apply in part", frame)
        given = [None if argument is None else (argument(context, frame),) for argument in arguments]

        def invoke(more: list[Value], at: Value) -> Value:
            left = iter(more)
            return function.call([next(left, UNDEFINED) if each is None else each[0] for each in given], at)

        return Function(function.name, arity, invoke)

    return code


def applied(left: Code, right: Code) -> Code:
    """`value ~> $function`, or `$function ~> $function`."""

    def code(context: Value, frame: Frame) -> Value:
        value = left(context, frame)
        second = right(context, frame)
        if not isinstance(second, Function):
            raise Failed("T2006: The right side of the function application operator ~> must be a function")
        if not isinstance(value, Function):
            return settled(second.call([value], UNDEFINED))
        first = value
        return Function("chain", 1, lambda arguments, at: second.call([first.call(arguments, at)], at))

    return code


def transform(pattern: Code, update: Code, delete: Code | None, size: int) -> Code:
    """`|pattern|update,delete|`: a function that answers a changed copy."""

    def code(context: Value, frame: Frame) -> Value:
        run = frame.run

        def invoke(arguments: list[Value], at: Value) -> Value:
            value = arguments[0] if arguments else UNDEFINED
            if value is UNDEFINED:
                return UNDEFINED
            if not isinstance(value, (dict, list)):
                raise Failed('T0410: Argument 1 of function "transform" does not match function signature')
            copied = copy(value, run.spend)
            found = pattern(copied, frame)
            for match in [] if found is UNDEFINED else found if isinstance(found, list) else [found]:
                run.spend(size)
                _change(match, update(match, frame))
                if delete is not None:
                    _remove(match, delete(match, frame))
            return copied

        return Function("transform", 1, invoke)

    return code


def copy(value: Value, spend: Callable[[int], None]) -> Value:
    """The value with objects and arrays of its own."""
    if isinstance(value, dict):
        spend(len(value) + 1)
        return {name: copy(item, spend) for name, item in value.items()}
    if isinstance(value, list):
        spend(len(value) + 1)
        return [copy(item, spend) for item in value]
    return value


def _change(match: Value, update: Value) -> None:
    if update is UNDEFINED:
        return
    if not isinstance(update, dict):
        raise Failed(
            f"T2011: The insert/update clause of the transform expression must evaluate to an object: {quoted(update)}"
        )
    if isinstance(match, dict):
        match.update(update)


def _remove(match: Value, names: Value) -> None:
    if names is UNDEFINED:
        return
    names = names if isinstance(names, list) else [names]
    if not all(isinstance(name, str) for name in names):
        raise Failed(
            "T2012: The delete clause of the transform expression must evaluate to a string or array of strings: "
            f"{quoted(names)}"
        )
    if isinstance(match, dict):
        for name in names:
            match.pop(name, None)
