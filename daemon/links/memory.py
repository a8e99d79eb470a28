"""Links inside one process: a bounded deque into each service, with requests and messages in one order.

The link holds what waits; it knows nothing of its ends. A receiver that crashes and comes back finds every message
that it had not taken. Nothing but the two ends of a link may live here: no routing, no retries.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TypeVar

import trio
from outcome import Value
from trio.lowlevel import Abort, ParkingLot, RaiseCancelT, Task

from daemon.links.interface import Caller, Link, Request
from enginekit.messages.calls import Call, Result
from enginekit.messages.status import ErrorStatus, Refused

M = TypeVar("M")
R = TypeVar("R", bound=Result)

RETRY_AFTER_SECONDS = 0.5
"""What a caller is told when a link is full: the services drain a full link well within it."""


class MemoryRequest(Request):
    """A request whose caller is parked in this process until it is answered."""

    __slots__ = ("_waiter",)

    def __init__(self, caller: Caller, call: Call, deadline: float) -> None:
        super().__init__(caller, call, deadline)
        self._waiter: Task | None = None

    @property
    def awaited(self) -> bool:
        return self._waiter is not None

    def answer(self, result: Result) -> None:
        self._end(result)

    def refuse(self, refused: Refused) -> None:
        self._end(refused)

    def _end(self, outcome: Result | Refused) -> None:
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter, Value(outcome))

    async def outcome(self) -> Result | Refused:
        """Park the calling task until the request is ended. Cancelled: nobody waits for it any more."""
        self._waiter = trio.lowlevel.current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._waiter = None
            return Abort.SUCCEEDED

        ended: Result | Refused = await trio.lowlevel.wait_task_rescheduled(abort)
        return ended


class MemoryLink(Link[M]):
    """A link of at most `capacity` messages and requests. `name` is the receiving service's, for the messages of
    refusals.

    Senders that wait for room get it in the order in which they came, and before any later `offer` or `request`.
    """

    def __init__(self, name: str, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the link to {name} needs room for at least one message, not {capacity}")
        self._name = name
        self._capacity = capacity
        self._waiting: deque[M | Request] = deque()
        self._senders: OrderedDict[Task, M] = OrderedDict()
        self._receivers = ParkingLot()

    def __len__(self) -> int:
        """How many messages and requests wait to be received."""
        return len(self._waiting)

    def offer(self, message: M) -> bool:
        if len(self._waiting) >= self._capacity and not self._drop_abandoned():
            return False
        self._put(message)
        return True

    async def send(self, message: M) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.offer(message):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        self._senders[task] = message

        def abort(_: RaiseCancelT) -> Abort:
            del self._senders[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        """As `Link.request`. Raises TypeError when the service answers with another type than `result`."""
        if len(self._waiting) >= self._capacity and not self._drop_abandoned():
            await trio.lowlevel.checkpoint()
            raise Refused(
                ErrorStatus.RESOURCE_EXHAUSTED,
                f"{self._name} has more waiting than it takes in at once; try again",
                {"retry_after_seconds": RETRY_AFTER_SECONDS},
            )
        deadline = trio.current_time() + timeout
        request = MemoryRequest(caller, call, deadline)
        outcome: Result | Refused | None = None
        with trio.CancelScope(deadline=deadline):
            self._put(request)
            outcome = await request.outcome()
        if isinstance(outcome, result):
            return outcome
        if outcome is None:
            raise Refused(
                ErrorStatus.UNAVAILABLE, f"{self._name} did not answer {type(call).__name__} within {timeout:g} s"
            )
        if isinstance(outcome, Refused):
            raise outcome
        raise TypeError(
            f"{self._name} answered {type(call).__name__} with {type(outcome).__name__}, not {result.__name__}"
        )

    async def receive(self, limit: int = 256) -> list[M | Request]:
        if not self._waiting:
            return await self._receive_later(limit)
        await trio.lowlevel.checkpoint_if_cancelled()
        taken = self._take(limit)
        if not taken:
            return await self._receive_later(limit)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def _receive_later(self, limit: int) -> list[M | Request]:
        # No checkpoint stands between waking up and returning, so a cancelled receive has taken nothing.
        while True:
            await self._receivers.park()
            taken = self._take(limit)
            if taken:
                return taken

    def _put(self, item: M | Request) -> None:
        self._waiting.append(item)
        if self._receivers:
            self._receivers.unpark()

    def _take(self, limit: int) -> list[M | Request]:
        waiting = self._waiting
        taken: list[M | Request] = []
        while waiting and len(taken) < limit:
            item = waiting.popleft()
            if not isinstance(item, Request) or item.awaited:
                taken.append(item)
        self._admit_senders()
        return taken

    def _admit_senders(self) -> None:
        while self._senders and len(self._waiting) < self._capacity:
            task, message = self._senders.popitem(last=False)
            self._put(message)
            trio.lowlevel.reschedule(task)

    def _drop_abandoned(self) -> bool:
        """Of a full link, drop the requests that nobody waits for any more; whether that made room for a newcomer."""
        if any(isinstance(item, Request) and not item.awaited for item in self._waiting):
            self._waiting = deque(i for i in self._waiting if not isinstance(i, Request) or i.awaited)
            self._admit_senders()
        return len(self._waiting) < self._capacity
