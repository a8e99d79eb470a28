"""Workers of users' own: who of them waits for activities' tasks, queue by queue, and who is given what.

No I/O and no clock (the time is passed in), but for the answers to requests.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.dispatch.entry import Overdue, Whereabouts
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.polls import Deadlines, Poller
from daemon.dispatch.task_queue import TaskQueue
from daemon.links.interface import Request
from enginekit.messages.links import MatchTasks, MatchTasksResult, QueueKey, TaskRef
from enginekit.messages.status import ErrorStatus, Refused

POLLERS = 1000
"""Who may wait for one queue at once."""


class ActivityPolls:
    """Of one Matching. `given` watches what was handed out, `count` is told of it by queue, number and time."""

    def __init__(self, tasks: KnownTasks, given: Overdue, count: Callable[[TaskQueue, int, float], None]) -> None:
        self._tasks = tasks
        self._given = given
        self._count = count
        self._deadlines: Deadlines[Poller] = Deadlines()
        self._matchable: dict[QueueKey, None] = {}

    def ready(self, queue: TaskQueue) -> None:
        """A task waits in it."""
        self._matchable[queue.key] = None

    def poll(self, request: Request, call: MatchTasks, deadline: float) -> None:
        """A poll that waits until `deadline`, or is refused at once."""
        if call.queue.tenant != request.caller.tenant:
            request.refuse(Refused(ErrorStatus.PERMISSION_DENIED, f"queue {call.queue.name} is another tenant's"))
            return
        queue = self._tasks.queue(call.queue)
        if queue.is_node:
            request.refuse(
                Refused(ErrorStatus.INVALID_ARGUMENT, f"queue {call.queue.name} is served by the daemon's own worker")
            )
            return
        if len(queue.pollers) >= POLLERS:
            queue.drop_ended_pollers()
        if len(queue.pollers) >= POLLERS:
            request.refuse(
                Refused(
                    ErrorStatus.RESOURCE_EXHAUSTED,
                    f"{POLLERS} polls wait for queue {call.queue.name} already; poll with fewer workers, or for more "
                    "tasks at once",
                    {"retry_after_seconds": 1.0},
                )
            )
            return
        poller = Poller(request, call.queue, call.max_tasks, deadline)
        queue.pollers.append(poller)
        self._deadlines.add(poller)
        self._matchable[queue.key] = None

    def match(self, now: float) -> None:
        """Give what waits to those who have waited longest for it."""
        for key in self._matchable:
            self._match(self._tasks.queue(key), now)
        self._matchable.clear()

    def _match(self, queue: TaskQueue, now: float) -> None:
        while queue.depth and (poller := queue.next_poller()) is not None:
            refs: list[TaskRef] = []
            while len(refs) < poller.max_tasks and (entry := queue.take()) is not None:
                self._tasks.release_spec(entry)
                entry.move(Whereabouts.GIVEN, now)
                self._given.watch(entry)
                refs.append(entry.ref)
            poller.request.answer(MatchTasksResult(tasks=refs))
            self._count(queue, len(refs), now)

    # --- polls end ---------------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `mind` has to be called next."""
        return self._deadlines.next_at()

    def mind(self, now: float) -> None:
        """End the polls whose time is up."""
        while (poller := self._deadlines.due(now)) is not None:
            queue = self._tasks.queue(poller.queue)
            if queue.depth and poller.request.awaited:
                # Its time is up in the very moment in which there is something for it.
                self._match(queue, now)
            if not poller.ended:
                _end(poller)
                queue.trim_pollers()

    def end(self, queue: TaskQueue, worker_id: str) -> None:
        """End the polls of a worker without a task."""
        for poller in list(queue.pollers):
            call = poller.request.call
            if not poller.ended and isinstance(call, MatchTasks) and call.worker_id == worker_id:
                _end(poller)
        queue.trim_pollers()

    def end_all(self) -> None:
        """The same for all of them."""
        for queue in self._tasks.queues():
            for poller in queue.pollers:
                if not poller.ended:
                    _end(poller)
            queue.trim_pollers()


def _end(poller: Poller) -> None:
    poller.ended = True
    poller.request.answer(MatchTasksResult(tasks=[]))
