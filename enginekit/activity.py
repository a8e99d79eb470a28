"""What an activity is: a function of yours that a worker runs for a task, what it is told about that task, and how
functions get their names.

    activities = Activities()

    @activities.register
    def resize(picture): ...

    @activities.register("card:charge")
    async def charge(order, task): ...
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Final, TypeAlias, TypeVar, cast, overload

import msgspec

from enginekit.messages.calls import HEARTBEAT_BYTES, WorkerTask
from enginekit.messages.json import JSON, NULL, decode, encode, size

ERROR_LENGTH = 256
CAUSE_LENGTH = 32768
RETRY_AFTER_LIMIT = 99_999_999.0

_QUEUE: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,255}")


class ActivityError(Exception):
    """Raise it in an activity to fail its task with a name of your choice for `Retry` and `Catch` to match.

    Without it a task fails under the name of the exception's class. With `retry_after_seconds` the next attempt, if
    the state's `Retry` has one, begins no sooner. Neither text may hold a secret: both are kept in the history.
    """

    def __init__(self, error: str, cause: str = "", *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{error}: {cause}" if cause else error)
        self.error = error
        self.cause = cause
        self.retry_after_seconds = retry_after_seconds


class TaskContext:
    """The task an activity runs for. Safe to use from the thread of a synchronous activity."""

    def __init__(self, task: WorkerTask, wake: Callable[[], None] | None = None) -> None:
        """`wake` is called, from whatever thread, when `heartbeat` was."""
        self.workflow_id = task.workflow_id
        self.run_id = task.run_id
        self.node = task.node
        self.path = task.path
        self.attempt = task.attempt
        self.idempotency_key = task.idempotency_key
        """Equal across the attempts of one entry into the node: pass it on to whatever must act once."""
        self.timeout_seconds = task.timeout_seconds
        self.heartbeat_seconds = task.heartbeat_seconds
        """The state's `HeartbeatSeconds`."""
        self.heartbeat_details: JSON = decode(task.heartbeat_details)
        """What the last `heartbeat` before this attempt said, also on a worker that is lost; None where there is none.
        A daemon that was killed meanwhile may have forgotten it."""
        self.cancelled = False
        """Nobody wants the outcome any more. An async activity is cancelled; a synchronous one may look here."""
        self._details = NULL
        self._wake = wake
        self.speaks = False
        """It has called `heartbeat`: from then on only that is progress."""

    def heartbeat(self, details: JSON = None) -> None:
        """Say that there is progress and, in `details`, how far it is: the next attempt can go on from there.

        Goes out as soon as the last one was long enough ago; call it as often as you like. Never blocks. The worker
        keeps the lease by itself, without any call of yours; but once you have called this, a state's
        `HeartbeatSeconds` counts from your last call. Without `details` those from before stay.

        Raises ValueError for more than HEARTBEAT_BYTES of JSON, NotJSON for what has no JSON form.
        """
        if details is not None:
            raw = encode(details)
            if size(raw) > HEARTBEAT_BYTES:
                raise ValueError(f"a heartbeat's details are {size(raw):,} bytes; at most {HEARTBEAT_BYTES:,} are kept")
            self._details = raw
        self.speaks = True
        if self._wake is not None:
            self._wake()

    @property
    def details(self) -> msgspec.Raw:
        """What the last `heartbeat` of this attempt said."""
        return self._details


CURRENT: Final[ContextVar[TaskContext | None]] = ContextVar("enginekit.activity", default=None)
"""The task that the code at hand runs for; a synchronous activity's thread has it too."""


Activity: TypeAlias = (
    Callable[[JSON], JSON]
    | Callable[[JSON, TaskContext], JSON]
    | Callable[[JSON], Awaitable[JSON]]
    | Callable[[JSON, TaskContext], Awaitable[JSON]]
)
"""`(input)`, or `(input, task)` where the second has no default; async or not. Its result must have a JSON form."""

A = TypeVar("A", bound=Callable[..., object])


class Activities(Mapping[str, Activity]):
    """Activities by the name of their queue, gathered with a decorator. What `Worker` takes."""

    def __init__(self) -> None:
        self._functions: dict[str, Activity] = {}

    @overload
    def register(self, named: A) -> A: ...
    @overload
    def register(self, named: str) -> Callable[[A], A]: ...
    def register(self, named: A | str) -> A | Callable[[A], A]:
        """`@register` names the function's queue after it, `@register("card:charge")` as it says.

        Raises ValueError for a name that no queue can have or that is taken, TypeError for a function that cannot be an
        activity.
        """
        if isinstance(named, str):
            return lambda function: self._add(named, function)
        return self._add(getattr(named, "__name__", ""), named)

    def _add(self, name: str, function: A) -> A:
        if name in self._functions:
            raise ValueError(f"there are two activities {name!r}; give one another name: @register(NAME)")
        prepare(name, cast(Activity, function))
        self._functions[name] = cast(Activity, function)
        return function

    def __getitem__(self, name: str) -> Activity:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)


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
    """Raises ValueError for a name that no queue can have, TypeError for something that cannot be called with one or
    two arguments."""
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        raise ValueError(f"no task queue can be named {queue!r}: 1 to 255 of A-Z a-z 0-9 . _ : @ / -")
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


class Failure(msgspec.Struct, frozen=True):
    """How an exception fails its task. `expected`: the activity named the error itself."""

    error: str
    cause: str
    retry_after_seconds: float | None
    expected: bool


def failure(error: BaseException) -> Failure:
    """What an exception fails its task with."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, ActivityError):
        name = _clean(error.error, ERROR_LENGTH) or "ActivityError"
        return Failure(name, _clean(error.cause, CAUSE_LENGTH), _pause(error.retry_after_seconds), True)
    return Failure(type(error).__name__[:ERROR_LENGTH], _clean(_text(error), CAUSE_LENGTH), None, False)


def _pause(seconds: float | None) -> float | None:
    """Within what the daemon takes; it has a lower limit of its own."""
    return None if seconds is None or seconds != seconds else min(max(seconds, 0.0), RETRY_AFTER_LIMIT)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 a foreign exception's own text may be broken as well
        return ""


def _clean(text: str, limit: int) -> str:
    """A foreign text as one that has a JSON form: lone surrogates replaced, cut to `limit` characters."""
    return str(text)[:limit].encode("utf-8", "replace").decode("utf-8")
