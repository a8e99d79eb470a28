"""What a program that uses the kit may have to catch, besides `enginekit.messages.status.Refused`."""

from __future__ import annotations

from enginekit.messages.status import ExecutionStatus


class Unreachable(Exception):
    """The daemon could not be reached, or did not take the call, before the call's deadline.

    `__cause__` is what went wrong last. A call that ends so may still have been carried out: repeat it with the same
    `request_id` (or token) to be sure.
    """


class ProtocolError(Exception):
    """Whoever answered does not speak the engine's protocol, or speaks a version this kit does not understand."""


class WorkflowFailed(Exception):
    """The execution closed without success. `error` and `cause` are its own; both may be empty for one that was
    cancelled or terminated."""

    def __init__(self, workflow_id: str, run_id: str, status: ExecutionStatus, error: str | None, cause: str | None):
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.status = status
        self.error = error
        self.cause = cause
        text = f"execution {workflow_id} ended {status.value}"
        if error:
            text += f": {error}"
        if cause:
            text += f": {cause}"
        super().__init__(text)
