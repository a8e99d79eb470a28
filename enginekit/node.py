"""The node interface: what a type of work that the daemon's own Worker can run looks like.

A node type is one small class in one small file. The daemon's stand in `daemon/nodes/`; yours installs through the
entry-point group `engine.nodes`:

    [project.entry-points."engine.nodes"]
    "pdf:render" = "acme_nodes.pdf:RenderNode"

and is then a `Resource` (`"Resource": "pdf:render"`) of any definition.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from enginekit.messages.json import JSON


class NodeCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run a node. `idempotency_key` is equal across the attempts of one entry into the node."""

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


class NodeFailure(Exception):
    """The attempt failed. `error` is what `Retry` and `Catch` match, `cause` is for a person; neither may hold a
    secret."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class Node(Protocol):
    """A node type. One instance serves every call of the daemon's lifetime."""

    async def run(self, call: NodeCall) -> JSON:
        """Do the work and answer its result.

        Raises NodeFailure. Runs under a cancel scope that ends at the attempt's timeout and when the execution no
        longer wants it: let `trio.Cancelled` pass, and leave nothing running behind.
        """
