"""What differs from vendor to vendor, as the node sees it: how a request is written, how an answer is read.

Interfaces only; `openai_dialect.py` and `anthropic_dialect.py` are the two there are. Both are pure.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

import msgspec

from daemon.nodes.ai.answer import Answer
from daemon.nodes.ai.errors import AiError, failed
from enginekit.node import NodeFailure, Usage

MOST_TOKENS: Final = 10**9

T = TypeVar("T")


class Reader(Protocol):
    """One answer, gathered from its events."""

    @property
    def usage(self) -> Usage:
        """What was used, as far as the server has said."""

    def take(self, data: str) -> bool:
        """The data of one more event; whether it is the last. Raises NodeFailure: it is not what it should be, says
        that the server failed, or makes the answer too long."""

    def answer(self) -> Answer:
        """After the last event. Raises NodeFailure `Ai.ConnectionLost`: there are events missing."""


def typed(data: str, kind: type[T]) -> T:
    """An event's data, its fields checked. Raises NodeFailure `Ai.ProtocolError`."""
    try:
        return msgspec.json.decode(data.encode(), type=kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise failed(AiError.PROTOCOL_ERROR, f"an event of the answer is not what it should be: {error}") from error


def tokens(count: int | None) -> int:
    """A count as a server gives it, within reason: counts add up, and have to fit where they are kept."""
    return max(0, min(count or 0, MOST_TOKENS))


def cut_off() -> NodeFailure:
    return failed(AiError.CONNECTION_LOST, "the stream of events ended before the answer was complete")
