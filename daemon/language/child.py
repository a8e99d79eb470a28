"""What a task asks for that starts another execution: `workflow:NAME`, and `arn:aws:states:::states:startExecution` in
its three forms. Source: Step Functions developer guide, "Start a new AWS Step Functions state machine from a running
execution".
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from daemon.language.definition import Task
from daemon.language.errors import RUNTIME, StateError
from daemon.language.resource import ExecutionMode
from enginekit.messages.json import JSON, NotJSON, decode

_MACHINE = re.compile(
    r"(?:arn:[^:]+:states:[^:]*:[^:]*:stateMachine:)?(?P<name>[A-Za-z0-9._@/-]{1,255})(?::(?P<version>\d+))?"
)
_NAME = re.compile(r"[A-Za-z0-9._:@/-]{1,255}")

NO_SUCH_MACHINE: Final = "StepFunctions.StateMachineDoesNotExistException"
NAME_IN_USE: Final = "StepFunctions.ExecutionAlreadyExistsException"
BAD_INPUT: Final = "StepFunctions.InvalidExecutionInputException"
BAD_NAME: Final = "StepFunctions.InvalidNameException"
BAD_ARN: Final = "StepFunctions.InvalidArnException"

FIELDS: Final = ("StateMachineArn", "Input", "Name", "TraceHeader")


class ChildCall(msgspec.Struct, frozen=True, kw_only=True):
    """Which workflow to start, with what. `workflow_id`: the caller's own name for it."""

    workflow: str
    input: JSON
    version: int | None = None
    workflow_id: str | None = None


def machine_name(text: str) -> tuple[str, int | None] | None:
    """The name and version in a state machine's ARN, or in a bare name; None for no such."""
    match = _MACHINE.fullmatch(text)
    return None if match is None else (match["name"], None if match["version"] is None else int(match["version"]))


def child_call(state: Task, args: JSON) -> ChildCall:
    """From the state's arguments. Raises StateError."""
    resource = state.resource
    if resource.execution is ExecutionMode.RUN:
        return ChildCall(workflow=resource.name, input=args)
    where = "Arguments" if state.jsonata else "Parameters"
    if not isinstance(args, dict):
        raise StateError(RUNTIME, f"{where}: startExecution wants an object with StateMachineArn")
    arn, name = args.get("StateMachineArn"), args.get("Name")
    machine = machine_name(arn) if isinstance(arn, str) else None
    if machine is None:
        raise StateError(BAD_ARN, f"{where}.StateMachineArn: does not name a workflow")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise StateError(BAD_NAME, f"{where}.Name: must be 1 to 255 characters of A-Z a-z 0-9 . _ : @ / -")
    given = args.get("Input", {})
    if isinstance(given, str):
        try:
            given = decode(given.encode())
        except (NotJSON, UnicodeEncodeError) as error:
            raise StateError(BAD_INPUT, f"{where}.Input: is a text that holds no JSON: {error}") from error
    return ChildCall(workflow=machine[0], version=machine[1], input=given, workflow_id=name)
