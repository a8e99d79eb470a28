"""One evaluation: what it may see beyond its input, and how much work it may do.

The impure values (time, randomness, identifiers, the context object) come in through `Scope`; nothing in this package
gets them anywhere else. An `Evaluation` lives for one call and is never shared.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from daemon.language.errors import RUNTIME, Failed
from daemon.language.values import weigh
from enginekit.messages.json import JSON

MAX_STEPS: Final = 250_000
"""Values one evaluation may visit. A payload of 256 KiB holds at most about half as many."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation may see beyond its input.

    `context` builds the context object (`$$`); it is called at most once in an evaluation, and only when something
    refers to it. `random` answers a float in [0, 1). `uuid` answers a version 4 UUID as text. `now` is aware, in UTC.
    """

    context: Callable[[], dict[str, JSON]]
    random: Callable[[], float]
    uuid: Callable[[], str]
    now: datetime


class Evaluation:
    """The budget and the once-built context object of one evaluation."""

    __slots__ = ("_context", "_steps", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._context: dict[str, JSON] | None = None
        self._steps = MAX_STEPS

    def context(self) -> dict[str, JSON]:
        """The context object, built when it is first asked for."""
        context = self._context
        if context is None:
            context = self._context = self.scope.context()
        return context

    def spend(self, steps: int) -> None:
        """Account for visiting so many values. Raises Failed (States.Runtime) when the budget is used up."""
        self._steps -= steps
        if self._steps < 0:
            raise Failed(
                f"it looks at more than {MAX_STEPS:,} values; narrow its paths or filters, or do it in a task",
                RUNTIME,
            )

    def weigh(self, value: JSON) -> None:
        """Account for building a value. Raises Failed when it is too large, or the budget is used up."""
        self.spend(weigh(value) >> 4)


Expression: TypeAlias = Callable[[JSON, Evaluation], JSON]
"""A compiled expression: the value it is applied to, and the evaluation it is part of. Raises StateError."""
