"""Reads take turns, so that a flood of them cannot take the loop from the executions.

One turn of the loop runs everything that is ready. A flood of reads makes each turn longer, and an execution needs
several turns a step: left alone, sixteen reads under way take half of the throughput. So only a few reads, whoever
asks, are let in at once, and then a few turns go by; the others wait in order. On an idle daemon turns are short, and
nothing is slower.
"""

from __future__ import annotations

import trio


class Turnstile:
    """Lets `callers` in, every `turns` turns of the loop, while `run` runs; without it everybody at once."""

    def __init__(self, callers: int, turns: int) -> None:
        self._callers = callers
        self._turns = turns
        self._waiting = trio.lowlevel.ParkingLot()
        self._somebody = trio.Event()
        self._running = False

    async def enter(self) -> None:
        """Wait for one's turn. Cancelled: the turn goes to the next."""
        if not self._running:
            return
        self._somebody.set()
        await self._waiting.park()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; who waits then is let in."""
        self._running = True
        task_status.started()
        try:
            while True:
                await self._somebody.wait()
                self._somebody = trio.Event()
                while self._waiting:
                    self._waiting.unpark(count=self._callers)
                    for _ in range(self._turns):
                        await trio.lowlevel.checkpoint()
        finally:
            self._running = False
            self._waiting.unpark_all()
