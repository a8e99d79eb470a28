"""The node interface: what a type of work that the daemon's own Worker can run looks like.

A node type is one small class in one small file. The daemon's stand in `daemon/nodes/`; yours installs through the
entry-point group `engine.nodes`:

    [project.entry-points."engine.nodes"]
    "pdf:render" = "acme_nodes.pdf:RenderNode"

and is then a `Resource` (`"Resource": "pdf:render"`) of any definition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from enginekit.messages.events import Usage as Usage
from enginekit.messages.json import JSON


def _no_beat() -> None:
    """Nobody listens for heartbeats."""


class NodeCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run a node. `idempotency_key` is equal across the attempts of one entry into the node.

    With `heartbeat_seconds`, `beat` has to be called at least that often, or the attempt times out: call it whenever
    there was progress. It costs next to nothing.
    """

    tenant: str
    workflow_id: str
    run_id: str
    node: str
    path: str
    resource: str
    input: JSON
    attempt: int
    timeout_seconds: float
    idempotency_key: str
    heartbeat_seconds: float | None = None
    beat: Callable[[], None] = _no_beat


class NodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result with what else is to be kept of the attempt: `log` is what it printed (at most 16 KiB are kept), `usage`
    what it used of a language model. Neither may hold a secret."""

    output: JSON
    log: str = ""
    usage: Usage | None = None


class NodeFailure(Exception):
    """The attempt failed. `error` is what `Retry` and `Catch` match, `cause` is for a person; neither may hold a
    secret.

    `retry_after_seconds`: the next attempt, if there is one, begins no sooner. `unhealthy`: it is the destination that
    does not do its work (no connection, an answer of 500 to 599, overload), which its circuit breaker counts. `log` and
    `usage` as in NodeResult.
    """

    def __init__(
        self,
        error: str,
        cause: str,
        *,
        retry_after_seconds: float | None = None,
        unhealthy: bool = False,
        log: str = "",
        usage: Usage | None = None,
    ) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause
        self.retry_after_seconds = retry_after_seconds
        self.unhealthy = unhealthy
        self.log = log
        self.usage = usage


class Node(Protocol):
    """A node type. One instance serves every call of the daemon's lifetime."""

    async def run(self, call: NodeCall) -> JSON | NodeResult:
        """Do the work and answer its result.

        Raises NodeFailure. Runs under a cancel scope that ends at the attempt's timeout and when the execution no
        longer wants it: let `trio.Cancelled` pass, and leave nothing running behind.
        """
