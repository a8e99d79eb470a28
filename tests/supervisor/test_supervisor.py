"""The supervisor under the mock clock: restarts, giving up, drains and their order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from daemon.settings import SupervisorSettings
from daemon.stores.interface import StoreUnusable
from daemon.supervisor import (
    DRAIN_ORDER,
    Service,
    ServiceFailed,
    ServiceName,
    ServiceSpec,
    ServiceState,
    Supervisor,
    Unusable,
)


class Boom(Exception):
    pass


class Journal:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


class Steady:
    """Serves until cancelled and writes down what happens to it."""

    def __init__(self, name: ServiceName, journal: Journal) -> None:
        self.name = name
        self.journal = journal

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.journal(f"{self.name.value} starts")
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.journal(f"{self.name.value} ends")

    async def drain(self) -> None:
        self.journal(f"{self.name.value} drains")
        await trio.sleep(0.5)
        self.journal(f"{self.name.value} drained")


class Worker:
    """Takes one job a second from a list that outlives it, and fails at the jobs named in `fails_at`, once each."""

    def __init__(self, jobs: list[int], done: list[int], fails_at: set[int]) -> None:
        self.jobs = jobs
        self.done = done
        self.fails_at = fails_at

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await trio.sleep(1)
            if self.jobs:
                job = self.jobs[0]
                if job in self.fails_at:
                    self.fails_at.discard(job)
                    raise Boom(f"at job {job}")
                self.done.append(self.jobs.pop(0))


class Broken:
    """Never gets anywhere."""

    def __init__(self, error: Exception, *, after_start: bool = False) -> None:
        self.error = error
        self.after_start = after_start

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.lowlevel.checkpoint()
        if self.after_start:
            task_status.started()
            await trio.lowlevel.checkpoint()
        raise self.error


class Quitter:
    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep(1)


def spec(name: ServiceName, start: Callable[[], Service], drain_seconds: float = 10.0) -> ServiceSpec:
    return ServiceSpec(name=name, start=start, drain_seconds=drain_seconds)


def steady(name: ServiceName, journal: Journal) -> ServiceSpec:
    return spec(name, lambda: Steady(name, journal))


def view(supervisor: Supervisor, name: ServiceName):
    return next(v for v in supervisor.views() if v.name == name.value)


async def test_a_service_that_raises_is_restarted_and_goes_on(autojump_clock: MockClock) -> None:
    journal = Journal()
    jobs, done = list(range(10)), []
    fails = {3, 7}
    supervisor = Supervisor(
        [
            steady(ServiceName.HISTORY, journal),
            spec(ServiceName.WORKER, lambda: Worker(jobs, done, fails)),
        ],
        SupervisorSettings(restarts=2),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert supervisor.ready
        await trio.sleep(20)
        assert done == list(range(10))
        worker = view(supervisor, ServiceName.WORKER)
        assert worker.restarts == 2
        assert worker.state == "RUNNING"
        assert worker.last_error == "Boom: at job 7"
        assert 0 < worker.uptime_seconds < view(supervisor, ServiceName.HISTORY).uptime_seconds
        assert journal.lines == ["history starts"], "the others never noticed"
        supervisor.stop()


@pytest.mark.parametrize("after_start", [False, True], ids=["before it starts", "after it started"])
async def test_a_service_that_always_raises_ends_the_daemon_and_is_named(
    autojump_clock: MockClock, after_start: bool
) -> None:
    journal = Journal()
    made = 0

    def start() -> Service:
        nonlocal made
        made += 1
        return Broken(Boom("no such thing"), after_start=after_start)

    supervisor = Supervisor(
        [steady(ServiceName.STORE, journal), spec(ServiceName.MATCHING, start)], SupervisorSettings(restarts=4)
    )
    with pytest.raises(ServiceFailed) as failed:
        await supervisor.run()
    assert failed.value.name is ServiceName.MATCHING
    assert isinstance(failed.value.cause, Boom)
    assert "matching" in str(failed.value)
    assert "Boom: no such thing" in str(failed.value)
    assert made == 5, "the first start and four restarts"
    assert journal.lines == ["store starts", "store ends"]
    assert view(supervisor, ServiceName.MATCHING).state == ServiceState.FAILED.value


async def test_failures_far_apart_are_forgiven(autojump_clock: MockClock) -> None:
    jobs, done = list(range(100)), []
    fails = set(range(0, 100, 10))
    supervisor = Supervisor(
        [spec(ServiceName.WORKER, lambda: Worker(jobs, done, fails))],
        SupervisorSettings(restarts=1, window_seconds=5),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        await trio.sleep(200)
        assert done == list(range(100))
        assert view(supervisor, ServiceName.WORKER).restarts == 10
        supervisor.stop()


async def test_the_pause_before_a_restart_doubles_up_to_its_limit(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    def start() -> Service:
        starts.append(trio.current_time())
        return Broken(Boom())

    supervisor = Supervisor(
        [spec(ServiceName.TIMER, start)],
        SupervisorSettings(restarts=5, window_seconds=1000, backoff_seconds=1, backoff_limit_seconds=6),
    )
    with pytest.raises(ServiceFailed):
        await supervisor.run()
    assert [round(b - a, 3) for a, b in itertools.pairwise(starts)] == [1, 2, 4, 6, 6]


async def test_returning_is_failing(autojump_clock: MockClock) -> None:
    supervisor = Supervisor([spec(ServiceName.FRONTEND, Quitter)], SupervisorSettings(restarts=1))
    with pytest.raises(ServiceFailed, match="frontend returned without being asked to"):
        await supervisor.run()


async def test_a_store_that_cannot_be_used_ends_the_daemon_at_once(autojump_clock: MockClock) -> None:
    journal = Journal()
    made = 0

    def start() -> Service:
        nonlocal made
        made += 1
        return Broken(StoreUnusable("engine.db was written by a newer engine"))

    supervisor = Supervisor(
        [spec(ServiceName.STORE, start), steady(ServiceName.HISTORY, journal)],
        SupervisorSettings(),
        hopeless=(StoreUnusable,),
    )
    with pytest.raises(Unusable, match=r"^engine.db was written by a newer engine$") as unusable:
        await supervisor.run()
    assert isinstance(unusable.value.__cause__, StoreUnusable)
    assert made == 1
    assert journal.lines == []


async def test_services_start_one_after_the_other_and_wait_for_one_that_is_late(autojump_clock: MockClock) -> None:
    journal = Journal()
    attempts = 0

    def start() -> Service:
        nonlocal attempts
        attempts += 1
        return Steady(ServiceName.STORE, journal) if attempts == 3 else Broken(Boom())

    supervisor = Supervisor(
        [spec(ServiceName.STORE, start), steady(ServiceName.HISTORY, journal)], SupervisorSettings()
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        assert journal.lines == ["store starts", "history starts"]
        assert attempts == 3
        supervisor.stop()


async def test_a_drain_goes_from_the_front_to_the_store_and_ends_them_backwards(autojump_clock: MockClock) -> None:
    journal = Journal()
    supervisor = Supervisor([steady(name, journal) for name in ServiceName], SupervisorSettings())
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        journal.lines.clear()
        supervisor.drain()
    drained = [f"{name.value} {what}" for name in DRAIN_ORDER for what in ("drains", "drained")]
    ended = [f"{name.value} ends" for name in reversed(ServiceName)]
    assert journal.lines == drained + ended
    assert {v.state for v in supervisor.views()} == {"STOPPED"}


async def test_a_drain_that_hangs_is_cut_off_and_one_that_fails_is_passed_over(autojump_clock: MockClock) -> None:
    journal = Journal()

    class Hanging(Steady):
        async def drain(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.journal("worker drain cut off")

    class Failing(Steady):
        async def drain(self) -> None:
            await trio.lowlevel.checkpoint()
            raise Boom("cannot drain")

    supervisor = Supervisor(
        [
            steady(ServiceName.HISTORY, journal),
            spec(ServiceName.WORKER, lambda: Hanging(ServiceName.WORKER, journal), drain_seconds=20),
            spec(ServiceName.FRONTEND, lambda: Failing(ServiceName.FRONTEND, journal)),
        ],
        SupervisorSettings(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        journal.lines.clear()
        begun = trio.current_time()
        supervisor.drain()
    assert journal.lines == [
        "worker drain cut off",
        "history drains",
        "history drained",
        "frontend ends",
        "worker ends",
        "history ends",
    ]
    assert trio.current_time() - begun == pytest.approx(20.5)
    assert view(supervisor, ServiceName.FRONTEND).last_error == "Boom: cannot drain"


async def test_a_drain_while_starting_ends_what_has_started(autojump_clock: MockClock) -> None:
    journal = Journal()
    supervisor = Supervisor(
        [
            steady(ServiceName.STORE, journal),
            spec(ServiceName.HISTORY, lambda: Broken(Boom())),
            steady(ServiceName.FRONTEND, journal),
        ],
        SupervisorSettings(restarts=1000, window_seconds=1e6),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(30)
        assert not supervisor.ready
        supervisor.drain()
    assert journal.lines == ["store starts", "store drains", "store drained", "store ends"]


async def test_a_service_that_shields_itself_holds_the_end_up_for_a_bounded_time(autojump_clock: MockClock) -> None:
    journal = Journal()

    class Stubborn(Steady):
        async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            with trio.CancelScope(shield=True):
                await trio.sleep(8)
            self.journal(f"{self.name.value} ends")

        async def drain(self) -> None:
            await trio.lowlevel.checkpoint()

    supervisor = Supervisor(
        [steady(ServiceName.STORE, journal), spec(ServiceName.WORKER, lambda: Stubborn(ServiceName.WORKER, journal))],
        SupervisorSettings(),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.drain()
    assert journal.lines[-2:] == ["store ends", "worker ends"], "the store was not kept waiting for it"


async def test_a_stop_ends_everything_even_in_the_middle_of_a_drain(autojump_clock: MockClock) -> None:
    journal = Journal()
    supervisor = Supervisor([steady(name, journal) for name in ServiceName], SupervisorSettings())
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        supervisor.drain()
        await trio.sleep(0.1)
        supervisor.stop()
    assert "frontend drained" not in journal.lines
    assert sorted(line for line in journal.lines if line.endswith("ends")) == sorted(
        f"{name.value} ends" for name in ServiceName
    )
