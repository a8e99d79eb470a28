"""JSONPath, compiled: a path becomes a function that reads a value.

A path that can only lead to one place (names and single indices) is definite: it answers the value there, and fails
where there is none. Any other path answers the list of what it finds, which may be empty, once the definite part it
begins with was found. That is Jayway's behaviour, which the reference service has. The common case, a plain reference
path, is read without a budget or a stage: its cost is its length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from daemon.language.errors import Failed, Missing
from daemon.language.evaluation import Evaluation
from daemon.language.filters import ABSENT, Found, Operand, compile_condition
from daemon.language.path_functions import FUNCTIONS
from daemon.language.path_syntax import parse_path
from daemon.language.path_tree import Descend, Filter, Function, Indices, Names, PathTree, Slice, Token
from daemon.language.values import kind
from enginekit.messages.json import JSON

Steps: TypeAlias = "tuple[str | int, ...]"
Stage: TypeAlias = Callable[[list[JSON], JSON, Evaluation], list[JSON]]
"""(the values found so far, the root, the evaluation) -> the values found next. Raises Failed when over budget."""


_BLIND: Final = frozenset({"length", "size", "first", "last", "index"})
"""The functions whose cost does not grow with what they are applied to."""


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled path.

    `reference` holds the steps of a path made of names and single indices only, else None. `root` is what it begins
    with: `$`, `$$` or `$variable`; `variables` names all that it refers to. `read` applies it to an input; raises
    Failed where there is nothing, and when over budget.
    """

    text: str
    root: str
    variables: frozenset[str]
    reference: Steps | None
    read: Callable[[JSON, Evaluation], JSON]


def compile_path(text: str) -> Path:
    """Compile a path. Raises Malformed."""
    return compile_tree(text, parse_path(text))


def compile_tree(text: str, tree: PathTree) -> Path:
    """Compile a path that was read already; `text` is how it is called in messages."""
    steps, rest = _split(tree.tokens)
    if rest:
        read = _searching(text, steps, rest, tree.root)
    elif tree.root != "$":
        read = _elsewhere(text, steps, tree.root)
    elif len(steps) == 1 and isinstance(steps[0], str):
        read = _field(text, steps[0])
    else:
        read = _reference(text, steps)
    return Path(
        text=text,
        root=tree.root,
        variables=frozenset(tree.variables()),
        reference=None if rest else steps,
        read=read,
    )


def _start(root: str) -> Callable[[JSON, Evaluation], JSON]:
    """Where a path with this root begins."""
    if root == "$":
        return lambda value, evaluation: value
    if root == "$$":
        return lambda value, evaluation: evaluation.context()
    name = root[1:]
    return lambda value, evaluation: evaluation.variable(name)


def _split(tokens: tuple[Token, ...]) -> tuple[Steps, tuple[Token, ...]]:
    """The steps a path begins with, and the tokens from the first one that is no step."""
    steps: list[str | int] = []
    for number, token in enumerate(tokens):
        if not isinstance(token, (str, int)):
            return tuple(steps), tokens[number:]
        steps.append(token)
    return tuple(steps), ()


def _field(text: str, name: str) -> Callable[[JSON, Evaluation], JSON]:
    def read(value: JSON, evaluation: Evaluation) -> JSON:
        if isinstance(value, dict) and name in value:
            return value[name]
        raise Missing(text, "$", (name,), value)

    return read


def _reference(text: str, steps: Steps) -> Callable[[JSON, Evaluation], JSON]:
    expected: list[tuple[Any, Any]] = [(dict if isinstance(step, str) else list, step) for step in steps]

    def read(value: JSON, evaluation: Evaluation) -> JSON:
        found: Any = value
        try:
            for sort, step in expected:
                if type(found) is not sort:
                    raise Missing(text, "$", steps, value)
                found = found[step]
        except LookupError:
            raise Missing(text, "$", steps, value) from None
        read_value: JSON = found
        return read_value

    return read


