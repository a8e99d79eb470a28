"""How executions end and how calls are refused: the enums of the wire, and the one exception that carries a refusal."""

from __future__ import annotations

from enum import Enum

from enginekit.messages.json import JSON


class ExecutionStatus(str, Enum):
    """Where an execution stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    TERMINATED = "TERMINATED"

    @property
    def closed(self) -> bool:
        return self is not ExecutionStatus.RUNNING


class BreakerState(str, Enum):
    """Where a circuit breaker stands."""

    CLOSED = "CLOSED"
    """Everything is let through."""
    OPEN = "OPEN"
    """Nothing is."""
    HALF_OPEN = "HALF_OPEN"
    """A few calls are, to see how they go."""


class ErrorStatus(str, Enum):
    """Why a call was refused (`data.status` of a JSON-RPC error)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class ReportRefusal(str, Enum):
    """Why a worker's report changed nothing (`data.reason`)."""

    ALREADY_RECORDED = "ALREADY_RECORDED"
    TIMED_OUT = "TIMED_OUT"
    CLOSED = "CLOSED"


class Refused(Exception):
    """A call was refused and wrote nothing.

    `message` is for a person: what was wrong, where, what to do. `data` joins `status` in the JSON-RPC error's data
    (`retry_after_seconds`, `reason`, `faults`, …).
    """

    def __init__(self, status: ErrorStatus, message: str, data: dict[str, JSON] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.data: dict[str, JSON] = data if data is not None else {}

    def __str__(self) -> str:
        return f"{self.status.value}: {self.message}"
