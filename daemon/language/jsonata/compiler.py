"""From a tree to closures: what each kind of expression does. Paths, calls and operators have files of their own.

Every part is compiled once to a `Code`: a function of the context value and the frame of variables. What evaluating it
costs is accounted for where it is repeated (the items of a path's step, the calls of a function), by the size of what
is repeated: code without repetition has no more parts than its text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from daemon.language.errors import Malformed
from daemon.language.jsonata import calls, operators, paths, selection
from daemon.language.jsonata.run import Code, Frame
from daemon.language.jsonata.syntax import Tree
from daemon.language.jsonata.values import (
    UNDEFINED,
    Made,
    Sequence,
    Value,
    number,
    truth,
)

T = TypeVar("T")


class Compiler:
    """One compilation. `variables` gathers the names that the expression refers to and does not bind, `parts` the
    fields that it reads of them by name."""

    def __init__(self, built_in: frozenset[str]) -> None:
        self.variables: set[str] = set()
        self.parts: set[tuple[str, str]] = set()
        self.patterns = 0
        self._built_in = built_in
        self._bound: list[set[str]] = [set()]
        self._kinds: dict[str, Callable[[Tree], Code]] = {
            "path": self._path,
            "binary": self._binary,
            "unary": self._unary,
            "name": lambda tree: selection.field(str(tree.value)),
            "string": self._literal,
            "number": self._literal,
            "value": self._literal,
            "regex": self._regex,
            "wildcard": lambda tree: selection.wildcard,
            "descendant": lambda tree: selection.descendants,
            "parent": lambda tree: _variable_code(str(tree.value)),
            "variable": self._variable,
            "condition": self._condition,
            "block": self._block,
            "bind": self._bind,
            "function": self._call,
            "partial": self._partial,
            "lambda": self._function,
            "apply": self._apply,
            "transform": self._transform,
            "and": self._binary,
            "or": self._binary,
        }

    def compile(self, tree: Tree) -> Code:
        """The code of an expression, its predicates and its grouping."""
        make = self._kinds.get(tree.kind)
        if make is None:
            raise Malformed(f"S0206: unknown kind of expression ({tree.kind})", tree.position)
        code = make(tree)
        for predicate in tree.predicates:
            code = selection.filtered(code, self.filter(predicate))
        if tree.group is not None and tree.kind != "path":
            code = selection.grouped(code, self.group(tree.group))
        if tree.keep_array and tree.kind != "path":
            code = _kept(code)
        return code

    def filter(self, tree: Tree) -> selection.Filter:
        """What stands in the brackets of a predicate."""
        if tree.kind == "number":
            return selection.by_index(tree.value)
        return selection.by_condition(self.compile(tree), tree.size)

    def group(self, pairs: list[tuple[Tree, Tree]]) -> selection.Group:
        """What stands in the braces of an object or a grouping."""
        compiled = [(self.compile(name), self.compile(value)) for name, value in pairs]
        return selection.group(compiled, sum(name.size + value.size for name, value in pairs))

    # --- names --------------------------------------------------------------------------------------------------

    def _literal(self, tree: Tree) -> Code:
        value = tree.value
        if isinstance(value, float):
            value = number(value)
        return lambda context, frame: value

    def _variable(self, tree: Tree) -> Code:
        name = str(tree.value)
        if name == "":
            return lambda context, frame: context
        if name == "$":
            return lambda context, frame: UNDEFINED
        self._refer(name)
        return _variable_code(name)

    def _refer(self, name: str) -> None:
        if not any(name in bound for bound in self._bound) and name not in self._built_in:
            self.variables.add(name)

    def _scoped(self, names: set[str], compile_inner: Callable[[], T]) -> T:
        self._bound.append(names)
        try:
            return compile_inner()
        finally:
            self._bound.pop()

    def _regex(self, tree: Tree) -> Code:
        self.patterns += 1
        return calls.regex(tree)

    # --- structure ----------------------------------------------------------------------------------------------

    def _path(self, tree: Tree) -> Code:
        names = {name for step in tree.steps for name in (step.focus, step.index) if name is not None}
        names |= {str(stage.value) for step in tree.steps for stage in step.stages if stage.kind == "index"}
        if len(tree.steps) > 1 and tree.steps[0].kind == "variable" and tree.steps[1].kind == "name":
            self.parts.add((str(tree.steps[0].value), str(tree.steps[1].value)))
        return self._scoped(names, lambda: paths.path(tree, self))

    def _binary(self, tree: Tree) -> Code:
        assert tree.left is not None
        assert tree.right is not None
        return operators.binary(str(tree.value), self.compile(tree.left), self.compile(tree.right))

    def _unary(self, tree: Tree) -> Code:
        if tree.value == "-":
            assert tree.left is not None
            return operators.negated(self.compile(tree.left))
        if tree.value == "{":
            return self._object(tree.pairs)
        items = [(self.compile(item), item.kind == "unary" and item.value == "[") for item in tree.expressions]
        return _array(items, Made if tree.made else list)

    def _object(self, pairs: list[tuple[Tree, Tree]]) -> Code:
        names = [str(name.value) for name, _ in pairs if name.kind == "string" and not (name.predicates or name.group)]
        if len(set(names)) < len(pairs):
            return selection.built(self.group(pairs))
        compiled = [(self.compile(name), self.compile(value)) for name, value in pairs]
        size = sum(name.size + value.size for name, value in pairs)
        values = [value for _, value in compiled]
        return selection.written(list(zip(names, values, strict=True)), selection.group(compiled, size), size)

    def _condition(self, tree: Tree) -> Code:
        assert tree.condition is not None
        assert tree.then is not None
        condition, then = self.compile(tree.condition), self.compile(tree.then)
        otherwise = self.compile(tree.otherwise) if tree.otherwise is not None else None

        def code(context: Value, frame: Frame) -> Value:
            if truth(condition(context, frame), frame.run.spend):
                return then(context, frame)
            return UNDEFINED if otherwise is None else otherwise(context, frame)

        return code

    def _block(self, tree: Tree) -> Code:
        names: set[str] = set()
        codes = self._scoped(names, lambda: [self.compile(each) for each in tree.expressions])
        # Brackets around one expression that binds nothing need no variables of their own.
        return codes[0] if len(codes) == 1 and not names else _block(codes)

    def _bind(self, tree: Tree) -> Code:
        assert tree.left is not None
        assert tree.right is not None
        name = str(tree.left.value)
        # A function may refer to itself.
        self._bound[-1].add(name)
        value = self.compile(tree.right)

        def code(context: Value, frame: Frame) -> Value:
            found = frame.names[name] = value(context, frame)
            return found

        return code

    # --- functions ----------------------------------------------------------------------------------------------

    def _call(self, tree: Tree) -> Code:
        assert tree.procedure is not None
        procedure = self.compile(tree.procedure)
        arguments = [self.compile(argument) for argument in tree.arguments]
        return calls.call(procedure, arguments, tree)

    def _partial(self, tree: Tree) -> Code:
        assert tree.procedure is not None
        procedure = self.compile(tree.procedure)
        arguments = [
            None if each.kind == "operator" and each.value == "?" else self.compile(each) for each in tree.arguments
        ]
        return calls.partial(procedure, arguments, tree)

    def _function(self, tree: Tree) -> Code:
        assert tree.body is not None
        body = tree.body
        if tree.thunk:
            assert body.procedure is not None
            procedure = self.compile(body.procedure)
            return calls.tail_call(procedure, [self.compile(argument) for argument in body.arguments], body)
        names = [str(argument.value) for argument in tree.arguments]
        code = self._scoped(set(names), lambda: self.compile(body))
        return calls.function(names, code, tree)

    def _apply(self, tree: Tree) -> Code:
        assert tree.left is not None
        assert tree.right is not None
        left = self.compile(tree.left)
        if tree.right.kind == "function":
            right = tree.right
            assert right.procedure is not None
            procedure = self.compile(right.procedure)
            arguments = [left, *(self.compile(argument) for argument in right.arguments)]
            code = calls.call(procedure, arguments, right)
            for predicate in right.predicates:
                code = selection.filtered(code, self.filter(predicate))
            return code
        return calls.applied(left, self.compile(tree.right))

    def _transform(self, tree: Tree) -> Code:
        assert tree.pattern is not None
        assert tree.update is not None
        delete = self.compile(tree.delete) if tree.delete is not None else None
        size = tree.update.size + (tree.delete.size if tree.delete is not None else 0)
        return calls.transform(self.compile(tree.pattern), self.compile(tree.update), delete, size)


def _variable_code(name: str) -> Code:
    return lambda context, frame: frame.find(name)


def _kept(code: Code) -> Code:
    """`[]` after something that is no path: an array even of one."""

    def kept(context: Value, frame: Frame) -> Value:
        value = code(context, frame)
        if isinstance(value, Sequence):
            value.keep = True
        return value

    return kept


def _block(codes: list[Code]) -> Code:
    def code(context: Value, frame: Frame) -> Value:
        inner = Frame(frame.run, frame, {})
        value: Value = UNDEFINED
        for each in codes:
            value = each(context, inner)
        return value

    return code


def _array(items: list[tuple[Code, bool]], sort: type[list[Value]]) -> Code:
    def code(context: Value, frame: Frame) -> Value:
        made: list[Value] = []
        for item, written in items:
            value = item(context, frame)
            if value is UNDEFINED:
                continue
            if written or not isinstance(value, list):
                made.append(value)
            else:
                frame.run.spend(len(value))
                made.extend(value)
        return sort(made)

    return code
