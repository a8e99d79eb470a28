"""Workers in other processes and queues in partitions: what runs them, what becomes of it when one of them is gone."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
import trio
from slow_store import as_other
from split_daemon import Split, split

from daemon.settings import BreakerSettings, MatchingSettings, Settings, TaskSettings, WorkerSettings
from daemon.supervisor import ServiceName
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import BreakerState, ErrorStatus, ExecutionStatus, Refused
from enginekit.node import NodeCall, NodeFailure

OWNED = pytest.mark.parametrize("queues", ["owned"], indirect=True)
"""For what only the owners of partitions do."""


@pytest.fixture(params=["owned", "shared"], autouse=True)
def queues(request, monkeypatch):
    """Each partition's owner has its queues, or all Matchings share them."""
    monkeypatch.setattr(Split, "shared_queues", request.param == "shared")


SETTINGS = Settings(
    worker=WorkerSettings(slots=8, drain_seconds=5),
    tasks=TaskSettings(lease_seconds=9.0, returns=3),
    matching=MatchingSettings(partitions=4, lease_seconds=4.0),
)

NONE: JSON = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]
SOME: JSON = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 3, "BackoffRate": 1}]


class Desk:
    """A node that takes as long as its input says, and notes who was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.asked: list[str] = []
        self.canceled: list[str] = []
        self.sick = False

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, dict)
        seconds = call.input.get("seconds", self._seconds)
        assert isinstance(seconds, int | float)
        self.asked.append(call.workflow_id)
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.canceled.append(call.workflow_id)
            raise
        if self.sick:
            raise NodeFailure("States.Http.StatusCode.503", "so it is", unhealthy=True)
        return {"by": call.workflow_id}


def one(resource: str = "echo", **more: JSON) -> dict[str, JSON]:
    return {"StartAt": "Work", "States": {"Work": {"Type": "Task", "Resource": resource, "End": True, **more}}}


def line(length: int) -> dict[str, JSON]:
    states: dict[str, JSON] = {
        f"S{number}": {"Type": "Task", "Resource": "echo", "Next": f"S{number + 1}"} for number in range(1, length)
    }
    states[f"S{length}"] = {"Type": "Task", "Resource": "echo", "End": True}
    return {"StartAt": "S1", "States": states}


def started_by(history: list[ev.AnyEvent]) -> list[str]:
    return [event.worker for event in history if isinstance(event, ev.TaskStarted)]


def once_each(history: list[ev.AnyEvent]) -> None:
    """Every attempt has one end."""
    ended = Counter(event.task for event in history if isinstance(event, ev.TaskCompleted | ev.TaskFailed))
    assert set(ended.values()) <= {1}
    assert [event.id for event in history] == list(range(1, len(history) + 1))


def test_what_is_to_be_run_is_run_by_whoever_is_there(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        for _ in range(2):
            await daemon.matching()
        names = {(await daemon.worker()).worker_id for _ in range(3)}
        started = [await daemon.start(line(5)) for _ in range(40)]
        seen = set()
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            once_each(history)
            assert [e.lease_seconds for e in history if isinstance(e, ev.TaskStarted)] == [9.0] * 5
            seen.update(started_by(history))
        assert seen == names, "all of them"
        assert trio.current_time() < 5

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_what_a_worker_had_when_it_was_killed_is_run_by_another(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        first = await daemon.worker()
        started = [await daemon.start(one(), {"seconds": 60}) for _ in range(5)]
        await trio.sleep(1)
        assert len(desk.asked) == 5
        await first.kill()
        second = await daemon.worker()
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            once_each(history)
            assert started_by(history) == [first.worker_id, second.worker_id]
            (returned,) = [e for e in history if isinstance(e, ev.TaskReturned)]
            assert (returned.times, first.worker_id in returned.reason) == (1, True)
        assert trio.current_time() < 1 + 9 + 60 + 6

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_long_tasks_keep_their_leases(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        worker = await daemon.worker()
        started = await daemon.start(one(), {"seconds": 200})
        await daemon.closed(started)
        assert started_by(await daemon.events(started)) == [worker.worker_id]
        assert desk.asked == [started.workflow_id]

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_a_bounded_number_of_workers_is_lost_by_one_attempt(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        started = await daemon.start(one(Retry=NONE), {"seconds": 1000})
        for _ in range(4):
            worker = await daemon.worker()
            await trio.sleep(8)
            await worker.kill()
            await trio.sleep(11)
        closed = await daemon.closed(started)
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "Engine.WorkerLost")
        assert [e.times for e in await daemon.events(started) if isinstance(e, ev.TaskReturned)] == [1, 2, 3]

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


# --- who comes back late ---------------------------------------------------------------------------------------------


def test_a_worker_that_was_cut_off_stops_what_is_anothers_when_it_is_back(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        first = await daemon.worker()
        started = await daemon.start(one(), {"seconds": 60})
        await trio.sleep(1)
        first.wire.cut = True
        second = await daemon.worker()
        await trio.sleep(20)
        assert started_by(await daemon.events(started)) == [first.worker_id, second.worker_id]
        assert (first.worker.running, desk.canceled) == (1, []), "it does not know yet"
        first.wire.cut = False
        await trio.sleep(4)
        assert (first.worker.running, first.slots.running, len(desk.canceled)) == (0, 0, 1)
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        once_each(await daemon.events(started))
        again = [await daemon.start(one()) for _ in range(20)]
        for each in again:
            await daemon.closed(each)
        seen = {name for each in again for name in started_by(await daemon.events(each))}
        assert seen == {first.worker_id, second.worker_id}, "it works again"

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_an_outcome_that_comes_late_changes_nothing_and_is_not_kept(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        first = await daemon.worker({"echo": Desk(seconds=5)})
        started = await daemon.start(one())
        await trio.sleep(1)
        first.wire.cut = True
        await trio.sleep(5)
        assert first.worker.unrecorded == 1
        second = await daemon.worker({"echo": Desk(seconds=40)})
        await trio.sleep(6)
        first.wire.cut = False
        await trio.sleep(12)
        assert (first.worker.unrecorded, first.slots.running) == (0, 0), "it was told"
        history = await daemon.events(started)
        assert [type(e) for e in history[-2:]] == [ev.TaskReturned, ev.TaskStarted]
        assert started_by(history) == [first.worker_id, second.worker_id]
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        once_each(await daemon.events(started))

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


def test_an_outcome_that_was_lost_on_the_way_is_reported_again(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        worker = await daemon.worker()
        started = await daemon.start(one(), {"seconds": 5})
        await trio.sleep(4.5)
        worker.wire.cut = True
        await trio.sleep(2)
        worker.wire.cut = False
        assert (await daemon.closed(started)).status is ExecutionStatus.SUCCEEDED
        history = await daemon.events(started)
        assert started_by(history) == [worker.worker_id], "while it is renewed nobody else has it"
        assert "TaskReturned" not in [type(e).__name__ for e in history]
        await trio.sleep(1)
        assert (worker.worker.unrecorded, worker.slots.running) == (0, 0)

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


# --- cancellation, draining, restarts --------------------------------------------------------------------------------


def test_a_cancellation_reaches_the_worker_that_has_the_task(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        for _ in range(2):
            await daemon.matching()
        workers = [await daemon.worker() for _ in range(3)]
        started = [await daemon.start(one(), {"seconds": 1000}) for _ in range(9)]
        await trio.sleep(1)
        for each in started[:4]:
            await daemon.call(calls.CancelWorkflow(workflow_id=each.workflow_id), calls.Acknowledged)
        await daemon.call(calls.TerminateWorkflow(workflow_id=started[4].workflow_id), calls.Acknowledged)
        await trio.sleep(0.01)
        assert sorted(desk.canceled) == sorted(each.workflow_id for each in started[:5])
        assert sum(process.slots.running for process in workers) == 4
        history = await daemon.events(started[0])
        assert [type(e).__name__ for e in history[-2:]] == ["TaskCanceled", "WorkflowCanceled"]

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_a_cancellation_that_was_lost_is_told_with_the_next_renewal(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        worker = await daemon.worker()
        started = await daemon.start(one(), {"seconds": 1000})
        await trio.sleep(1)
        worker.wire.cut = True
        await daemon.call(calls.CancelWorkflow(workflow_id=started.workflow_id), calls.Acknowledged)
        await trio.sleep(0.1)
        worker.wire.cut = False
        await trio.sleep(3)
        assert desk.canceled == [started.workflow_id]
        assert worker.slots.running == 0

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


def test_a_worker_that_drains_ends_what_it_can_and_gives_back_the_rest_at_once(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        first = await daemon.worker()
        short = [await daemon.start(one(), {"seconds": 3}) for _ in range(4)]
        long = [await daemon.start(one(), {"seconds": 30}) for _ in range(3)]
        await trio.sleep(1)
        assert first.slots.running == 7
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.drain)
            await trio.sleep(1)
            later = [await daemon.start(one()) for _ in range(3)]
            await trio.sleep(1)
            assert len(desk.asked) == 7, "it takes no more"
            second = await daemon.worker()
        drained = trio.current_time()
        for each in short:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            assert started_by(await daemon.events(each)) == [first.worker_id]
        for each in later:
            await daemon.closed(each)
            assert started_by(await daemon.events(each)) == [second.worker_id]
        for each in long:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            assert started_by(history) == [first.worker_id, second.worker_id]
            (returned,) = [e for e in history if isinstance(e, ev.TaskReturned)]
            assert returned.reason == "its worker was stopped"
        assert trio.current_time() - drained < 31, "no lease had to lapse"

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


# --- partitions ------------------------------------------------------------------------------------------------------


@OWNED
def test_partitions_of_a_process_that_is_gone_are_anothers_within_its_lease(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        first, second = await daemon.matching(), await daemon.matching()
        await trio.sleep(2)
        assert sorted(first.service.partitions + second.service.partitions) == [0, 1, 2, 3]
        assert first.service.partitions
        assert second.service.partitions
        # Tasks of many tenants' queues, in every partition, and more than the worker has slots.
        worker = await daemon.worker()
        started = [await daemon.start(line(3), {"seconds": 1}) for _ in range(20)]
        await trio.sleep(0.5)
        await first.kill()
        died = trio.current_time()
        started += [await daemon.start(line(3), {"seconds": 1}) for _ in range(20)]
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            once_each(await daemon.events(each))
        assert second.service.partitions == [0, 1, 2, 3]
        assert trio.current_time() - died < 4 + 1 + 7 + 120 / 8, "lease, notice, poll, and the work itself"
        assert len(desk.asked) == 120
        assert worker.slots.running == 0

    for seed in range(1, 5):
        desk.asked.clear()
        split(scenario, tmp_path, SETTINGS, {"echo": desk}, seed)


@OWNED
def test_one_that_drains_leaves_its_partitions_to_the_others_without_a_pause(tmp_path):
    async def scenario(daemon: Split):
        first, second = await daemon.matching(), await daemon.matching()
        await trio.sleep(2)
        await daemon.worker()
        started: list[calls.StartWorkflowResult] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.service.drain)
            for _ in range(40):
                started.append(await daemon.start(one()))
                await trio.sleep(0.1)
        await first.kill()
        assert second.service.partitions == [0, 1, 2, 3]
        for each in started:
            closed = await daemon.closed(each)
            assert closed.closed_at is not None
            assert (closed.closed_at - closed.started_at).total_seconds() < 2.5
            once_each(await daemon.events(each))

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


@OWNED
def test_what_the_former_owner_took_in_at_the_last_is_known_to_the_next(tmp_path):
    async def scenario(daemon: Split):
        first = await daemon.matching()
        second = await daemon.matching()
        # Both have the same ones now, and the first does not know it.
        assert first.service.partitions == [0, 1, 2, 3]
        assert second.service.partitions
        for number in range(16):
            await daemon.start(one(f"activity:desk-{number}"))
        await trio.sleep(1.5)
        assert sorted(first.service.partitions + second.service.partitions) == [0, 1, 2, 3]
        for number in range(16):
            poll = calls.PollTask(queue=f"desk-{number}", worker_id="theirs", wait_seconds=0)
            assert len((await daemon.call(poll, calls.PollTaskResult)).tasks) == 1, "without another look at the store"

    split(scenario, tmp_path, SETTINGS, {})


def test_a_poll_of_a_users_worker_moves_with_its_partition(tmp_path):
    async def scenario(daemon: Split):
        first = await daemon.matching()
        found: list[calls.WorkerTask] = []

        async def poll() -> None:
            call = calls.PollTask(queue="desk", worker_id="theirs", wait_seconds=60)
            found.extend((await daemon.call(call, calls.PollTaskResult)).tasks)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await trio.sleep(1)
            await first.kill()
            await daemon.matching()
            started = await daemon.start(one("activity:desk"))
        assert [task.workflow_id for task in found] == [started.workflow_id]
        assert trio.current_time() < 15

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


def test_offers_that_are_lost_on_the_way_are_found_in_the_store(tmp_path):
    async def scenario(daemon: Split):
        await daemon.matching()
        await daemon.worker()
        await trio.sleep(5)
        offer = daemon.links.matching.offer
        daemon.links.matching.offer = lambda message: True
        started = [await daemon.start(line(3)) for _ in range(30)]
        await trio.sleep(1)
        daemon.links.matching.offer = offer
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
        assert trio.current_time() < 5 + 15 + 3

    split(scenario, tmp_path, SETTINGS, {"echo": Desk()})


# --- breakers and tenants --------------------------------------------------------------------------------------------


def test_a_dead_destination_sees_a_handful_of_probes_and_its_tasks_use_no_attempt(tmp_path):
    desk = Desk(seconds=0.5)
    desk.sick = True
    settings = msgspec.structs.replace(
        SETTINGS,
        worker=WorkerSettings(slots=10),
        breakers=BreakerSettings(window_seconds=30, minimum_calls=10, open_seconds=20, probes=2),
    )
    call = one("http", Parameters={"Method": "GET", "ApiEndpoint": "http://dead.test/"}, Retry=SOME)

    async def breakers(daemon: Split) -> list[calls.BreakerView] | None:
        return (await daemon.call(calls.DescribeDaemon(), calls.DescribeDaemonResult)).breakers

    async def scenario(daemon: Split):
        for _ in range(2):
            await daemon.matching()
        await trio.sleep(2)
        workers = [await daemon.worker() for _ in range(2)]
        first = [await daemon.start(call) for _ in range(10)]
        await trio.sleep(0.7)
        (view,) = await breakers(daemon) or []
        assert (view.destination, view.state) == ("dead.test:80", BreakerState.OPEN)
        opened, asked = trio.current_time(), len(desk.asked)
        waiting = [await daemon.start(call) for _ in range(500)]
        others = [await daemon.start(one()) for _ in range(30)]
        for each in others:
            await daemon.closed(each)
        assert trio.current_time() < opened + 10
        await trio.sleep(opened + 100 - trio.current_time())
        queues = (await daemon.call(calls.ListQueues(), calls.ListQueuesResult)).queues
        assert [(queue.depth, queue.pollers) for queue in queues if queue.queue == "http"] == [(510, 2)]
        probes = len(desk.asked) - asked
        # Those who share the queues have a breaker each, and each of them tries.
        assert probes == 4 * 2 if not Split.shared_queues else 4 <= probes <= 16, "two every twenty seconds and a half"
        desk.sick = False
        histories = []
        for each in [*first, *waiting]:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            histories.append(await daemon.events(each))
        used = sum(sum(isinstance(e, ev.TaskScheduled) for e in history) - 1 for history in histories)
        assert used == asked + probes, "only what was called was used up"
        assert await breakers(daemon) == []
        seen = {name for history in histories for name in started_by(history)}
        assert seen == {process.worker_id for process in workers}

    split(scenario, tmp_path, settings, {"http": desk, "echo": Desk()})


def test_a_tenant_with_many_tasks_is_not_in_the_way_of_one_with_few(tmp_path):
    # One partition, so that their queues are in the same one.
    settings = msgspec.structs.replace(SETTINGS, matching=MatchingSettings(partitions=1))

    async def scenario(daemon: Split):
        await daemon.matching()
        many = [await daemon.start(one(), {"seconds": 1}) for _ in range(400)]
        for number in range(5):
            start = calls.StartWorkflow(
                definition=encode(one()), input=encode({"seconds": 1}), workflow_id=f"theirs-{number}"
            )
            await as_other(daemon, start, calls.StartWorkflowResult)
        await daemon.worker()
        began = trio.current_time()
        for number in range(5):
            wait = calls.WaitWorkflow(workflow_id=f"theirs-{number}", wait_seconds=60)
            assert (await as_other(daemon, wait, calls.DescribeWorkflowResult)).status.closed
        assert trio.current_time() - began < 3, "behind 400 seconds of the other's work"
        for each in many:
            await daemon.closed(each)
        assert trio.current_time() - began < 405 / 8 + 2, "no slot was left free"

    split(scenario, tmp_path, settings, {"echo": Desk()})


def test_no_worker_takes_more_than_it_has_slots_for(tmp_path):
    desk = Desk()

    async def scenario(daemon: Split):
        await daemon.matching()
        workers = [await daemon.worker() for _ in range(3)]
        started = []
        for tenant_queue in range(6):
            definition = line(1) if tenant_queue % 2 else one("echo", TaskQueue="echo")
            started += [await daemon.start(definition, {"seconds": 1}) for _ in range(20)]
        most = 0
        while len(desk.asked) < len(started):
            most = max(most, *(process.worker.running for process in workers))
            await trio.sleep(0.05)
        assert most == 8
        for each in started:
            await daemon.closed(each)
            assert len(started_by(await daemon.events(each))) == 1

    split(scenario, tmp_path, SETTINGS, {"echo": desk})


# --- everything at once ----------------------------------------------------------------------------------------------


async def begin(daemon: Split, definition: dict[str, JSON], data: JSON) -> calls.StartWorkflowResult:
    """Started once, however often that has to be asked for: History may be restarting."""
    name = f"order-{next(daemon.serial)}"
    while True:
        try:
            return await daemon.start(definition, data, request_id=name, workflow_id=name)
        except Refused as refused:
            if refused.status is not ErrorStatus.UNAVAILABLE:
                raise


def storm(tmp_path, seed: int) -> list[str]:
    """Processes are killed and started at random, wires are cut: everything is run, every outcome counts once."""
    chance = random.Random(seed)
    desk = Desk()
    settings = msgspec.structs.replace(SETTINGS, tasks=TaskSettings(lease_seconds=3.0, returns=50))

    async def scenario(daemon: Split):
        matchings = [await daemon.matching() for _ in range(2)]
        workers = [await daemon.worker() for _ in range(3)]
        started = []
        for _ in range(60):
            for _ in range(3):
                started.append(await begin(daemon, line(chance.randint(1, 4)), {"seconds": chance.random()}))
            await trio.sleep(chance.random())
            what = chance.random()
            if what < 0.15:
                await workers.pop(0).kill()
                workers.append(await daemon.worker())
            elif what < 0.2:
                await workers.pop(0).drain()
                workers.append(await daemon.worker())
            elif what < 0.3:
                await matchings.pop(0).kill()
                matchings.append(await daemon.matching())
            elif what < 0.45:
                wire = chance.choice(workers).wire
                wire.cut = not wire.cut
            elif what < 0.5:
                daemon.sabotage[ServiceName.HISTORY].set()
        for process in workers:
            process.wire.cut = False
        lines = []
        for each in started:
            assert (await daemon.closed(each)).status is ExecutionStatus.SUCCEEDED
            history = await daemon.events(each)
            once_each(history)
            lines.append(" ".join(type(event).__name__ for event in history))
        await trio.sleep(30)
        assert [process.slots.running for process in workers] == [0, 0, 0]
        assert [process.worker.unrecorded for process in workers] == [0, 0, 0]
        return lines

    return split(scenario, tmp_path, settings, {"echo": desk}, seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_killed_or_cut_everything_is_run(tmp_path, seed):
    storm(tmp_path, seed)


def test_the_same_seed_gives_the_same_run(tmp_path):
    assert storm(tmp_path, 4) == storm(tmp_path, 4)
