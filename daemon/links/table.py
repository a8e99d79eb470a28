"""The links of one daemon, by the service that receives. Who may talk to whom is read from here."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.links.interface import Link
from daemon.links.memory import MemoryLink
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker


@dataclass(frozen=True, slots=True)
class Links:
    """One way into each service but the Frontend, to which nobody sends. They outlive the services."""

    history: Link[ToHistory]
    matching: Link[ToMatching]
    worker: Link[ToWorker]
    timer: Link[ToTimer]


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
