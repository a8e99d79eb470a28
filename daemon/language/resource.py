"""What a Task's `Resource` names: a node type, a worker's task queue, a workflow, a signal.

Two spellings of the same things: the engine's own names, and the ARNs that existing definitions use. Syntax only;
whether a node type is installed is for whoever knows them.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

import msgspec

TOKEN_SUFFIX: Final = ".waitForTaskToken"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(?::[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/\-]{0,254}")
_FUNCTION = re.compile(
    r"(?:(?:arn:[^:]+:lambda:[^:]*:)?(?:[^:]*:)?function:)?(?P<name>[A-Za-z0-9_-]{1,140})(?::[A-Za-z0-9_$-]+)?"
)
_INTEGRATION = re.compile(r"(?:aws-sdk:)?[A-Za-z0-9\-]+:[A-Za-z0-9.:\-]+")


class ResourceKind(str, Enum):
    """What completes the task."""

    NODE = "NODE"
    """A node type that the daemon's own workers run."""
    ACTIVITY = "ACTIVITY"
    """Whatever worker polls the queue."""
    WORKFLOW = "WORKFLOW"
    """A child execution."""
    SIGNAL = "SIGNAL"
    """A signal that arrives."""


class ExecutionMode(str, Enum):
    """How a task goes about a child execution."""

    RUN = "RUN"
    """`workflow:NAME`: its arguments are the child's input, the child's output is its result."""
    START = "START"
    """startExecution: starts it and goes on; nobody's child."""
    SYNC = "SYNC"
    """startExecution.sync: waits for it; tells of it as DescribeExecution does, with its output as a text."""
    SYNC_JSON = "SYNC_JSON"
    """startExecution.sync:2: the same, with its output as JSON."""


class ClosePolicy(str, Enum):
    """What becomes of a child execution that nobody waits for any more."""

    CANCEL = "CANCEL"
    TERMINATE = "TERMINATE"
    ABANDON = "ABANDON"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed `Resource`.

    `text` is as written. `name` is what runs it (`http`, `ai:openai`; an activity's, workflow's or signal's name).
    `queue` is the task queue its tasks wait in. `arn`: written as an ARN, so the reference service's defaults hold.
    `lambda_invoke`: the payload and the result are wrapped as in `arn:aws:states:::lambda:invoke`, and name and queue
    are empty where only the arguments tell the function. `integration`: an integration this engine knows nothing of.
    """

    text: str
    name: str
    kind: ResourceKind
    queue: str
    wait_for_token: bool = False
    arn: bool = False
    lambda_invoke: bool = False
    integration: bool = False
    execution: ExecutionMode | None = None


class BadResource(ValueError):
    """The text names nothing that could run a task."""


def parse_resource(text: str) -> Resource:
    """Read a `Resource`. Raises BadResource with a sentence that says what is wrong."""
    name = text.removesuffix(TOKEN_SUFFIX)
    token = name != text
    if name.startswith("arn:"):
        return _arn(text, name, token)
    prefix, colon, rest = name.partition(":")
    if colon and prefix in _PREFIXES:
        if not _QUEUE.fullmatch(rest):
            raise BadResource(f'"{text}" needs a name after "{prefix}:" (letters, digits and _ . : / -)')
        mode = ExecutionMode.RUN if prefix == "workflow" else None
        return Resource(text=text, name=rest, kind=_PREFIXES[prefix], queue=rest, wait_for_token=token, execution=mode)
    if not _NAME.fullmatch(name):
        raise BadResource(f'"{text}" is neither an ARN nor a name like "http", "activity:NAME" or "ai:openai"')
    return Resource(text=text, name=name, kind=ResourceKind.NODE, queue=name, wait_for_token=token)


_PREFIXES: Final = {
    "activity": ResourceKind.ACTIVITY,
    "workflow": ResourceKind.WORKFLOW,
    "signal": ResourceKind.SIGNAL,
}


_EXECUTIONS: Final = {
    "states:startExecution": ExecutionMode.START,
    "states:startExecution.sync": ExecutionMode.SYNC,
    "states:startExecution.sync:2": ExecutionMode.SYNC_JSON,
}


def function_name(text: str) -> str | None:
    """The bare name in a Lambda function's name, partial ARN or ARN, with or without a version; None for no such."""
    match = _FUNCTION.fullmatch(text)
    return match["name"] if match is not None else None


def _arn(text: str, name: str, token: bool) -> Resource:
    parts = name.split(":", 5)
    if len(parts) < 6 or not parts[1].startswith("aws") or not parts[5]:
        raise BadResource(f'"{text}" is not a whole ARN (arn:aws:SERVICE:REGION:ACCOUNT:WHAT)')
    service, region, account, what = parts[2], parts[3], parts[4], parts[5]
    sort, _, rest = what.partition(":")
    if service == "states" and not region and not account:
        return _integration(text, what, token)
    if service == "lambda" and sort == "function":
        function = function_name(what)
        if function is None:
            raise BadResource(f'"{text}" does not name a Lambda function')
        return Resource(
            text=text, name=function, kind=ResourceKind.ACTIVITY, queue=function, wait_for_token=token, arn=True
        )
    if sort in ("activity", "task") and _QUEUE.fullmatch(rest):
        return Resource(
            text=text,
            name=rest,
            kind=ResourceKind.ACTIVITY,
            queue=rest,
            wait_for_token=token,
            arn=True,
            integration=sort == "task",
        )
    raise BadResource(
        f'"{text}" is not an ARN a task can run: an activity, a Lambda function, or arn:aws:states:::SERVICE:ACTION'
    )


def _integration(text: str, what: str, token: bool) -> Resource:
    if what == "http:invoke":
        return Resource(text=text, name="http", kind=ResourceKind.NODE, queue="http", wait_for_token=token, arn=True)
    if what == "lambda:invoke":
        return Resource(
            text=text, name="", kind=ResourceKind.ACTIVITY, queue="", wait_for_token=token, arn=True, lambda_invoke=True
        )
    if what in _EXECUTIONS:
        mode = _EXECUTIONS[what]
        if token and mode is not ExecutionMode.START:
            raise BadResource(f'"{text}" waits for the execution; it cannot wait for a task token as well')
        return Resource(
            text=text, name="", kind=ResourceKind.WORKFLOW, queue="", wait_for_token=token, arn=True, execution=mode
        )
    if not _INTEGRATION.fullmatch(what):
        raise BadResource(f'"{text}" is not of the form arn:aws:states:::SERVICE:ACTION')
    return Resource(
        text=text,
        name=what,
        kind=ResourceKind.ACTIVITY,
        queue=what,
        wait_for_token=token,
        arn=True,
        integration=True,
    )
