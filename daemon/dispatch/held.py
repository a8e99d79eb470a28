"""The tasks whose start was recorded for the Worker of this process: which it runs, and how far their end has come.

Pure: no I/O, no clock. One is held from its start until the Worker has no slot taken by it and History has its outcome,
or does not want it any more.
"""

from __future__ import annotations

from enginekit.messages.links import StartedNode, TaskRef


class Held:
    """`running`: the Worker has a slot taken by it. `reported`: its outcome, for this start, was sent; `settled`:
    History has it, or wants none."""

    __slots__ = ("destination", "partition", "reported", "returns", "running", "settled")

    def __init__(self, started: StartedNode, partition: int) -> None:
        self.returns = started.returns
        self.destination = started.spec.destination
        self.partition = partition
        """Which gave it out, and wants to hear of its destination."""
        self.running = True
        self.reported = False
        self.settled = False


class HeldTasks:
    def __init__(self) -> None:
        self._held: dict[TaskRef, Held] = {}
        self.running = 0
        """How many slots are taken."""

    def get(self, ref: TaskRef) -> Held | None:
        return self._held.get(ref)

    def take(self, started: StartedNode, partition: int) -> bool:
        """A start was recorded. Whether the Worker is to be told: one that it still runs, from before the task was
        taken from it, it goes on with."""
        ref = started.spec.task
        before = self._held.get(ref)
        still_runs = before is not None and before.running and not before.settled
        # An outcome that is under way is of the former start, and counts for nothing.
        self._held[ref] = Held(started, partition)
        if before is None or not before.running:
            self.running += 1
        return not still_runs

    def finished(self, ref: TaskRef) -> Held | None:
        """The Worker has no slot taken by it any more. The task, where it was running."""
        held = self._held.get(ref)
        if held is None or not held.running:
            return None
        held.running = False
        self.running -= 1
        if held.settled or not held.reported:
            del self._held[ref]
        return held

    def settle(self, ref: TaskRef, *, recorded: bool) -> None:
        """History has the outcome (`recorded`; of a start before this one, where none was reported since), or does not
        want one."""
        held = self._held.get(ref)
        if held is None or (recorded and not held.reported):
            return
        held.settled = True
        if not held.running:
            del self._held[ref]

    def to_renew(self) -> list[TaskRef]:
        return [ref for ref, held in self._held.items() if not held.settled]

    def unreported(self) -> list[TaskRef]:
        """Those that the Worker has, and that nothing was said about yet."""
        return [ref for ref, held in self._held.items() if held.running and not held.reported and not held.settled]

    def clear(self) -> None:
        self._held.clear()
        self.running = 0
