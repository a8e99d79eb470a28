"""The links of one daemon, by the service that receives. Who may talk to whom is read from here."""

from __future__ import annotations

import random
from dataclasses import dataclass

from daemon.links.exchange import Exchange
from daemon.links.interface import Link
from daemon.links.memory import MemoryLink
from daemon.links.routing import HistoryRouter, MatchingRouter, WorkerRouter
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker


@dataclass(frozen=True, slots=True)
class Links:
    """One way into each service but the Frontend, to which nobody sends. They outlive the services."""

    history: Link[ToHistory]
    matching: Link[ToMatching]
    worker: Link[ToWorker]
    timer: Link[ToTimer]
    exchange: Exchange | None = None
    """Where there are other processes."""

    @property
    def shared(self) -> bool:
        """Whether other processes share the work: then every shard and every partition has an inbox of its own."""
        return self.exchange is not None

    def shard(self, number: int) -> Link[ToHistory]:
        """The inbox of a shard, for its owner."""
        assert self.exchange is not None, "the links of one process have one inbox for all shards"
        return self.exchange.history(number)


def memory_links() -> Links:
    """Links inside this process.

    The capacities bound memory, not speed: a receiver takes 256 messages at a time. Those into History and Matching
    carry payloads (shared with the sender's copy while it has one), Timer's are a hundred bytes each.
    """
    return Links(
        history=MemoryLink("History", 4096),
        matching=MemoryLink("Matching", 2048),
        worker=MemoryLink("Worker", 1024),
        timer=MemoryLink("Timer", 4096),
    )


def shared_links(exchange: Exchange, shards: int, partitions: int, entropy: random.Random) -> Links:
    """Links to whichever processes own the shards, the partitions, and the tasks: the sending ends. What a process
    owns, it receives from the exchange's inboxes."""
    return Links(
        history=HistoryRouter(exchange, shards, entropy),
        matching=MatchingRouter(exchange, partitions),
        worker=WorkerRouter(exchange),
        timer=exchange.timer,
        exchange=exchange,
    )
