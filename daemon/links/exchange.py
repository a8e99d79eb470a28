"""Links between processes: an inbox for every shard, partition and worker, wherever its owner runs.

Nobody has to know who that is. A message waits in the inbox until its owner receives it; when shards or partitions
move, the next owner receives what the former had not. Everything may come twice and may be lost with an exchange that
is emptied: the store is the truth, receivers ignore what they know, and requests end at their deadlines.

Here are the interface and the exchange inside one process, over which several daemons run deterministically. The other
exchanges are files beside this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec
import trio

from daemon.links.counting import LinkCounts
from daemon.links.interface import Link
from daemon.links.memory import MemoryLink
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker

HISTORY_CAPACITY = 4096
MATCHING_CAPACITY = 2048
WORKER_CAPACITY = 1024
TIMER_CAPACITY = 4096


class Heard(msgspec.Struct, frozen=True):
    """What a process last said of itself."""

    process: str
    seconds_ago: float
    said: bytes


class Exchange(ABC):
    """Gives out links. The same name gives the same inbox in every process. Senders may be many; whoever receives is
    the inbox's owner. Timer's has as many receivers as there are Timers: each message goes to one of them.

    A link's `offer` says no, and its `request` is refused RESOURCE_EXHAUSTED, while too much waits to leave this
    process; `receive` waits while the exchange is away. What has been received counts as dealt with when its receiver
    asks for more: before that it goes to the next owner too.
    """

    @abstractmethod
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry messages until cancelled. Reports started once it is connected."""

    @abstractmethod
    def belongs_to(self, cluster: str | None) -> None:
        """Whose store this process has open: said before `run`, where it has one."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether messages get through right now, as far as is known."""

    def counts(self) -> LinkCounts:
        """What has left this process and come to it: here, nothing does."""
        return LinkCounts(connected=self.ready)

    @abstractmethod
    async def call_out(self, process: str, said: bytes, forget: list[str], *, listen: bool) -> list[Heard]:
        """Say something of this process (nothing: say nothing), forget these, and, to `listen`, hear what everybody
        said last. Raises ServerAway. Cancelled: it may have been said."""

    @abstractmethod
    def history(self, shard: int) -> Link[ToHistory]: ...

    @abstractmethod
    def matching(self, partition: int) -> Link[ToMatching]: ...

    @abstractmethod
    def worker(self, worker_id: str) -> Link[ToWorker]: ...

    @property
    @abstractmethod
    def timer(self) -> Link[ToTimer]: ...


class MemoryExchange(Exchange):
    """Between daemons in one process. What was received is gone with its receiver."""

    def __init__(self) -> None:
        self._history: dict[int, MemoryLink[ToHistory]] = {}
        self._matching: dict[int, MemoryLink[ToMatching]] = {}
        self._workers: dict[str, MemoryLink[ToWorker]] = {}
        self._timer: MemoryLink[ToTimer] = MemoryLink("Timer", TIMER_CAPACITY)
        self._said: dict[str, tuple[float, bytes]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    def belongs_to(self, cluster: str | None) -> None:
        """Whoever is in this process shares the one store."""

    @property
    def ready(self) -> bool:
        return True

    async def call_out(self, process: str, said: bytes, forget: list[str], *, listen: bool) -> list[Heard]:
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        if said:
            self._said[process] = now, said
        for each in forget:
            self._said.pop(each, None)
        return [Heard(each, now - at, text) for each, (at, text) in self._said.items()] if listen else []

    def history(self, shard: int) -> Link[ToHistory]:
        return self._history.setdefault(shard, MemoryLink("History", HISTORY_CAPACITY))

    def matching(self, partition: int) -> Link[ToMatching]:
        return self._matching.setdefault(partition, MemoryLink("Matching", MATCHING_CAPACITY))

    def worker(self, worker_id: str) -> Link[ToWorker]:
        return self._workers.setdefault(worker_id, MemoryLink("Worker", WORKER_CAPACITY))

    @property
    def timer(self) -> Link[ToTimer]:
        return self._timer
