"""A code node with its pool, and calls of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from daemon.nodes.sandbox.node import CodeNode
from daemon.settings import CodeSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall


@asynccontextmanager
async def code_node(
    language: str, *, processes: int = 2, idle_seconds: float = 60.0, start_seconds: float = 30.0
) -> AsyncIterator[CodeNode]:
    """A node whose pool is served, and ended."""
    settings = CodeSettings(processes=processes, idle_seconds=idle_seconds, start_seconds=start_seconds)
    node = CodeNode(language, settings)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.serve)
        yield node
        nursery.cancel_scope.cancel()


def call(source: JSON, input: JSON = None, *, tenant: str = "acme", **arguments: JSON) -> NodeCall:
    return NodeCall(
        tenant=tenant,
        workflow_id="w",
        run_id="r",
        node="Compute",
        path="Compute",
        resource="code:python",
        input={"Source": source, "Input": input, **arguments},
        attempt=1,
        timeout_seconds=300.0,
        idempotency_key="k",
    )
