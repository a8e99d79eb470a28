"""Circuit breakers at work: which tasks wait for the breaker of their destination, and when they go.

A task of a destination whose breaker is not closed is parked in its queue (`parking.py`), when it comes in or when it
would be handed out next. Half-open, as many of these as the breaker has places for are queued again as *candidates*, to
be the next probes. Closed, all are, and what was left to the store is pulled.

No I/O but the log: what is queued and what is pulled is said through the callables that Matching passes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from daemon.clock import moment
from daemon.dispatch.destinations import Destination, Destinations
from daemon.dispatch.entry import Entry
from daemon.dispatch.known import KnownTasks
from daemon.dispatch.task_queue import TaskQueue
from daemon.metrics import Metrics
from daemon.settings import BreakerSettings
from daemon.stores.rows import DestinationBacklog
from enginekit.messages.calls import BreakerView
from enginekit.messages.links import DestinationReport, Millis, QueuedTask, QueueKey
from enginekit.messages.status import BreakerState

log = structlog.get_logger("daemon.matching")

SHOWN = 500
"""Breakers in one answer."""


class Breakers:
    """Those of all tenants. `queue_up` queues a task again, `pull_soon` has a queue pulled from the store."""

    def __init__(
        self,
        settings: BreakerSettings,
        tasks: KnownTasks,
        queue_up: Callable[[Entry], None],
        pull_soon: Callable[[QueueKey], None],
        metrics: Metrics | None,
    ) -> None:
        self._tasks = tasks
        self._queue_up = queue_up
        self._pull_soon = pull_soon
        self._metrics = metrics
        self._destinations = Destinations(settings)
        self._counted = dict.fromkeys((BreakerState.OPEN, BreakerState.HALF_OPEN), 0)
        self._gauge()

    def end(self) -> None:
        """They count no more."""
        self._gauge(gone=True)

    # --- tasks that wait ---------------------------------------------------------------------------------------------

    def park(self, queue: TaskQueue, task: QueuedTask) -> bool:
        """Whether a task that comes in has to wait for the breaker of its destination: then it is parked, or left to
        the store."""
        held = self._destinations.held_by(task)
        if held is None:
            return False
        held.queues[queue.key] = None
        if queue.parking.takes(held.name):
            queue.parking.add(held.name, self._tasks.meet(task, None))
        else:
            queue.leave(held.name)
        self._queue_candidates(held)
        return True

    @property
    def set_aside(self) -> Callable[[Entry], bool] | None:
        """What looks at each task that would be handed out next; None while every breaker is closed."""
        return self._set_aside if self._destinations.any_held else None

    def _set_aside(self, entry: Entry) -> bool:
        held = self._destinations.held_by(entry.task)
        if held is None or held.breaker.places:
            return False
        held.candidates.discard(entry.ref)
        queue = self._tasks.queue(entry.task.queue)
        held.queues[queue.key] = None
        if queue.parking.takes(held.name):
            self._tasks.release_spec(entry)
            queue.parking.add(held.name, entry)
        else:
            self._tasks.forget(entry)
            queue.leave(held.name)
        return True

    def is_candidate(self, entry: Entry) -> bool:
        """Whether a task that is queued is to be a probe."""
        held = self._destinations.held_by(entry.task)
        return held is not None and entry.ref in held.candidates

    def over(self, entry: Entry) -> None:
        """A task that waited is over: if it was to be a probe, another is."""
        held = self._destinations.held_by(entry.task)
        if held is not None:
            held.candidates.discard(entry.ref)
            self._queue_candidates(held)

    # --- tasks that run ----------------------------------------------------------------------------------------------

    def began(self, entry: Entry, now: float) -> None:
        """A task was handed to a Worker."""
        held = self._destinations.held_by(entry.task)
        if held is not None:
            self._destinations.begin(held, entry.ref, now)

    def abandoned(self, entry: Entry) -> None:
        """A task that was handed to a Worker will not be reported on any more."""
        held = self._destinations.held_by(entry.task)
        if held is not None and self._destinations.abandon(held, entry.ref):
            self._queue_candidates(held)

    def reported(self, report: DestinationReport, began: float | None, now: float) -> None:
        """How a call went that began at `began`, where that is known."""
        destination = self._destinations.report(report, began, now)
        if destination is not None:
            self._follow(destination, now)

    # --- time and changes --------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `mind` has to be called next."""
        return self._destinations.next_at()

    def mind(self, now: float) -> None:
        for destination in self._destinations.mind(now, self._waits):
            self._follow(destination, now)

    def _waits(self, held: Destination) -> bool:
        return bool(held.candidates) or any(self._tasks.queue(key).parking.waits(held.name) for key in held.queues)

    def _follow(self, destination: Destination, now: float) -> None:
        """Do what the state of its breaker, and its places, call for."""
        if destination.breaker.state is not destination.told:
            self._tell(destination, now)
        if destination.breaker.closed:
            self._release(destination)
        else:
            self._queue_candidates(destination)

    def _release(self, destination: Destination) -> None:
        for key in destination.queues:
            entries, left = self._tasks.queue(key).parking.release(destination.name)
            for entry in entries:
                self._queue_up(entry)
            if left:
                self._pull_soon(key)
        destination.queues.clear()

    def _queue_candidates(self, held: Destination) -> None:
        """Queue as many of its tasks as its breaker has places for."""
        if not held.breaker.places:
            return
        for key in held.queues:
            parking = self._tasks.queue(key).parking
            for entry in parking.take(held.name, held.wanted):
                held.candidates.add(entry.ref)
                self._queue_up(entry)
            if parking.wants(held.name):
                self._pull_soon(key)

    def _tell(self, destination: Destination, now: float) -> None:
        state = destination.told = destination.breaker.state
        say = log.warning if state is BreakerState.OPEN else log.info
        say(
            f"circuit breaker {state.value.lower().replace('_', '-')}",
            tenant=destination.tenant,
            destination=destination.name,
            failure_rate=round(destination.breaker.failure_rate(now), 2),
        )
        if self._metrics is not None:
            self._metrics.breaker_changed(state)
        self._gauge()

    def _gauge(self, *, gone: bool = False) -> None:
        if self._metrics is not None:
            for state, before in self._counted.items():
                self._counted[state] = 0 if gone else self._destinations.count(state)
                self._metrics.breakers(state, self._counted[state] - before)

    # --- what it looks like ------------------------------------------------------------------------------------------

    def troubled(self, tenant: str, now: float) -> bool:
        """Whether any breaker of the tenant is to be shown."""
        return bool(self._destinations.troubled(tenant, now))

    def views(
        self, tenant: str, backlogs: Iterable[DestinationBacklog] | None, in_store: bool, now: float, today: Millis
    ) -> list[BreakerView]:
        """The tenant's breakers that are not closed, then those whose calls failed lately. `backlogs`: what the store
        has, where memory has not all of it; `in_store`: those that run are among them."""
        waiting: Counter[str | None] = Counter()
        if backlogs is None:
            for queue in self._tasks.queues_of(tenant):
                waiting.update(queue.destinations())
        else:
            for backlog in backlogs:
                waiting[backlog.destination] += backlog.depth
            for held in self._destinations.troubled(tenant, now) if in_store else ():
                # The start of what this process's own Worker has is recorded with its outcome.
                waiting[held.name] -= held.breaker.probing
        views: list[BreakerView] = []
        for each in self._destinations.troubled(tenant, now)[:SHOWN]:
            breaker = each.breaker
            opens_at = breaker.next_at() if breaker.state is BreakerState.OPEN else None
            views.append(
                BreakerView(
                    destination=each.name,
                    state=breaker.state,
                    since=moment(today + round((breaker.since - now) * 1000)),
                    failure_rate=round(breaker.failure_rate(now), 4),
                    waiting=max(waiting[each.name], 0),
                    next_probe_at=moment(today + round((opens_at - now) * 1000)) if opens_at is not None else None,
                )
            )
        return views
