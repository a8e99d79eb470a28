"""One evaluation of a query: its budget, its frames of variables, and what lies outside of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from daemon.language.errors import Failed
from daemon.language.evaluation import Evaluation
from daemon.language.jsonata.values import UNDEFINED, Function, Undefined, Value
from enginekit.messages.json import JSON

TIMEOUT: Final = "Expression evaluation timeout: Check for infinite loop"
MEMORY: Final = "Expression evaluation memory limit exceeded: Check for excessive memory usage"
DEPTH: Final = (
    "Stack overflow error: Check for non-terminating recursive function. Consider rewriting as tail-recursive"
)
"""What the reference service says of an expression that does more than it may."""

MAX_DEPTH: Final = 1_500
"""How deep calls may nest, in levels of the expressions that they stand in: far from where Python's own stack ends."""


class Run:
    """The state of one evaluation. `spend` accounts for work; raises Failed when the budget is used up."""

    __slots__ = ("_bindings", "_built_in", "_known", "depth", "evaluation", "spend")

    def __init__(
        self,
        evaluation: Evaluation,
        bindings: Callable[[str], JSON | Undefined],
        built_in: Mapping[str, Callable[[Run], Function]],
    ) -> None:
        self.evaluation = evaluation
        self.spend = evaluation.spend
        self.depth = 0
        self._bindings = bindings
        self._built_in = built_in
        self._known: dict[str, Value] = {}

    def outside(self, name: str) -> Value:
        """What a name means that nothing inside the expression binds: a variable, or a function of the language."""
        known = self._known
        if name in known:
            return known[name]
        value: Value = self._bindings(name)
        if value is UNDEFINED:
            make = self._built_in.get(name)
            if make is not None:
                value = make(self)
        known[name] = value
        return value

    def forget(self) -> None:
        """The evaluation is over. The functions it looked up refer to it, and it to them no more: nobody has to collect
        them."""
        self._known.clear()

    def descend(self, levels: int) -> None:
        """Enter a call. Raises Failed."""
        self.depth += levels
        if self.depth > MAX_DEPTH:
            raise Failed(DEPTH)


class Frame:
    """Variables bound at one level; what is not here is looked for further out."""

    __slots__ = ("names", "outer", "run")

    def __init__(self, run: Run, outer: Frame | None, names: dict[str, Value]) -> None:
        self.run = run
        self.outer = outer
        self.names = names

    def find(self, name: str) -> Value:
        """A variable's value, UNDEFINED where there is none."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame.names[name]
            frame = frame.outer
        return self.run.outside(name)

    def inner(self, names: dict[str, Value]) -> Frame:
        """A frame inside of this one."""
        return Frame(self.run, self, names)


Code = Callable[[Value, Frame], Value]
"""A compiled expression: (the context value, the variables) -> its value."""
