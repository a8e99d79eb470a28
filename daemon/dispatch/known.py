"""Every task that Matching knows and every queue, found by their names.

Pure: no I/O, no clock. What is known may be forgotten at any time, since the store has it too.
"""

from __future__ import annotations

from collections.abc import Iterator

from daemon.dispatch.entry import Entry, Whereabouts, spec_bytes
from daemon.dispatch.task_queue import TaskQueue
from daemon.queues.interface import Places
from enginekit.messages.links import QueuedTask, QueueKey, TaskRef, TaskSpec

SPEC_BYTES = 64 * 1024 * 1024
"""Specs of queued tasks held in memory, over all queues. Beyond it a task is handed out without, and the Worker asks
History for it."""
QUEUES = 10_000
"""Queues that are remembered although nothing waits in them or for them."""


class KnownTasks:
    """`queue_tasks` is how many of one queue may be in memory, `probes` how many of one destination in any case."""

    def __init__(self, queue_tasks: int, probes: int) -> None:
        self._queue_tasks = queue_tasks
        self._probes = probes
        self._entries: dict[TaskRef, Entry] = {}
        self._queues: dict[QueueKey, TaskQueue] = {}
        self._arrivals = 0
        self._spec_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ref: TaskRef) -> bool:
        return ref in self._entries

    def get(self, ref: TaskRef) -> Entry | None:
        return self._entries.get(ref)

    def meet(self, task: QueuedTask, spec: TaskSpec | None) -> Entry:
        """A task that was not known."""
        if spec is not None:
            taken = spec_bytes(spec)
            if self._spec_bytes + taken > SPEC_BYTES:
                spec = None
            else:
                self._spec_bytes += taken
        self._arrivals += 1
        entry = self._entries[task.task] = Entry(task, spec, self._arrivals)
        return entry

    def forget(self, entry: Entry) -> None:
        """It is known no more. Wherever it was, it has to be taken from there."""
        self._entries.pop(entry.ref, None)
        self.release_spec(entry)
        entry.where = Whereabouts.GONE

    def pop(self, ref: TaskRef) -> Entry | None:
        return self._entries.pop(ref, None)

    def release_spec(self, entry: Entry) -> None:
        """Its spec is not needed any more, or not for long."""
        spec, entry.spec = entry.spec, None
        if spec is not None:
            self._spec_bytes -= spec_bytes(spec)

    def places(self) -> Places:
        """How many of them are where. Those that a Worker has, or has just had, are leased."""
        ready = delayed = 0
        for queue in self._queues.values():
            ready += queue.depth
            delayed += len(queue.parking)
        return Places(ready=ready, leased=len(self._entries) - ready - delayed, delayed=delayed)

    # --- queues ------------------------------------------------------------------------------------------------------

    def queue(self, key: QueueKey) -> TaskQueue:
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= QUEUES:
                self._queues = {k: q for k, q in self._queues.items() if not q.idle}
            queue = self._queues[key] = TaskQueue(key, self._queue_tasks, self._probes)
        return queue

    def queues(self) -> Iterator[TaskQueue]:
        return iter(self._queues.values())

    def queues_of(self, tenant: str) -> list[TaskQueue]:
        return [queue for queue in self._queues.values() if queue.key.tenant == tenant]
