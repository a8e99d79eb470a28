"""The node type `echo`: answers its input. For tests and benchmarks."""

from __future__ import annotations

from daemon.settings import Settings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall


class EchoNode:
    async def run(self, call: NodeCall) -> JSON:
        """The input, at once and without a checkpoint."""
        return call.input


def create(settings: Settings) -> EchoNode:
    return EchoNode()
