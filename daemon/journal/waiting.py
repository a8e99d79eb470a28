"""Callers who wait: for a run to close (`WaitWorkflow`) or to have more events (`GetHistory`). One task times them
all out; a waiting caller is an entry, not a task."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import Enum

import trio

from daemon.journal.live import LiveRun
from daemon.links.interface import Request
from enginekit.messages.status import ErrorStatus, Refused


class For(Enum):
    """What a caller waits for."""

    CLOSE = "close"
    EVENTS = "events"


class Waiter:
    """One caller. `answer` is called once: when what it waits for has come, or its time is up."""

    __slots__ = ("after_id", "answer", "deadline", "done", "live", "request", "wanted")

    def __init__(
        self,
        live: LiveRun,
        request: Request,
        wanted: For,
        after_id: int,
        deadline: float,
        answer: Callable[[LiveRun, Request], None],
    ) -> None:
        self.live = live
        self.request = request
        self.wanted = wanted
        self.after_id = after_id
        self.deadline = deadline
        self.answer = answer
        self.done = False


class Waiters:
    """Everybody who waits, by run and by deadline. Deadlines are in `trio.current_time()`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._serial = 0
        self._by_run: dict[str, list[Waiter]] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._sooner = trio.Event()

    def add(self, waiter: Waiter) -> None:
        """Raises Refused RESOURCE_EXHAUSTED when too many wait already."""
        if self._count >= self._limit:
            self._drop_abandoned()
        if self._count >= self._limit:
            raise Refused(
                ErrorStatus.RESOURCE_EXHAUSTED,
                f"{self._limit:,} calls wait for executions already; ask again later or without waiting",
                {"retry_after_seconds": 1.0},
            )
        self._count += 1
        self._serial += 1
        waiter.live.waiters += 1
        self._by_run.setdefault(waiter.live.run.ref.run_id, []).append(waiter)
        first = not self._deadlines or waiter.deadline < self._deadlines[0][0]
        heapq.heappush(self._deadlines, (waiter.deadline, self._serial, waiter))
        if first:
            self._sooner.set()

    def committed(self, live: LiveRun) -> None:
        """Events of this run are on disk."""
        run_id = live.run.ref.run_id
        waiting = self._by_run.get(run_id)
        if waiting is None:
            return
        for waiter in list(waiting):
            if live.closed or (waiter.wanted is For.EVENTS and live.committed_id > waiter.after_id):
                self._end(waiter)
                waiter.answer(live, waiter.request)

    def refuse(self, live: LiveRun, refused: Refused) -> None:
        """This run will not come to what they wait for."""
        for waiter in list(self._by_run.get(live.run.ref.run_id, ())):
            self._end(waiter)
            waiter.request.refuse(refused)

    def refuse_all(self, refused: Refused) -> None:
        """What they wait for is not known any more."""
        for waiting in list(self._by_run.values()):
            for waiter in list(waiting):
                self._end(waiter)
                waiter.request.refuse(refused)
        self._deadlines.clear()

    async def run(self) -> None:
        """Answer those whose time is up, until cancelled."""
        while True:
            self._sooner = trio.Event()
            while self._deadlines and (self._deadlines[0][2].done or self._deadlines[0][0] <= trio.current_time()):
                waiter = heapq.heappop(self._deadlines)[2]
                if not waiter.done:
                    self._end(waiter)
                    waiter.answer(waiter.live, waiter.request)
            until = self._deadlines[0][0] if self._deadlines else float("inf")
            with trio.move_on_at(until):
                await self._sooner.wait()

    def _drop_abandoned(self) -> None:
        """Give back the places of those whose caller has gone away."""
        for _, _, waiter in list(self._deadlines):
            if not waiter.done and not waiter.request.awaited:
                self._end(waiter)

    def _end(self, waiter: Waiter) -> None:
        waiter.done = True
        waiter.live.waiters -= 1
        self._count -= 1
        run_id = waiter.live.run.ref.run_id
        waiting = self._by_run[run_id]
        waiting.remove(waiter)
        if not waiting:
            del self._by_run[run_id]
        if len(self._deadlines) > 2 * self._count + 8:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
