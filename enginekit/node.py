"""The node interface: what a type of work that the daemon's own Worker can run looks like.

A node type is one small class in one small file. The daemon's stand in `daemon/nodes/`; yours installs through the
entry-point group `engine.nodes`:

    [project.entry-points."engine.nodes"]
    "pdf:render" = "acme_nodes.pdf:RenderNode"

and is then a `Resource` (`"Resource": "pdf:render"`) of any definition.

A node type may have a method `check` as well (see `Checking`): what is wrong with the arguments as far as a definition
has them literally is then told when the definition is registered, and not by a task years later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Protocol, TypeAlias, runtime_checkable

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
    does not do its work (no connection, an answer of 500 to 599, overload), which its circuit breaker counts; None: it
    was never called, so that this tells nothing of it. `log` and `usage` as in NodeResult.
    """

    def __init__(
        self,
        error: str,
        cause: str,
        *,
        retry_after_seconds: float | None = None,
        unhealthy: bool | None = False,
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


class Computed(Enum):
    """What stands in arguments for a value that only an execution can tell."""

    COMPUTED = "COMPUTED"


COMPUTED = Computed.COMPUTED

Argument: TypeAlias = "bool | int | float | str | list[Argument] | dict[str, Argument] | Computed | None"
"""Arguments, or a part of them, as a definition has them: JSON, with COMPUTED where there is an expression."""


class ArgumentFault(msgspec.Struct, frozen=True):
    """What is wrong with arguments: where in them (`Headers.X-A`, `Tools[0].Name`; empty: as a whole), and a sentence
    that goes on from there (`must be one of GET, POST`)."""

    path: str
    message: str


@runtime_checkable
class Checking(Protocol):
    """A node type that can tell wrong arguments beforehand has this as well."""

    def check(self, arguments: Argument, tenant: str | None) -> Iterable[ArgumentFault]:
        """Every fault in what is not COMPUTED. `tenant`: whose definition it is, None where nobody knows, as under
        `engine validate`, where settings (connections, say) are not those of the daemon either.

        Quick, without I/O, and from any thread: large definitions are checked in one. What it raises is logged and
        counts as no fault.
        """


class Node(Protocol):
    """A node type. One instance serves every call of the daemon's lifetime."""

    async def run(self, call: NodeCall) -> JSON | NodeResult:
        """Do the work and answer its result.

        Raises NodeFailure. Runs under a cancel scope that ends at the attempt's timeout and when the execution no
        longer wants it: let `trio.Cancelled` pass, and leave nothing running behind.
        """
