"""The node type `code:javascript`: users' JavaScript over an input, in a sandbox. See `sandbox/`."""

from __future__ import annotations

from daemon.nodes.sandbox.node import CodeNode
from daemon.settings import Settings


def create(settings: Settings) -> CodeNode:
    return CodeNode("javascript", settings.code)
