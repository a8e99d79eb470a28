"""Which variables a definition assigns and refers to, scope by scope, and what is wrong with that.

A machine is a scope: the whole definition, a branch, an item processor. What an outer scope assigns can be read inside
and not assigned there again; what an inner one assigns is gone with it. A distributed Map's processor sees nothing of
outside. Source: Step Functions developer guide, "Passing data between states with variables".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

MAX_NAME: Final = 80
RESERVED: Final = "states"
_NAME: Final = re.compile(r"[^\W\d]\w*")

Report = Callable[[str, str], None]


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a variable."""
    if name == RESERVED:
        return '"states" is reserved: a variable cannot have this name'
    if not _NAME.fullmatch(name):
        return f'"{name[:MAX_NAME]}" is no name for a variable: letters, digits and _, not beginning with a digit'
    if len(name) > MAX_NAME:
        return f"the name of a variable has {MAX_NAME} characters at most, and this one has {len(name)}"
    return None


class VariableScope:
    """The variables of one machine. `outer` is the scope whose variables can be read in it."""

    __slots__ = ("_assigned", "_inner", "_outer", "_referred")

    def __init__(self, outer: VariableScope | None = None, *, isolated: bool = False) -> None:
        self._outer = None if isolated else outer
        self._assigned: dict[str, str] = {}
        self._referred: list[tuple[str, str, Iterable[str]]] = []
        self._inner: list[VariableScope] = []
        if outer is not None:
            outer._inner.append(self)

    def assign(self, name: str, path: str) -> None:
        """The field at this path assigns it."""
        self._assigned.setdefault(name, path)

    def refer(self, names: Iterable[str], path: str, known: Iterable[str] = ()) -> None:
        """The field at this path refers to these. `known` are names of something else that may have been meant."""
        self._referred.extend((name, path, known) for name in sorted(names))

    def check(self, fault: Report, suggest: Callable[[str, Iterable[str]], str]) -> None:
        """Note what is wrong here and in the scopes inside."""
        for name, path, known in self._referred:
            if name != RESERVED and self._place_of(name) is None:
                fault(path, f'no state in reach assigns "${name}"{suggest(name, chain(self._names(), known))}')
        if self._outer is not None:
            for name, path in self._assigned.items():
                outside = self._outer._place_of(name)
                if outside is not None:
                    fault(path, f'"${name}" is assigned outside, at {outside}; in here it can only be read')
        for scope in self._inner:
            scope.check(fault, suggest)

    def _place_of(self, name: str) -> str | None:
        """Where a variable that can be read here is assigned."""
        scope: VariableScope | None = self
        while scope is not None:
            if name in scope._assigned:
                return scope._assigned[name]
            scope = scope._outer
        return None

    def _names(self) -> Iterator[str]:
        scope: VariableScope | None = self
        while scope is not None:
            yield from scope._assigned
            scope = scope._outer
