"""One evaluation: what it may see beyond its input, and how much work it may do.

The impure values (time, randomness, identifiers, the context object) come in through `Scope`; nothing in this package
gets them anywhere else. An `Evaluation` lives for one call and is never shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from daemon.language.errors import RUNTIME, Failed
from daemon.language.values import weigh
from enginekit.messages.json import JSON

MAX_STEPS: Final = 250_000
"""Values one evaluation may visit. A payload of 256 KiB holds at most about half as many."""


class Absent(Enum):
    """Nothing is there, which is not the same as null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def _none_assigned(name: str) -> JSON:
    raise KeyError(name)


class Meter:
    """How much work evaluations have done, in values visited: whoever runs many of them can tell when to pause."""

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation may see beyond its input.

    `context` builds the context object (`$$`); it is called at most once in an evaluation, and only when something
    refers to it. `variable` answers the value of a variable by its name, without the dollar sign, and raises KeyError
    where none is assigned. `random` answers a float in [0, 1). `uuid` answers a version 4 UUID as text. `now` is aware,
    in UTC. `meter` is told of all work done.
    """

    context: Callable[[], dict[str, JSON]]
    random: Callable[[], float]
    uuid: Callable[[], str]
    now: datetime
    variable: Callable[[str], JSON] = _none_assigned
    meter: Meter = msgspec.field(default_factory=Meter)


class Evaluation:
    """The budget of one evaluation, and what is looked up once in it: the context object, variables.

    `result` and `error_output` are what `$states` has beside the input, where the field is evaluated after the state's
    work or after its failure.
    """

    __slots__ = ("_context", "_steps", "_variables", "error_output", "result", "scope")

    def __init__(self, scope: Scope, result: JSON | Absent = ABSENT, error_output: JSON | Absent = ABSENT) -> None:
        self.scope = scope
        self.result = result
        self.error_output = error_output
        self._context: dict[str, JSON] | None = None
        self._variables: dict[str, JSON | Absent] = {}
        self._steps = MAX_STEPS

    def context(self) -> dict[str, JSON]:
        """The context object, built when it is first asked for."""
        context = self._context
        if context is None:
            context = self._context = self.scope.context()
        return context

    def variable(self, name: str) -> JSON:
        """A variable's value. Raises Failed where none is assigned."""
        value = self.find(name)
        if value is ABSENT:
            raise Failed(f'the variable "${name}" has no value here')
        return value

    def find(self, name: str) -> JSON | Absent:
        """A variable's value, ABSENT where none is assigned."""
        variables = self._variables
        if name in variables:
            return variables[name]
        value: JSON | Absent
        try:
            value = self.scope.variable(name)
        except KeyError:
            value = ABSENT
        variables[name] = value
        return value

    def spend(self, steps: int) -> None:
        """Account for visiting so many values. Raises Failed (States.Runtime) when the budget is used up."""
        self._steps -= steps
        self.scope.meter.spent += steps
        if self._steps < 0:
            raise Failed(
                f"it looks at more than {MAX_STEPS:,} values; narrow its paths or filters, or do it in a task",
                RUNTIME,
            )

    def weigh(self, value: JSON) -> None:
        """Account for building a value. Raises Failed when it is too large, or the budget is used up."""
        self.spend(weigh(value) >> 4)


def seeded(seed: float) -> float:
    """A fraction in [0, 1) that looks random and is the same for the same seed."""
    digest = hashlib.sha256(repr(seed).encode()).digest()
    return (int.from_bytes(digest[:7], "big") >> 3) / (1 << 53)


Expression: TypeAlias = Callable[[JSON, Evaluation], JSON]
"""A compiled expression: the value it is applied to, and the evaluation it is part of. Raises StateError."""
