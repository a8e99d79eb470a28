"""The task queues of one partition, as those who share them use them: one `Ask` for everything that has gathered, one
`Told` for what comes of it. Each `Ask` is done as a whole, at one moment.

A task is in one of three places: *ready* (first by priority, then by age, then by name), *leased* to whoever claimed
it, or *delayed*. A lease that lapses and a delay that is over make it ready again. A task that is known is not taken in
again, so everything here may be said twice. A queue is bounded: what finds no room is left to the store, and so is
what would come after that; once half of the places are free, somebody is told to fill the queue from the store.

Where there is something to claim in a queue in which there was nothing, all who `hear` are told of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import msgspec
import trio

from daemon.queues.counting import QueueCounts
from enginekit.messages.links import EndNodePolls, EndPolls, HandBackTasks, QueuedTask, QueueKey, TaskRef, TasksFinished
from enginekit.messages.links import Millis as Millis


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What one of those who share a queue has to do with it: who waits there, and what it has given out."""

    queue: QueueKey
    pollers: int
    dispatched: int
    rate: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One of them tells the others, every so often, of the queues with which it has to do."""

    member: str
    numbers: list[Numbers]


Notice: TypeAlias = EndPolls | EndNodePolls | HandBackTasks | TasksFinished | Report
"""What one of those who share the queues has received or to say, and all of them are to know."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Up to `tasks` of one queue, or, of nodes, of all queues with one of these resources: from each of them in turn.
    Tasks of the destinations `without`, each with its tenant, are put off instead."""

    tasks: int
    queue: QueueKey | None = None
    resources: list[str] = []
    without: list[tuple[str, str]] = []


class Ask(msgspec.Struct, kw_only=True):
    """Done in this order."""

    offered: list[QueuedTask] = []
    brought: list[QueuedTask] = []
    """From the store, which may know more of them by now."""
    dropped: list[TaskRef] = []
    """Over, or no longer waiting. One that was offered (not brought) again while it was leased waits anew."""
    released: list[TaskRef] = []
    """Claimed, and not given to anybody: ready again."""
    delayed: list[TaskRef] = []
    """Claimed, and put off for the time of a delay."""
    renewed: list[TaskRef] = []
    """Claimed, and kept."""
    notices: list[Notice] = []
    fills: list[QueueKey] = []
    """Are about to be filled from the store."""
    filled: list[QueueKey] = []
    """Everything that the store has was offered."""
    demands: list[Demand] = []
    scan_seconds: float = 0.0
    """Where more than 0: whether it is this one's turn to compare with the store. Somebody's turn it is so often."""

    @property
    def empty(self) -> bool:
        return self == Ask()


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a demand was given. `more`: others are ready, which could have been had."""

    tasks: list[QueuedTask]
    more: bool


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks are where. `leased`: given out, and not dealt with."""

    ready: int
    leased: int
    delayed: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    claims: list[Claim]
    """One for each demand."""
    anew: bool = False
    """There was nothing here, not even queues that are empty: all that waits is to be brought from the store."""
    turned_away: list[QueueKey] = []
    """These had no room for all that was offered."""
    to_fill: list[QueueKey] = []
    """These have room for what they had to leave to the store. Nobody else is told for a while."""
    scan: bool = False
    next_in: float | None = None
    """In how many seconds a lease lapses or a delay is over."""
    places: Places | None = None
    """Of all tasks here, after this; None where that may not be known."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """`woken`: queues in which something is ready; None: any of them."""

    woken: list[QueueKey] | None
    notices: list[Notice]


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that are in a queue, wherever in it, and when the first of them was scheduled."""

    queue: QueueKey
    depth: int
    oldest: Millis


class PartitionQueues(ABC):
    """Of one partition, for one of those who share it."""

    @abstractmethod
    async def turn(self, ask: Ask) -> Told:
        """Waits for queues that are away; then some of what was asked may be done twice. Cancelled: it may be done;
        what was claimed becomes ready when its lease lapses."""

    @abstractmethod
    async def hear(self) -> Heard:
        """What there is to know since the last time; waits while there is nothing. What is lost on the way is not
        missed: whoever waits asks again."""

    @abstractmethod
    async def depths(self) -> list[Depth]:
        """Of all queues in which there is something. Waits as `turn`."""


class TaskQueues(ABC):
    """Gives out the queues of partitions."""

    @abstractmethod
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Reports started once they can be used."""

    @abstractmethod
    def belongs_to(self, cluster: str | None) -> None:
        """Whose store this process has open: said before `run`."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether they can be reached right now, as far as is known."""

    def counts(self) -> QueueCounts:
        """What was asked of them: inside a process that is nothing to count."""
        return QueueCounts(connected=self.ready)

    @abstractmethod
    def partition(self, number: int) -> PartitionQueues: ...


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """`tasks`: how many one queue may have."""

    tasks: int
    lease_seconds: float
    delay_seconds: float
