"""What the pages need of whoever has the connection. The real one is `console.connection`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from console.state import Choice, ConsoleState
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.status import Refused
from enginekit.methods import Caller

FAILURES: Final = (Refused, Unreachable, ProtocolError)
"""What a call may raise."""


class Source(Caller):
    """The state as it is known now, and calls to the daemon. `call` raises FAILURES."""

    @property
    @abstractmethod
    def state(self) -> ConsoleState: ...

    @abstractmethod
    def now(self) -> float:
        """Seconds since 1970 UTC."""

    @abstractmethod
    def choose(self, choice: Choice) -> None:
        """Other executions are wanted."""

    @abstractmethod
    def read_on(self) -> None:
        """Older executions are wanted."""

    @abstractmethod
    def look_at(self, workflow_id: str, run_id: str) -> None:
        """This execution is being looked at: `state.opened` tells of it."""

    @abstractmethod
    def look_away(self) -> None:
        """No execution is being looked at."""

    @abstractmethod
    def try_again(self) -> None:
        """Connect now, or read anew what is connected."""
