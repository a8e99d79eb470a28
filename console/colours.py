"""One colour for each state of things, wherever it is shown. Pure."""

from __future__ import annotations

from typing import Final

from enginekit.messages.status import BreakerState, ExecutionStatus

GOOD: Final = "green"
BUSY: Final = "cyan"
WAITING: Final = "yellow"
BAD: Final = "bold red"
QUIET: Final = "bright_black"
PLAIN: Final = ""

STATUS: Final = {
    ExecutionStatus.RUNNING: BUSY,
    ExecutionStatus.SUCCEEDED: GOOD,
    ExecutionStatus.FAILED: BAD,
    ExecutionStatus.TIMED_OUT: BAD,
    ExecutionStatus.CANCELED: WAITING,
    ExecutionStatus.TERMINATED: WAITING,
}
BREAKER: Final = {BreakerState.CLOSED: GOOD, BreakerState.HALF_OPEN: WAITING, BreakerState.OPEN: BAD}


WELL: Final = ("RUNNING", "READY")
"""Of a service, of the store."""


def of_service(state: str) -> str:
    """Of a service or the store."""
    return GOOD if state in WELL else BAD
