"""History's one-way messages to the other services. History never waits for one of them: what finds no room waits
here, bounded; past the bound it is dropped, and the receiver is told to look into the store."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

from daemon.links.interface import Link

M = TypeVar("M")

OUTBOX_MESSAGES = 20_000


class Outbox(Generic[M]):
    """Messages for one link, in order. `resync` is what the receiver gets instead of what was dropped."""

    def __init__(self, link: Link[M], resync: M) -> None:
        self._link = link
        self._resync = resync
        self._waiting: deque[M] = deque()
        self._sending = False
        self._wakeup = trio.Event()

    def put(self, message: M) -> None:
        if not self._waiting and not self._sending and self._link.offer(message):
            return
        if len(self._waiting) >= OUTBOX_MESSAGES:
            self._waiting.clear()
            message = self._resync
        self._waiting.append(message)
        self._wakeup.set()

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            await self._wakeup.wait()
            while self._waiting:
                self._sending = True
                await self._link.send(self._waiting.popleft())
                self._sending = False
            self._wakeup = trio.Event()
