"""The destinations that tenants' tasks call, each with its circuit breaker: found, bounded and forgotten here.

A destination is a tenant's own: what its tasks report opens a breaker for nobody else, and nobody else learns of it
(docs/decisions.md). A tenant has at most so many that are closed, the ones heard of last, and as many that are not:
beyond those a breaker stays closed. A closed one of which nothing was heard for a window is forgotten, and so is a
half-open one for which nothing waits.

Pure: the time is passed in. What a change of state means for the queues is Matching's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from daemon.dispatch.breaker import Breaker
from daemon.settings import BreakerSettings
from enginekit.messages.links import DestinationReport, QueuedTask, QueueKey, TaskRef
from enginekit.messages.status import BreakerState


class Destination:
    """One destination of one tenant."""

    __slots__ = ("breaker", "candidates", "name", "queues", "tenant", "told")

    def __init__(self, tenant: str, name: str, breaker: Breaker) -> None:
        self.tenant = tenant
        self.name = name
        self.breaker = breaker
        self.queues: dict[QueueKey, None] = {}
        """Where its tasks may be parked."""
        self.candidates: set[TaskRef] = set()
        """Tasks that are queued to be its next probes."""
        self.told = breaker.state
        """The state that the log and the metrics know of."""

    @property
    def wanted(self) -> int:
        """How many more tasks are to be queued as probes."""
        return max(self.breaker.places - len(self.candidates), 0)


class _Tenant:
    __slots__ = ("closed", "held")

    def __init__(self) -> None:
        self.closed: OrderedDict[str, Destination] = OrderedDict()
        self.held: dict[str, Destination] = {}


class Destinations:
    """Those of all tenants. A destination whose breaker is not closed is *held*."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._tenants: dict[str, _Tenant] = {}
        self._held = 0
        self._sweep_at: float | None = None
        self._next_at: float | None = None
        self._stale = False

    @property
    def any_held(self) -> bool:
        return self._held > 0

    def held_by(self, task: QueuedTask) -> Destination | None:
        """The destination of the task, where its breaker does not let everything through."""
        return self.held(task.queue.tenant, task.destination) if self._held else None

    def held(self, tenant: str, name: str | None) -> Destination | None:
        of = self._tenants.get(tenant)
        return of.held.get(name) if of is not None and name is not None else None

    # --- what happens ------------------------------------------------------------------------------------------------

    def report(self, report: DestinationReport, began: float | None, now: float) -> Destination | None:
        """How a call went that began at `began`, where that is known. The destination, if it is or was held."""
        if not self._settings.enabled:
            return None
        of = self._tenants.setdefault(report.task.run.tenant, _Tenant())
        destination = of.held.get(report.destination)
        if destination is not None:
            destination.breaker.report(report.task, report.healthy, began, now)
            self._place(of, destination)
            return destination
        destination = of.closed.get(report.destination)
        if destination is None:
            destination = self._meet(of, report, now)
        else:
            of.closed.move_to_end(report.destination)
        if not destination.breaker.report(report.task, report.healthy, began, now):
            return None
        if len(of.held) >= self._settings.destinations:
            destination.breaker.close()
            return None
        self._place(of, destination)
        return destination

    def begin(self, destination: Destination, task: TaskRef, now: float) -> None:
        """A task of a held destination was handed out."""
        destination.candidates.discard(task)
        destination.breaker.begin(task, now)
        self._stale = True

    def abandon(self, destination: Destination, task: TaskRef) -> bool:
        """A task of a held destination that was handed out will never report. Whether a probe's place is free now."""
        self._stale = True
        return destination.breaker.abandon(task)

    # --- time --------------------------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `mind` has to be called next."""
        if self._stale:
            self._stale = False
            times = [self._sweep_at, *(held.breaker.next_at() for held in self._all_held())]
            self._next_at = min((at for at in times if at is not None), default=None)
        return self._next_at

    def mind(self, now: float, waits: Callable[[Destination], bool]) -> list[Destination]:
        """It is `now`: those that have come into another state, or that want other probes. `waits`: whether tasks of
        a destination wait."""
        due = self.next_at()
        if due is None or now < due:
            return []
        self._stale = True
        found: list[Destination] = []
        for held in list(self._all_held()):
            if (at := held.breaker.next_at()) is not None and at <= now:
                held.breaker.mind(now)
                found.append(held)
        if self._sweep_at is not None and self._sweep_at <= now:
            found += self._sweep(now, waits)
        return found

    def _sweep(self, now: float, waits: Callable[[Destination], bool]) -> list[Destination]:
        before = now - self._settings.window_seconds
        closed: list[Destination] = []
        for tenant, of in list(self._tenants.items()):
            for held in list(of.held.values()):
                breaker = held.breaker
                breaker.mind(now)
                idle = breaker.state is BreakerState.HALF_OPEN and not breaker.probing and breaker.heard <= before
                if idle and not waits(held):
                    breaker.close()
                    held.candidates.clear()
                    del of.held[held.name]
                    self._held -= 1
                    closed.append(held)
            while of.closed and next(iter(of.closed.values())).breaker.heard <= before:
                of.closed.popitem(last=False)
            if not of.closed and not of.held:
                del self._tenants[tenant]
        self._sweep_at = now + self._settings.window_seconds if self._tenants else None
        return closed

    # --- what it looks like ------------------------------------------------------------------------------------------

    def count(self, state: BreakerState) -> int:
        """How many of the held are in this state, over all tenants."""
        return sum(held.breaker.state is state for held in self._all_held())

    def troubled(self, tenant: str, now: float) -> list[Destination]:
        """The tenant's held ones, then the closed ones with a failure in their window."""
        of = self._tenants.get(tenant)
        if of is None:
            return []
        failing = (each for each in of.closed.values() if each.breaker.failure_rate(now) > 0)
        return [*of.held.values(), *failing]

    # --- where they are kept -----------------------------------------------------------------------------------------

    def _all_held(self) -> Iterator[Destination]:
        for of in self._tenants.values():
            yield from of.held.values()

    def _meet(self, of: _Tenant, report: DestinationReport, now: float) -> Destination:
        while len(of.closed) >= self._settings.destinations:
            of.closed.popitem(last=False)
        destination = Destination(report.task.run.tenant, report.destination, Breaker(self._settings, now))
        of.closed[report.destination] = destination
        if self._sweep_at is None:
            self._sweep_at = now + self._settings.window_seconds
            self._stale = True
        return destination

    def _place(self, of: _Tenant, destination: Destination) -> None:
        """Keep it where its state belongs."""
        self._stale = True
        name = destination.name
        if destination.breaker.closed:
            if of.held.pop(name, None) is not None:
                self._held -= 1
                destination.candidates.clear()
            of.closed[name] = destination
        elif name not in of.held:
            of.closed.pop(name, None)
            of.held[name] = destination
            self._held += 1
