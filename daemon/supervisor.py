"""Who keeps the services alive: starts them in order, restarts what fails, drains them on request, knows their states.

The supervisor knows services by name and by two methods; what they do is none of its business. Each service runs in
a nursery of its own, so that one that fails takes nothing else with it. What ends the daemon: too many failures of
one service within the window, a failure that no restart can mend, a drain, or a stop.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import Protocol, runtime_checkable

import msgspec
import structlog
import trio

from daemon.settings import SupervisorSettings
from enginekit.messages.calls import ServiceView

log = structlog.get_logger("daemon.supervisor")

STOP_SECONDS = 5.0
"""How long one service may take to end once it is cancelled. Only what it shields can use it up."""


class ServiceName(str, Enum):
    """In the order in which they start: each needs those before it, and all are watched over HEALTH."""

    HEALTH = "health"
    STORE = "store"
    LINKS = "links"
    QUEUES = "queues"
    HISTORY = "history"
    MATCHING = "matching"
    TIMER = "timer"
    WORKER = "worker"
    FRONTEND = "frontend"


DRAIN_ORDER = (
    ServiceName.FRONTEND,
    ServiceName.MATCHING,
    ServiceName.WORKER,
    ServiceName.TIMER,
    ServiceName.HISTORY,
    ServiceName.QUEUES,
    ServiceName.LINKS,
    ServiceName.STORE,
    ServiceName.HEALTH,
)
"""First nothing new comes in, then nothing new is handed out, what runs ends, and its outcomes are committed."""


class ServiceState(str, Enum):
    """Where a service stands. BACKOFF: it failed and is about to be started again."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


class ExitCode(IntEnum):
    """How `engine serve` ends. A second signal ends it with 128 and the signal's number, as a shell would say it."""

    DRAINED = 0
    SERVICE_FAILED = 1
    UNUSABLE = 3


class Service(Protocol):
    """What is supervised."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; report started when ready. To raise, or to return, is to fail."""


@runtime_checkable
class Drains(Protocol):
    """A service that has something to finish before it is cancelled."""

    async def drain(self) -> None:
        """Take nothing new and return once what was begun is finished. Called beside `run`, which goes on; cancelled
        when it takes too long."""


class ServiceSpec(msgspec.Struct, frozen=True):
    """A service and how to make one: `start` is called again for every restart. `drain_seconds` bounds its drain."""

    name: ServiceName
    start: Callable[[], Service]
    drain_seconds: float


class ServiceFailed(Exception):
    """A service failed more often than it may. `cause` is its last failure."""

    def __init__(self, name: ServiceName, cause: Exception, failures: int, window_seconds: float) -> None:
        super().__init__(
            f"the {name.value} service failed {failures} times within {window_seconds:g} s and is given up; "
            f"the last failure: {describe(cause)}"
        )
        self.name = name
        self.cause = cause


class Unusable(Exception):
    """Something that the daemon stands on cannot be used as it is, and starting again will not change it (a damaged
    store, a key that cannot be read). The message says what to do."""


class Returned(Exception):
    """A service returned though nobody had asked it to end."""


def describe(error: BaseException) -> str:
    """An exception in one line, with the innermost of a group in place of the group."""
    error = innermost(error)
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def innermost(error: BaseException) -> BaseException:
    """The first exception in a group of groups that is not a group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Unit:
    """One service under supervision, over all of its instances."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.state = ServiceState.STOPPED
        self.service: Service | None = None
        self.scope: trio.CancelScope | None = None
        self.started = False
        self.ended = trio.Event()
        self.restarts = 0
        self.failures: deque[float] = deque()
        self.running_since: float | None = None
        self.last_error: str | None = None

    def view(self) -> ServiceView:
        since = self.running_since
        return ServiceView(
            name=self.spec.name.value,
            state=self.state.value,
            restarts=self.restarts,
            uptime_seconds=trio.current_time() - since if since is not None else 0.0,
            last_error=self.last_error,
        )


