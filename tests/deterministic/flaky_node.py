"""A node type for tests: fails as often as its input says, then answers."""

from __future__ import annotations

import trio

from enginekit.messages.json import JSON
from enginekit.node import NodeCall, NodeFailure

CANCELED: list[str] = []
"""The runs whose attempts were canceled while they ran."""


class Flaky:
    """`{"failures": 2, "seconds": 1.5}`: each attempt takes so long, the first two fail."""

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, dict)
        seconds, failures = call.input.get("seconds", 0), call.input.get("failures", 0)
        assert isinstance(seconds, int | float)
        assert isinstance(failures, int)
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            CANCELED.append(call.run_id)
            raise
        if call.attempt <= failures:
            raise NodeFailure("Flaky", f"attempt {call.attempt}")
        return {"attempt": call.attempt, "key": call.idempotency_key.rpartition(":")[2]}