def _elsewhere(text: str, steps: Steps, root: str) -> Callable[[JSON, Evaluation], JSON]:
    """Reads a plain path into the context object or a variable."""
    start = _start(root)

    def read(value: JSON, evaluation: Evaluation) -> JSON:
        return _follow(text, root, steps, start(value, evaluation))

    return read


def _follow(text: str, root: str, steps: Steps, value: JSON) -> JSON:
    found = value
    for step in steps:
        if isinstance(step, str):
            if isinstance(found, dict) and step in found:
                found = found[step]
                continue
        elif isinstance(found, list) and -len(found) <= step < len(found):
            found = found[step]
            continue
        raise Missing(text, root, steps, value)
    return found


def _searching(text: str, steps: Steps, rest: tuple[Token, ...], root: str) -> Callable[[JSON, Evaluation], JSON]:
    """Reads a path that is more than steps: the steps, then stages, then functions."""
    search = _search(text, rest)
    first = None if isinstance(rest[0], Function) else rest[0]
    start = _start(root)

    def read(value: JSON, evaluation: Evaluation) -> JSON:
        origin = start(value, evaluation)
        held = _follow(text, root, steps, origin)
        if not _fits(first, held):
            raise Missing(text, root, steps, origin, _misfit(first, held))
        found = search(held, origin, evaluation)
        evaluation.weigh(found)
        return found

    return read


def _search(text: str, rest: tuple[Token, ...]) -> Callable[[JSON, JSON, Evaluation], JSON]:
    """What follows the steps, as a function of (the value they lead to, the root, the evaluation)."""
    calls = [_call(text, token) for token in rest if isinstance(token, Function)]
    tokens = [token for token in rest if not isinstance(token, Function)]
    definite = not tokens or (len(tokens) == 1 and isinstance(tokens[0], Names))
    gathered = definite or any(isinstance(token, Descend) for token in tokens)
    stages: list[Stage] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if isinstance(token, Descend):
            after = tokens[position]
            position += 1
            stages.append(_descend(_stage(after, below=True, last=position == len(tokens))))
        else:
            stages.append(_stage(token, below=False, last=position == len(tokens)))

    def search(value: JSON, root: JSON, evaluation: Evaluation) -> JSON:
        nodes = [value]
        for stage in stages:
            nodes = stage(nodes, root, evaluation)
            evaluation.spend(len(nodes))
        if gathered:
            answer: JSON = nodes[0] if definite else nodes
            for call in calls:
                answer = call(answer, evaluation)
            return answer
        for call in calls:
            nodes = [call(node, evaluation) for node in nodes]
        return nodes

    return search


def _fits(token: Token | None, value: JSON) -> bool:
    """Whether the token that follows the definite part can be applied to what that leads to."""
    if isinstance(token, (Slice, Indices)):
        return isinstance(value, list)
    if isinstance(token, Names):
        return isinstance(value, dict)
    return not isinstance(token, Filter) or isinstance(value, (list, dict))


def _misfit(token: Token | None, value: JSON) -> str:
    if isinstance(token, Names):
        return f"it wants fields of an object, and there is {kind(value)}"
    if isinstance(token, Filter):
        return f"a filter applies to an array or an object, and there is {kind(value)}"
    return f"it wants items of an array, and there is {kind(value)}"


def _call(text: str, function: Function) -> Callable[[JSON, Evaluation], JSON]:
    apply = FUNCTIONS[function.name]
    arguments = function.arguments
    looks = function.name not in _BLIND

    def call(value: JSON, evaluation: Evaluation) -> JSON:
        evaluation.spend(len(value) + 1 if looks and isinstance(value, (list, dict)) else 1)
        try:
            return apply(value, arguments)
        except Failed as failed:
            raise Failed(f'"{text}" cannot be worked out: {failed.reason}', failed.error) from None

    return call


