"""One attempt of a node type: what it is given, how it is watched, and what it comes to.

No queues, no slots and no reporting: those are the Worker's. Nothing here decides what an outcome means.
"""

from __future__ import annotations

import structlog
import trio

from daemon.logs import about, log_context
from daemon.nodes.registry import NodeTypeError, NodeTypes
from enginekit.messages.events import TimeoutKind
from enginekit.messages.json import JSON, NotJSON, decode, encode, size
from enginekit.messages.links import TaskOutcome, TaskRef, TaskSpec
from enginekit.node import NodeCall, NodeFailure, NodeResult

NODE_CRASHED = "Engine.NodeCrashed"
"""The node type raised something else than NodeFailure: a defect in it."""
NODE_UNAVAILABLE = "Engine.NodeUnavailable"
"""No node type of that name, or it cannot be imported."""
INVALID_OUTPUT = "Engine.InvalidOutput"
"""What the node type answered has no JSON form."""
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"

ERROR_CHARACTERS = 256
CAUSE_CHARACTERS = 4096
LOG_CHARACTERS = 16 * 1024

_log = structlog.get_logger("worker")


class Attempt:
    """One task that is being run. `wanted` ends when nobody waits for its outcome any more; `healthy` is what it says
    of its destination: None, nothing."""

    __slots__ = ("_closes_at", "_heartbeat", "_silent_from", "healthy", "scope", "wanted")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.wanted = True
        self.healthy: bool | None = None
        self._closes_at = float("inf")
        self._silent_from = float("inf")
        self._heartbeat: float | None = None

    async def run(self, spec: TaskSpec, nodes: NodeTypes, worker_id: str, payload_bytes: int) -> TaskOutcome:
        """What becomes of it: whatever the node type does, an outcome. Cancelled from outside: whatever it was at.

        To be called within `scope`; when that ends the attempt, `timed_out` has the outcome.
        """
        begun = trio.current_time()
        self._closes_at = begun + spec.timeout_seconds
        self._heartbeat = spec.heartbeat_seconds
        self._beat()
        try:
            with log_context(spec.task):
                result = await nodes.get(spec.resource).run(self._call(spec))
            self.healthy = True
            return _completed(spec.task, worker_id, result, payload_bytes)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a node type does, the others go on
            return self.failed(spec.task, spec.resource, worker_id, error)

    def timed_out(self, task: TaskRef, worker_id: str) -> TaskOutcome:
        """Its time was up: that of the whole attempt, or that until the next heartbeat."""
        self.healthy = False
        kind = TimeoutKind.HEARTBEAT if self._silent_from < self._closes_at else TimeoutKind.START_TO_CLOSE
        return TaskOutcome(task, worker_id, timed_out=kind)

    def failed(self, task: TaskRef, resource: str | None, worker_id: str, error: BaseException) -> TaskOutcome:
        """What an exception out of a node type comes to."""
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # a failure out of a node type's own nursery
        if isinstance(error, NodeFailure):
            self.healthy = None if error.unhealthy is None else not error.unhealthy
            return TaskOutcome(
                task,
                worker_id,
                error=_clean(error.error, ERROR_CHARACTERS) or NODE_CRASHED,
                cause=_clean(error.cause, CAUSE_CHARACTERS),
                log=_clean(error.log, LOG_CHARACTERS),
                usage=error.usage,
                retry_after_seconds=error.retry_after_seconds,
            )
        name, cause = NODE_CRASHED, _description(error)
        if isinstance(error, NodeTypeError):
            name, cause = NODE_UNAVAILABLE, str(error)
        _log.error(
            "node failed unexpectedly",
            error=name,
            resource=resource,
            exc_info=error,
            **about(task),
        )
        return TaskOutcome(task, worker_id, error=name, cause=_clean(cause, CAUSE_CHARACTERS))

    def _beat(self) -> None:
        """There was progress."""
        if self._heartbeat is not None:
            self._silent_from = trio.current_time() + self._heartbeat
        self.scope.deadline = min(self._closes_at, self._silent_from)

    def _call(self, spec: TaskSpec) -> NodeCall:
        run = spec.task.run
        return NodeCall(
            tenant=run.tenant,
            workflow_id=run.workflow_id,
            run_id=run.run_id,
            node=spec.node,
            path=spec.path,
            resource=spec.resource,
            input=decode(spec.input),
            attempt=spec.attempt,
            timeout_seconds=spec.timeout_seconds,
            idempotency_key=spec.idempotency_key,
            heartbeat_seconds=spec.heartbeat_seconds,
            beat=self._beat,
        )


def _completed(task: TaskRef, worker_id: str, result: JSON | NodeResult, payload_bytes: int) -> TaskOutcome:
    kept = result if isinstance(result, NodeResult) else NodeResult(output=result)
    log = _clean(kept.log, LOG_CHARACTERS)
    try:
        output = encode(kept.output)
    except NotJSON as error:
        raise NodeFailure(INVALID_OUTPUT, str(error), log=log, usage=kept.usage) from error
    if size(output) > payload_bytes:
        raise NodeFailure(
            DATA_LIMIT_EXCEEDED,
            f"the output has {size(output)} bytes, over the limit of {payload_bytes} (history.payload_bytes)",
            log=log,
            usage=kept.usage,
        )
    return TaskOutcome(task, worker_id, output, log=log, usage=kept.usage)


def _description(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a foreign exception's own text may be broken as well
        return type(error).__name__


def _clean(text: str, limit: int) -> str:
    """A foreign text as a string that has a JSON form: lone surrogates replaced, cut to `limit` characters."""
    return str(text)[:limit].encode("utf-8", "replace").decode("utf-8")
