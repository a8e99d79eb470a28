"""The node type `code:python`: users' Python over an input, in a sandbox. See `sandbox/`."""

from __future__ import annotations

from daemon.nodes.sandbox.node import CodeNode
from daemon.settings import Settings


def create(settings: Settings) -> CodeNode:
    return CodeNode("python", settings.code)
