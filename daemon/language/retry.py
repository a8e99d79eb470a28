"""Retry and Catch: which policy an error meets, how long a retry waits, what a catcher passes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from daemon.language.definition import Catcher, Map, Parallel, Retrier, Task
from daemon.language.errors import (
    ALL,
    BRANCH_FAILED,
    DATA_LIMIT_EXCEEDED,
    HEARTBEAT_TIMEOUT,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
)
from daemon.language.evaluate import variables_of
from daemon.language.evaluation import Evaluation, Scope
from enginekit.messages.json import JSON

MAX_DELAY_SECONDS: Final = 31_622_400
"""The longest wait before a retry (366 days), whatever the policy works out."""

_TERMINAL: Final = frozenset({DATA_LIMIT_EXCEEDED, RUNTIME})
_TIMEOUTS: Final = frozenset({TIMEOUT, HEARTBEAT_TIMEOUT})


def matches(names: tuple[str, ...], error: str, documented: str | None = None, *, of_task: bool = False) -> bool:
    """Whether an `ErrorEquals` matches an error. `of_task`: what the task came to, not what became of it in the state.

    A name matches itself, and the error that it is the `documented` name of. States.ALL matches all but States.Runtime
    and States.DataLimitExceeded (but for a task's result that is too large, which the running service lets it match);
    States.TaskFailed matches what States.ALL does except timeouts; States.Timeout matches a missed heartbeat, too.
    """
    if error in names or documented in names:
        return True
    if error in _TERMINAL and not (of_task and error == DATA_LIMIT_EXCEEDED):
        return False
    if error in _TIMEOUTS:
        return ALL in names or TIMEOUT in names
    return ALL in names or TASK_FAILED in names


def _meets(
    state: Task | Parallel | Map, names: tuple[str, ...], error: str, documented: str | None, of_task: bool
) -> bool:
    """The same for a state: whatever a Parallel fails with is also that one of its branches failed."""
    matched = matches(names, error, documented, of_task=of_task)
    return matched or (isinstance(state, Parallel) and BRANCH_FAILED in names)


def matching_retrier(
    state: Task | Parallel | Map, error: str, documented: str | None = None, *, of_task: bool = False
) -> int | None:
    """The number of the first retrier that the error matches, whether or not it has attempts left."""
    for number, retrier in enumerate(state.retry):
        if _meets(state, retrier.errors, error, documented, of_task):
            return number
    return None


def matching_catcher(
    state: Task | Parallel | Map, error: str, documented: str | None = None, *, of_task: bool = False
) -> int | None:
    """The number of the first catcher that the error matches."""
    for number, catcher in enumerate(state.catch):
        if _meets(state, catcher.errors, error, documented, of_task):
            return number
    return None


def caught_output(
    state: Task | Parallel | Map, catcher: Catcher, raw: JSON, error: str, cause: str, scope: Scope
) -> JSON:
    """What a catcher passes to its next state: the error output, at its ResultPath in the state's raw input; or Output.

    Raises StateError (States.ReferencePathConflict, or what evaluating Output fails with).
    """
    made = error_output(error, cause)
    if catcher.output is not None:
        return catcher.output(raw, Evaluation(scope, error_output=made))
    return made if catcher.place is None else catcher.place(raw, made)


def caught_variables(
    state: Task | Parallel | Map, catcher: Catcher, raw: JSON, error: str, cause: str, scope: Scope
) -> dict[str, JSON] | None:
    """The variables that a catcher assigns, None where it assigns none. In JSONPath, `$` is the error output."""
    if catcher.assign is None:
        return None
    made = error_output(error, cause)
    evaluation = Evaluation(scope, error_output=made)
    return variables_of(catcher.assign, raw if state.jsonata else made, evaluation)


def error_output(error: str, cause: str) -> JSON:
    """What a failed state has in the place of a result."""
    return {"Error": error, "Cause": cause}


def retry_delay(retrier: Retrier, nth: int, random: Callable[[], float]) -> float:
    """Seconds to wait before the nth retry (from 1) of this retrier. `random` is called for jitter only."""
    limit = float(min(retrier.max_delay_seconds or MAX_DELAY_SECONDS, MAX_DELAY_SECONDS))
    try:
        delay = min(retrier.interval_seconds * retrier.backoff_rate ** (nth - 1), limit)
    except OverflowError:
        delay = limit
    return random() * delay if retrier.jitter else delay
