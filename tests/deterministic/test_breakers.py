"""Circuit breakers in the whole daemon: what a dead destination costs the executions that call it, and the others."""

from __future__ import annotations

import msgspec
import pytest
import trio
from slow_store import as_other

from daemon.settings import BreakerSettings, Settings, WorkerSettings
from daemon.supervisor import ServiceName
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import BreakerState, ExecutionStatus
from enginekit.node import NodeCall, NodeFailure

DEAD, WELL = "http://dead.test/", "http://well.test/"
SETTINGS = Settings(
    worker=WorkerSettings(slots=10),
    breakers=BreakerSettings(window_seconds=30, minimum_calls=10, open_seconds=20, probes=2),
)


class Web:
    """A node in the place of `http`: a call takes half a second, and those of the sick hosts fail."""

    def __init__(self) -> None:
        self.sick = {DEAD: ("States.Http.StatusCode.503", True)}
        self.asked: list[tuple[str, float]] = []

    async def run(self, call: NodeCall) -> JSON:
        assert isinstance(call.input, dict)
        endpoint = call.input["ApiEndpoint"]
        assert isinstance(endpoint, str)
        self.asked.append((endpoint, trio.current_time()))
        await trio.sleep(0.5)
        if endpoint in self.sick:
            error, unhealthy = self.sick[endpoint]
            raise NodeFailure(error, "so it is", unhealthy=unhealthy)
        return "well"

    def calls(self, endpoint: str, since: float = 0.0) -> int:
        return sum(at >= since for asked, at in self.asked if asked == endpoint)


def call_of(endpoint: str, **more: JSON) -> dict[str, JSON]:
    task = {
        "Type": "Task",
        "Resource": "http",
        "Parameters": {"Method": "GET", "ApiEndpoint": endpoint},
        "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 3, "BackoffRate": 1}],
        "End": True,
        **more,
    }
    return {"StartAt": "Call", "States": {"Call": task}}


def attempts(history: list[ev.AnyEvent]) -> int:
    return sum(isinstance(event, ev.TaskScheduled) for event in history)


async def breakers(daemon) -> list[calls.BreakerView]:
    found = (await daemon.call(calls.DescribeDaemon(), calls.DescribeDaemonResult)).breakers
    assert found is not None
    return found


def test_while_it_is_open_tasks_wait_use_no_attempt_and_others_go_on(simulate):
    web = Web()

    async def scenario(daemon):
        first = [await daemon.start(call_of(DEAD)) for _ in range(10)]
        await trio.sleep(0.6)
        (open_one,) = await breakers(daemon)
        assert (open_one.destination, open_one.state) == ("dead.test:80", BreakerState.OPEN)
        opened = trio.current_time()
        waiting = [await daemon.start(call_of(DEAD)) for _ in range(200)]
        others = [await daemon.start(call_of(WELL)) for _ in range(30)]
        for other in others:
            assert (await daemon.closed(other)).status is ExecutionStatus.SUCCEEDED
        assert trio.current_time() < opened + 10, "behind 200 tasks of a dead destination, in the same queue"
        assert web.calls(DEAD) == 10
        await trio.sleep(opened + 100 - trio.current_time())
        assert web.calls(DEAD, opened) == 4 * 2, "two probes every twenty seconds and a half"
        queues = (await daemon.call(calls.ListQueues(), calls.ListQueuesResult)).queues
        assert [queue.depth for queue in queues if queue.queue == "http"] == [210]
        del web.sick[DEAD]
        histories = []
        for one in [*first, *waiting]:
            assert (await daemon.closed(one)).status is ExecutionStatus.SUCCEEDED
            histories.append(await daemon.events(one))
        assert sum(attempts(history) - 1 for history in histories) == 10 + 4 * 2, "only what was called was used up"
        assert await breakers(daemon) == []

    simulate(scenario, settings=SETTINGS, made={"http": web})


def test_the_time_to_start_passes_while_it_is_open(simulate):
    web = Web()

    async def scenario(daemon):
        for _ in range(10):
            await daemon.start(call_of(DEAD))
        await trio.sleep(0.6)
        began = trio.current_time()
        patient = [await daemon.start(call_of(DEAD, ScheduleToStartSeconds=7, Retry=[])) for _ in range(5)]
        for one in patient:
            seen = await daemon.closed(one)
            assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "States.Timeout")
            (timed_out,) = [e for e in await daemon.events(one) if isinstance(e, ev.TaskTimedOut)]
            assert timed_out.kind.value == "SCHEDULE_TO_START"
        assert trio.current_time() - began == pytest.approx(7, abs=0.1)
        assert web.calls(DEAD) == 10

    simulate(scenario, settings=SETTINGS, made={"http": web})


@pytest.mark.parametrize(
    ("error", "unhealthy", "state"),
    [
        ("States.Http.StatusCode.503", True, BreakerState.OPEN),
        ("States.Http.StatusCode.429", True, BreakerState.OPEN),
        ("States.Http.StatusCode.404", False, None),
    ],
)
def test_only_what_the_destination_is_at_fault_for_opens_it(simulate, error, unhealthy, state):
    web = Web()
    web.sick[DEAD] = (error, unhealthy)

    async def scenario(daemon):
        started = [await daemon.start(call_of(DEAD, Retry=[])) for _ in range(30)]
        await trio.sleep(60)
        ended = [await daemon.closed(one) for one in started] if state is None else []
        assert {seen.error for seen in ended} <= {error}
        assert [view.state for view in await breakers(daemon)] == ([state] if state is not None else [])

    simulate(
        scenario,
        settings=msgspec.structs.replace(SETTINGS, breakers=BreakerSettings(open_seconds=300)),
        made={"http": web},
    )


@pytest.mark.parametrize("name", [ServiceName.WORKER, ServiceName.MATCHING, ServiceName.HISTORY])
def test_a_service_that_is_restarted_under_probes_wedges_nothing(simulate, name):
    web = Web()

    async def scenario(daemon):
        started = [await daemon.start(call_of(DEAD)) for _ in range(60)]
        await trio.sleep(20.7)
        assert web.calls(DEAD) == 12, "two are probing"
        del web.sick[DEAD]
        daemon.sabotage[name].set()
        for one in started:
            assert (await daemon.closed(one)).status is ExecutionStatus.SUCCEEDED
        assert await breakers(daemon) == []

    simulate(scenario, settings=SETTINGS, made={"http": web})


def test_another_tenants_calls_are_its_own(simulate):
    web = Web()

    async def scenario(daemon):
        for _ in range(10):
            await daemon.start(call_of(DEAD))
        await trio.sleep(0.6)
        assert len(await breakers(daemon)) == 1
        web.sick.clear()
        start = calls.StartWorkflow(definition=encode(call_of(DEAD)), workflow_id="theirs")
        await as_other(daemon, start, calls.StartWorkflowResult)
        wait = calls.WaitWorkflow(workflow_id="theirs", wait_seconds=5)
        seen = await as_other(daemon, wait, calls.DescribeWorkflowResult)
        assert seen.status is ExecutionStatus.SUCCEEDED
        assert (await as_other(daemon, calls.DescribeDaemon(), calls.DescribeDaemonResult)).breakers == []

    simulate(scenario, settings=SETTINGS, made={"http": web})
