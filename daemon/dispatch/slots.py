"""The daemon's Worker as Matching sees it: what it can run, and which tasks take which of its slots.

Pure: the time is passed in, nothing is sent. A slot is taken when a task is handed to the Worker and free again when
the Worker says that it has finished, or when History says that the task is over.
"""

from __future__ import annotations

from daemon.dispatch.entry import Entry, Overdue, Whereabouts
from daemon.dispatch.task_queue import TaskQueue
from enginekit.messages.links import AttachWorker, QueueKey, TaskRef, TasksFinished

CANCEL_SECONDS = 30.0
"""How long a cancelled task may keep its slot without the Worker saying that it has ended."""


class WorkerSlots:
    """No worker, and so no slots, until one attaches."""

    def __init__(self) -> None:
        self.to_cancel: list[TaskRef] = []
        """Over, but the Worker may be running them: it has not yet been told."""
        self.worker_id = ""
        """Whose slots they are; none until one attaches."""
        self._incarnation = 0
        self._resources: frozenset[str] = frozenset()
        self._slots = 0
        self._taken: dict[TaskRef, Entry] = {}
        self._canceled = Overdue(Whereabouts.CANCELED, CANCEL_SECONDS)

    @property
    def attached(self) -> bool:
        """Whether there is a Worker in this process."""
        return bool(self.worker_id)

    @property
    def free(self) -> bool:
        """Whether one more task may be handed out."""
        return len(self._taken) < self._slots

    def running(self, key: QueueKey) -> int:
        """How many tasks of this queue the Worker has."""
        return sum(entry.task.queue == key for entry in self._taken.values())

    def serves(self, queue: TaskQueue) -> bool:
        """Whether the Worker runs the tasks of this queue."""
        return queue.is_node and queue.key.name in self._resources

    def attach(self, message: AttachWorker) -> list[Entry] | None:
        """A Worker says that it is there.

        The tasks that its former incarnation was running and that have to be queued again; None when the message is
        from a former incarnation itself and changes nothing.
        """
        again: list[Entry] = []
        if (message.worker_id, message.incarnation) != (self.worker_id, self._incarnation):
            if message.worker_id == self.worker_id and message.incarnation < self._incarnation:
                return None
            for entry in self._taken.values():
                if entry.where is Whereabouts.RUNNING:
                    again.append(entry)
                else:
                    entry.where = Whereabouts.GONE
            self._taken.clear()
            self.to_cancel.clear()
        self.worker_id = message.worker_id
        self._incarnation = message.incarnation
        self._resources = frozenset(message.resources)
        self._slots = message.slots
        return again

    def take(self, entry: Entry, now: float) -> None:
        """The task has been handed to the Worker."""
        entry.move(Whereabouts.RUNNING, now)
        self._taken[entry.ref] = entry

    def finished(self, message: TasksFinished, now: float) -> list[Entry]:
        """The tasks that have just come to be FINISHED. What the Worker no longer runs has no slot any more."""
        done: list[Entry] = []
        if (message.worker_id, message.incarnation) != (self.worker_id, self._incarnation):
            return done
        for ref in message.tasks:
            entry = self._taken.pop(ref, None)
            if entry is None:
                continue
            if entry.where is Whereabouts.RUNNING:
                entry.move(Whereabouts.FINISHED, now)
                done.append(entry)
            else:
                entry.where = Whereabouts.GONE
        return done

    def over(self, entry: Entry, *, cancel: bool, now: float) -> None:
        """A task that the Worker has is over.

        With `cancel` it keeps its slot until the Worker has stopped it. Without, its outcome is recorded: the slot is
        free, also where the Worker was handed a task that it had finished before and says nothing about it again.
        """
        if cancel and entry.where is Whereabouts.RUNNING:
            entry.move(Whereabouts.CANCELED, now)
            self._canceled.watch(entry)
            self.to_cancel.append(entry.ref)
        else:
            entry.where = Whereabouts.GONE
            self._taken.pop(entry.ref, None)

    def next_at(self) -> float | None:
        """When `mind` has to be called next."""
        return self._canceled.next_at()

    def mind(self, now: float) -> None:
        """Free the slots of cancelled tasks whose end was never reported."""
        for entry in self._canceled.take(now):
            entry.where = Whereabouts.GONE
            self._taken.pop(entry.ref, None)