class Supervisor:
    """Runs `services`, started in the order given. One `run` an instance.

    `hopeless` are the exceptions that a restart cannot mend: the first one ends the daemon. `explained` are those whose
    message says all that there is to know: they are logged without a traceback.

    Deterministic: no signals, no wall clock, no randomness (the pauses before restarts double without jitter, since
    the services of one daemon do not crowd one another).
    """

    def __init__(
        self,
        services: Sequence[ServiceSpec],
        settings: SupervisorSettings,
        *,
        hopeless: tuple[type[Exception], ...] = (),
        explained: tuple[type[Exception], ...] = (),
    ) -> None:
        self._settings = settings
        self._hopeless = hopeless
        self._explained = explained
        self._units = {spec.name: _Unit(spec) for spec in services}
        self._drain_wanted = trio.Event()
        self._drain_begun = trio.Event()
        self._bring_up = trio.CancelScope()
        self._everything = trio.CancelScope()

    def views(self) -> list[ServiceView]:
        """Every service's state now, in the order in which they start."""
        return [unit.view() for unit in self._units.values()]

    @property
    def ready(self) -> bool:
        """Whether every service is running."""
        return all(unit.state is ServiceState.RUNNING for unit in self._units.values())

    def drain(self) -> None:
        """Ask for an orderly end: `run` returns when all is drained, or the time for it is over."""
        self._drain_wanted.set()
        self._bring_up.cancel()

    def stop(self) -> None:
        """End at once: every service is cancelled where it stands. What was acknowledged is in the store."""
        self._everything.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start the services one after another, keep them running, and drain them when asked to.

        Reports started when the last of them is ready, or when it is asked to end before that (`ready` tells).
        Returns after `drain` or `stop`. Raises ServiceFailed or Unusable; the other services are cancelled then.
        """
        fatal: Exception | None = None
        reported = False
        try:
            with self._everything:
                async with trio.open_nursery() as nursery:
                    with self._bring_up:
                        for unit in self._units.values():
                            await nursery.start(self._keep, unit)
                    reported = True
                    task_status.started()
                    await self._drain_wanted.wait()
                    await self._drain_all()
                    nursery.cancel_scope.cancel()
        except* (ServiceFailed, Unusable) as group:
            first = innermost(group)
            assert isinstance(first, Exception)
            fatal = first
        if fatal is not None:
            raise fatal
        if not reported:
            task_status.started()

    # --- one service -------------------------------------------------------------------------------------------------

    async def _keep(self, unit: _Unit, *, task_status: trio.TaskStatus[None]) -> None:
        """Run instance after instance. Ends when the service is stopped; raises what ends the daemon."""
        try:
            while not self._drain_begun.is_set():
                failure = await self._run_once(unit, task_status)
                if failure is None:
                    return
                if self._drain_begun.is_set():
                    unit.last_error = describe(failure)
                    log.error("service failed while stopping", service=unit.spec.name.value, exc_info=failure)
                    return
                await self._after_failure(unit, failure)
        finally:
            if unit.state is not ServiceState.FAILED:
                unit.state = ServiceState.STOPPED
            unit.running_since = None
            unit.service = None
            unit.ended.set()

    async def _run_once(self, unit: _Unit, task_status: trio.TaskStatus[None]) -> Exception | None:
        """One instance, from its start to its end. Answers why it failed; None when it was cancelled."""
        failure: Exception | None = None
        unit.state = ServiceState.STARTING
        try:
            with trio.CancelScope() as unit.scope:
                async with trio.open_nursery() as nursery:
                    unit.service = unit.spec.start()
                    await nursery.start(unit.service.run)
                    if unit.state is ServiceState.STARTING:
                        unit.state = ServiceState.RUNNING
                    unit.running_since = trio.current_time()
                    log.info("service running", service=unit.spec.name.value, restarts=unit.restarts)
                    if not unit.started:
                        unit.started = True
                        task_status.started()
                failure = Returned(f"{unit.spec.name.value} returned without being asked to")
        except* Exception as group:  # noqa: BLE001 - a supervisor's very purpose; Cancelled and interrupts pass
            failure = group
        unit.running_since = None
        unit.service = None
        return failure

    async def _after_failure(self, unit: _Unit, failure: Exception) -> None:
        """Wait before the next start. Raises when there is not to be one."""
        cause = innermost(failure)
        assert isinstance(cause, Exception)
        unit.last_error = describe(cause)
        name = unit.spec.name
        if isinstance(cause, self._hopeless):
            unit.state = ServiceState.FAILED
            raise Unusable(str(cause)) from cause
        now = trio.current_time()
        unit.failures.append(now)
        while unit.failures[0] <= now - self._settings.window_seconds:
            unit.failures.popleft()
        failures = len(unit.failures)
        if failures > self._settings.restarts:
            unit.state = ServiceState.FAILED
            log.error("service given up", service=name.value, failures=failures, **self._why(cause, failure))
            raise ServiceFailed(name, cause, failures, self._settings.window_seconds) from failure
        pause = min(self._settings.backoff_seconds * 2.0 ** (failures - 1), self._settings.backoff_limit_seconds)
        log.error("service failed", service=name.value, restart_in_seconds=pause, **self._why(cause, failure))
        unit.state = ServiceState.BACKOFF
        with trio.CancelScope() as unit.scope:
            await trio.sleep(pause)
        unit.restarts += 1

    def _why(self, cause: Exception, failure: Exception) -> dict[str, object]:
        return {"reason": str(cause)} if isinstance(cause, self._explained) else {"exc_info": failure}

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _drain_all(self) -> None:
        """Drain service after service, then cancel them in the reverse order of their start."""
        self._drain_begun.set()
        for name in DRAIN_ORDER:
            if name in self._units:
                await self._drain_one(self._units[name])
        for unit in reversed(self._units.values()):
            if unit.scope is not None:
                unit.scope.cancel()
                with trio.move_on_after(STOP_SECONDS):
                    await unit.ended.wait()
                if not unit.ended.is_set():
                    log.warning("service does not stop", service=unit.spec.name.value, waited_seconds=STOP_SECONDS)

    async def _drain_one(self, unit: _Unit) -> None:
        """A drain that fails or takes too long is cut off: the store has everything that was acknowledged."""
        service = unit.service
        if service is None or unit.state is not ServiceState.RUNNING:
            return
        unit.state = ServiceState.DRAINING
        if not isinstance(service, Drains):
            return
        try:
            with trio.move_on_after(unit.spec.drain_seconds) as limit:
                await service.drain()
            if limit.cancelled_caught:
                log.warning("drain cut off", service=unit.spec.name.value, limit_seconds=unit.spec.drain_seconds)
        except Exception as error:
            # Whatever it raised: the services after it must still be drained.
            unit.last_error = describe(error)
            log.error("drain failed", service=unit.spec.name.value, exc_info=error)


# --- signals -----------------------------------------------------------------------------------------------------


class Supervised(Protocol):
    """What `serve` runs: a supervisor, or the daemon around one."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...

    def drain(self) -> None: ...

    def stop(self) -> None: ...


async def serve(supervised: Supervised) -> int:
    """Run it under SIGTERM and SIGINT: the first drains it, the second ends it at once.

    Returns the exit code for the process (see ExitCode), having logged why. To be called in the main thread.
    """
    stopped_by: int | None = None

    async def heed(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal stopped_by
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            drained = False
            async for number in signals:
                if drained:
                    stopped_by = number
                    log.warning("stopping at once", signal=signal.Signals(number).name)
                    supervised.stop()
                    return
                drained = True
                log.info("draining", signal=signal.Signals(number).name)
                supervised.drain()

    code = int(ExitCode.DRAINED)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(heed)
            await supervised.run()
            nursery.cancel_scope.cancel()
    except* ServiceFailed as failed:
        log.error("the daemon ends", reason=str(innermost(failed)))
        code = int(ExitCode.SERVICE_FAILED)
    except* Unusable as unusable:
        log.error("the daemon ends", reason=str(innermost(unusable)))
        code = int(ExitCode.UNUSABLE)
    return code if stopped_by is None else 128 + stopped_by