def _descend(stage: Stage) -> Stage:
    """The stage, applied to every object and array in the values and below, parents before children."""

    def descend(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
        below: list[JSON] = []
        pending = nodes[::-1]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                below.append(node)
                children = list(node.values())
            elif isinstance(node, list):
                below.append(node)
                children = node[:]
            else:
                continue
            evaluation.spend(len(children) + 1)
            children.reverse()
            pending.extend(children)
        return stage(below, root, evaluation)

    return descend


def _stage(token: Token, *, below: bool, last: bool) -> Stage:
    """A token as a stage: what does not fit it is passed over. `below`: it stands after `..`."""
    if isinstance(token, str):
        name = token
        return lambda nodes, root, evaluation: [node[name] for node in nodes if isinstance(node, dict) and name in node]
    if isinstance(token, int):
        return _indices((token,))
    if isinstance(token, Indices):
        return _indices(token.indices)
    if isinstance(token, Slice):
        part = slice(token.start, token.end, token.step)
        return lambda nodes, root, evaluation: [item for node in nodes if isinstance(node, list) for item in node[part]]
    if isinstance(token, Names):
        return _merged(token.names) if last else _fields(token.names)
    if isinstance(token, Filter):
        return _filtered(token, below)
    return _children


def _children(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
    found: list[JSON] = []
    for node in nodes:
        if isinstance(node, list):
            evaluation.spend(len(node))
            found.extend(node)
        elif isinstance(node, dict):
            evaluation.spend(len(node))
            found.extend(node.values())
    return found


def _indices(indices: tuple[int, ...]) -> Stage:
    def stage(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
        found: list[JSON] = []
        for node in nodes:
            if isinstance(node, list):
                evaluation.spend(len(indices))
                found.extend([node[index] for index in indices if -len(node) <= index < len(node)])
        return found

    return stage


def _fields(names: tuple[str, ...]) -> Stage:
    def stage(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
        found: list[JSON] = []
        for node in nodes:
            if isinstance(node, dict):
                evaluation.spend(len(names))
                found.extend([node[name] for name in names if name in node])
        return found

    return stage


def _merged(names: tuple[str, ...]) -> Stage:
    """Several names at the end of a path: an object with those of them that are there."""

    def stage(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
        found: list[JSON] = []
        for node in nodes:
            if isinstance(node, dict):
                evaluation.spend(len(names))
                found.append({name: node[name] for name in names if name in node})
        return found

    return stage


def _filtered(token: Filter, below: bool) -> Stage:
    """The items of arrays, and the objects, for which the condition holds. Below `..` items come by on their own."""
    holds = compile_condition(token.condition, _operand)

    def stage(nodes: list[JSON], root: JSON, evaluation: Evaluation) -> list[JSON]:
        found: list[JSON] = []
        for node in nodes:
            if isinstance(node, dict):
                evaluation.spend(1)
                if holds(node, root, evaluation):
                    found.append(node)
            elif isinstance(node, list) and not below:
                evaluation.spend(len(node))
                found.extend([item for item in node if holds(item, root, evaluation)])
        return found

    return stage


def _operand(tree: PathTree) -> Operand:
    """A path in a filter: the value there, the list of values, or absent."""
    steps, rest = _split(tree.tokens)
    search = _search(tree.root, rest) if rest else None
    first = rest[0] if rest and not isinstance(rest[0], Function) else None
    elsewhere = _start(tree.root) if tree.root not in ("@", "$") else None
    of_item = tree.root == "@"

    def operand(value: JSON, root: JSON, evaluation: Evaluation) -> Found:
        found = value if of_item else root if elsewhere is None else elsewhere(value, evaluation)
        for step in steps:
            if isinstance(step, str):
                if isinstance(found, dict) and step in found:
                    found = found[step]
                    continue
            elif isinstance(found, list) and -len(found) <= step < len(found):
                found = found[step]
                continue
            return ABSENT
        if search is None:
            return found
        if not _fits(first, found):
            return ABSENT
        try:
            answer = search(found, root, evaluation)
        except Failed as failed:
            if failed.error:
                raise
            return ABSENT
        return ABSENT if answer == [] else answer

    return operand
