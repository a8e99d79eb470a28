"""How the services reach one another: one link into each service, behind one interface.

A link belongs to the supervisor and survives a restart of either end. It is bounded: `offer` says no when it is full,
`send` waits, `request` ends with UNAVAILABLE at its deadline. Messages are typed structs that another transport can
encode; nothing but those may pass, no callables and no shared objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import msgspec
import trio

from enginekit.messages.calls import Call, Result
from enginekit.messages.status import Refused

M = TypeVar("M")
R = TypeVar("R", bound=Result)


class Caller(msgspec.Struct, frozen=True):
    """On whose behalf a request is made. `subject` becomes `by` in the events."""

    tenant: str
    subject: str


class Request(ABC):
    """A call that somebody waits for. Exactly one of `answer` and `refuse` ends it; later ones change nothing."""

    __slots__ = ("call", "caller", "deadline")

    def __init__(self, caller: Caller, call: Call, deadline: float) -> None:
        self.caller = caller
        self.call = call
        self.deadline = deadline
        """In `trio.current_time()`: after it nobody waits any more."""

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for the answer, as far as is known. Work handed out with an answer that nobody
        reads is lost until somebody misses it: look before taking any."""
        return trio.current_time() < self.deadline

    @abstractmethod
    def answer(self, result: Result) -> None: ...

    @abstractmethod
    def refuse(self, refused: Refused) -> None: ...


class Link(ABC, Generic[M]):
    """The way into one service. `M` is the union of its one-way messages."""

    @abstractmethod
    def offer(self, message: M) -> bool:
        """Put a message in without waiting; False (and nothing sent) when the link is full."""

    @abstractmethod
    async def send(self, message: M) -> None:
        """Put a message in, waiting for room. Cancelled: nothing was sent."""

    @abstractmethod
    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        """Ask and wait for the answer, at most `timeout` seconds.

        Raises Refused: whatever the service answered, RESOURCE_EXHAUSTED when the link is full, UNAVAILABLE when no
        answer came in time. Cancelled: the answer is dropped.
        """

    @abstractmethod
    async def receive(self, limit: int = 256) -> list[M | Request]:
        """Everything that waits, oldest first, up to `limit`; waits while there is nothing. Requests past their
        deadline are left out. Cancelled: nothing was taken."""
