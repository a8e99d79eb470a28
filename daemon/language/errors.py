"""What evaluating a definition can raise: an error of the language, and, inside this package, a failure not yet placed.

Nothing here knows states. An expression fails with `Failed`; whoever compiled the expression knows which field it
stands in and turns that into a `StateError`, in the words of `causes`.
"""

from __future__ import annotations

import re
from typing import Final

from enginekit.messages.json import JSON, NotJSON, encode

ALL: Final = "States.ALL"
BRANCH_FAILED: Final = "States.BranchFailed"
DATA_LIMIT_EXCEEDED: Final = "States.DataLimitExceeded"
HEARTBEAT_TIMEOUT: Final = "States.HeartbeatTimeout"
INTRINSIC_FAILURE: Final = "States.IntrinsicFailure"
NO_CHOICE_MATCHED: Final = "States.NoChoiceMatched"

QUERY_EVALUATION_ERROR: Final = "States.QueryEvaluationError"
REFERENCE_PATH_CONFLICT: Final = "States.ReferencePathConflict"
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
        REFERENCE_PATH_CONFLICT,
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

    `error` is what `Retry` and `Catch` match; `cause` says why, for a person. `documented` is the name that the
    specification has for it where the reference service gives another: they may match that, too. `framed`: the cause
    begins with the state that it happened in, which only whoever runs the state can name.
    """

    def __init__(self, error: str, cause: str, *, documented: str | None = None, framed: bool = True) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause
        self.documented = documented
        self.framed = framed


class Failed(Exception):
    """An expression found no answer. `error` is empty where the field that holds it decides the error's name."""

    def __init__(self, reason: str = "", error: str = "") -> None:
        super().__init__(reason)
        self._reason = reason
        self.error = error

    @property
    def reason(self) -> str:
        """Why, as far as the expression knows."""
        return self._reason


class CallFailed(Failed):
    """An intrinsic function failed at its work: no path of its arguments did."""


class Missing(Failed):
    """A path leads nowhere. Whoever asks for the words has them made: many a rule and filter only wants to know that
    there is nothing.

    `text` is the path as it is written, `root` what it begins with, `searched` the value it was applied to and `steps`
    its names and single indices, of which the first that does not lead on is the failing one. `misfit` is what the rest
    of the path wants where all steps led on.
    """

    def __init__(
        self, text: str, root: str, steps: tuple[str | int, ...], searched: JSON, misfit: str | None = None
    ) -> None:
        super().__init__()
        self.text = text
        self.root = root
        self.steps = steps
        self.searched = searched
        self.misfit = misfit

    @property
    def reason(self) -> str:
        """Why, as the reference service's path library says it."""
        if self.misfit is not None:
            return self.misfit
        number, held = self.stop()
        if self.of_no_array:
            return f"Filter: [{self.steps[number]}] can only be applied to arrays. Current context is: {shown(held)}"
        last = number == len(self.steps) - 1
        trail = "".join(f"['{each}']" if isinstance(each, str) else f"[{each}]" for each in self.steps)
        if last or not isinstance(held, dict):
            return f"No results for path: ${trail}"
        before = "".join(f"['{each}']" if isinstance(each, str) else f"[{each}]" for each in self.steps[: number + 1])
        return f"Missing property in path ${before}"

    def stop(self) -> tuple[int, JSON]:
        """The number of the step that does not lead on, and the value that it was to be applied to."""
        value = self.searched
        for number, step in enumerate(self.steps):
            if isinstance(step, str):
                if not isinstance(value, dict) or step not in value:
                    return number, value
                value = value[step]
            else:
                if not isinstance(value, list) or not -len(value) <= step < len(value):
                    return number, value
                value = value[step]
        return len(self.steps) - 1, value

    @property
    def of_no_array(self) -> bool:
        """Whether it wants the item of something that is no array."""
        if self.misfit is not None or not self.steps:
            return False
        number, held = self.stop()
        return isinstance(self.steps[number], int) and not isinstance(held, list)

    @property
    def past_the_end(self) -> bool:
        """Whether all that is missing is the item of an array that the path ends with."""
        if self.misfit is not None or not self.steps:
            return False
        number, held = self.stop()
        return number == len(self.steps) - 1 and isinstance(self.steps[number], int) and isinstance(held, list)


def shown(value: JSON) -> str:
    """The value as a cause quotes it."""
    try:
        return bytes(encode(value)).decode()
    except NotJSON:
        return "a value that is no JSON"


class Malformed(ValueError):
    """Text that is not in the syntax it should be in. `position` counts characters from 1."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position
