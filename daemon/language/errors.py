"""What evaluating a definition can raise: an error of the language, and, inside this package, a failure not yet placed.

Nothing here knows states. An expression fails with `Failed`; whoever compiled the expression knows which field it
stands in and turns that into a `StateError` whose cause starts with the field's path.
"""

from __future__ import annotations

import re
from typing import Final

ALL: Final = "States.ALL"
BRANCH_FAILED: Final = "States.BranchFailed"
DATA_LIMIT_EXCEEDED: Final = "States.DataLimitExceeded"
HEARTBEAT_TIMEOUT: Final = "States.HeartbeatTimeout"
INTRINSIC_FAILURE: Final = "States.IntrinsicFailure"
NO_CHOICE_MATCHED: Final = "States.NoChoiceMatched"

QUERY_EVALUATION_ERROR: Final = "States.QueryEvaluationError"
RESULT_PATH_MATCH_FAILURE: Final = "States.ResultPathMatchFailure"
RUNTIME: Final = "States.Runtime"
TASK_FAILED: Final = "States.TaskFailed"
TIMEOUT: Final = "States.Timeout"

HTTP_STATUS: Final = re.compile(r"States\.Http\.StatusCode\.[1-5][0-9][0-9]")
"""What an HTTP call that was answered with an error fails with, by its status."""

RESERVED: Final = frozenset(
    {
        ALL,
        BRANCH_FAILED,
        DATA_LIMIT_EXCEEDED,
        HEARTBEAT_TIMEOUT,
        INTRINSIC_FAILURE,
        NO_CHOICE_MATCHED,
        "States.ParameterPathFailure",
        QUERY_EVALUATION_ERROR,
        RESULT_PATH_MATCH_FAILURE,
        RUNTIME,
        TASK_FAILED,
        TIMEOUT,
        "States.ExceedToleratedFailureThreshold",
        "States.Http.Socket",
        "States.ItemReaderFailed",
        "States.Permissions",
        "States.ResultWriterFailed",
    }
)
"""Every error name that begins with `States.` and means something."""


class StateError(Exception):
    """An error of the language, raised while a state was evaluated.

    `error` is what `Retry` and `Catch` match; `cause` says which field of which state, and why, for a person.
    """

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class Failed(Exception):
    """An expression found no answer. `error` is empty where the field that holds it decides the error's name."""

    def __init__(self, reason: str, error: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error

    def at(self, where: str, error: str) -> StateError:
        """The same failure, placed. `error` is its name unless it has one of its own."""
        return StateError(self.error or error, f"{where}: {self.reason}")


class Malformed(ValueError):
    """Text that is not in the syntax it should be in. `position` counts characters from 1."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position
