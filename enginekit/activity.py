"""What an activity is: a function of yours that a worker runs for a task, and what it is told about that task."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

import msgspec

from enginekit.messages.calls import WorkerTask
from enginekit.messages.json import JSON, NULL, encode

ERROR_LENGTH = 256
CAUSE_LENGTH = 32768


class ActivityError(Exception):
    """Raise it in an activity to fail its task with a name of your choice for `Retry` and `Catch` to match.

    Without it a task fails under the name of the exception's class. Neither text may hold a secret: both are kept in
    the history.
    """

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}" if cause else error)
        self.error = error
        self.cause = cause


class TaskContext:
    """The task an activity runs for. Safe to use from the thread of a synchronous activity."""

    def __init__(self, task: WorkerTask) -> None:
        self.workflow_id = task.workflow_id
        self.run_id = task.run_id
        self.node = task.node
        self.path = task.path
        self.attempt = task.attempt
        self.idempotency_key = task.idempotency_key
        """Equal across the attempts of one entry into the node: pass it on to whatever must act once."""
        self.timeout_seconds = task.timeout_seconds
        self.cancelled = False
        """Nobody wants the outcome any more. An async activity is cancelled; a synchronous one may look here."""
        self._details = NULL

    def heartbeat(self, details: JSON = None) -> None:
        """Say how far it is. Goes out with the worker's next heartbeat, which needs no call of yours. Never blocks."""
        self._details = encode(details)

    @property
    def details(self) -> msgspec.Raw:
        """What the last `heartbeat` said."""
        return self._details


Activity: TypeAlias = (
    Callable[[JSON], JSON]
    | Callable[[JSON, TaskContext], JSON]
    | Callable[[JSON], Awaitable[JSON]]
    | Callable[[JSON, TaskContext], Awaitable[JSON]]
)
"""`(input)`, or `(input, task)` where the second has no default; async or not. Its result must have a JSON form."""


class Prepared(msgspec.Struct, frozen=True):
    """An activity with its shape looked up once."""

    function: Activity
    is_async: bool
    takes_task: bool

    async def call_async(self, value: JSON, task: TaskContext) -> JSON:
        if self.takes_task:
            return await cast(Callable[[JSON, TaskContext], Awaitable[JSON]], self.function)(value, task)
        return await cast(Callable[[JSON], Awaitable[JSON]], self.function)(value)

    def call_sync(self, value: JSON, task: TaskContext) -> JSON:
        if self.takes_task:
            return cast(Callable[[JSON, TaskContext], JSON], self.function)(value, task)
        return cast(Callable[[JSON], JSON], self.function)(value)


def prepare(queue: str, function: Activity) -> Prepared:
    """Raises TypeError for something that cannot be called with one or two arguments."""
    if not callable(function):
        raise TypeError(f"the activity for queue {queue!r} is {function!r}, which cannot be called")
    signature = inspect.signature(function)
    for takes_task, arguments in ((False, (None,)), (True, (None, None))):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        return Prepared(function, is_async, takes_task)
    raise TypeError(f"the activity for queue {queue!r} must take (input) or (input, task), not {signature}")


def failure(error: BaseException) -> tuple[str, str]:
    """The name and the cause that an exception fails its task with."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ActivityError):
        name, cause = error.error, error.cause
    else:
        name, cause = type(error).__name__, str(error)
    return name[:ERROR_LENGTH] or "ActivityError", cause[:CAUSE_LENGTH]
