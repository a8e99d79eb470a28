"""The gateway in-process, on the mock clock: scopes, routing, deadlines, polls, draining."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.api.auth import Principal
from daemon.api.gateway import Gateway
from daemon.clock import TrioClock
from daemon.links.interface import Request
from daemon.metrics import Metrics
from daemon.settings import Settings
from enginekit.messages import calls
from enginekit.messages.calls import Acknowledged, DescribeDaemonResult, PollTaskResult, Result, WorkerTask
from enginekit.messages.events import TaskKind
from enginekit.messages.json import NULL
from enginekit.messages.links import (
    ListBreakers,
    ListBreakersResult,
    MatchTasks,
    MatchTasksResult,
    QueueKey,
    StartTasks,
    TaskRef,
)
from enginekit.messages.status import BreakerState, ErrorStatus, Refused

ADA = Principal("acme", "ada", frozenset({"read", "write", "work", "admin"}), None)
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
POLL = b'{"queue":"pack","worker_id":"w1","wait_seconds":30,"max_tasks":2}'


class Setup:
    def __init__(self, gateway: Gateway, metrics: Metrics, peers: Any) -> None:
        self.gateway = gateway
        self.metrics = metrics
        self.peers = peers

    async def refusal(self, principal: Principal, method: str, params: bytes = b"{}") -> Refused:
        with pytest.raises(Refused) as caught:
            await self.gateway.call(principal, method, params)
        return caught.value


@pytest.fixture
def setup(peers: Any, describe_daemon: Callable[[], DescribeDaemonResult]) -> Setup:
    metrics = Metrics(CollectorRegistry())
    return Setup(Gateway(peers.links, Settings(), describe_daemon, TrioClock(), metrics), metrics, peers)


def worker_task(token: str) -> WorkerTask:
    return WorkerTask(
        token=token,
        workflow_id="w",
        run_id="r",
        node="Pack",
        path="Pack",
        input=NULL,
        attempt=1,
        timeout_seconds=60,
        idempotency_key="k",
        lease_seconds=30,
    )


def given(*tokens: str) -> PollTaskResult:
    return PollTaskResult(tasks=[worker_task(token) for token in tokens])


async def test_a_call_goes_to_its_service_in_its_callers_name(autojump_clock: MockClock, setup: Setup) -> None:
    setup.peers.on(calls.StartWorkflow, calls.StartWorkflowResult(workflow_id="w", run_id="r"))
    answer = await setup.gateway.call(ADA, "StartWorkflow", b'{"workflow":"pack","input":{"n":1}}')
    assert json.loads(answer) == {"workflow_id": "w", "run_id": "r"}
    (asked,) = setup.peers.asked
    assert bytes(asked.input) == b'{"n":1}'
    assert setup.peers.subjects == [("acme", "ada")]

    setup.peers.on(calls.ListQueues, calls.ListQueuesResult(queues=[]))
    assert await setup.gateway.call(ADA, "ListQueues", b"{}") == b'{"queues":[]}'
    breaker = calls.BreakerView(destination="shop:80", state=BreakerState.OPEN, since=NOW, failure_rate=1.0, waiting=3)
    setup.peers.on(ListBreakers, ListBreakersResult(breakers=[breaker]))
    described = json.loads(await setup.gateway.call(ADA, "DescribeDaemon", b"{}"))
    assert described["store"]["kind"] == "memory"
    assert [(each["destination"], each["state"]) for each in described["breakers"]] == [("shop:80", "OPEN")]
    assert setup.peers.subjects[-1] == ("acme", "ada"), "Matching tells of the caller's tenant alone"
    hello = json.loads(await setup.gateway.call(ADA, "Hello", b"{}"))
    assert (hello["protocol"], hello["tenant"], hello["limits"]["payload_bytes"]) == ("engine.v1", "acme", 262144)


async def test_the_daemon_is_described_though_matching_is_down(autojump_clock: MockClock, setup: Setup) -> None:
    setup.peers.on(ListBreakers, Refused(ErrorStatus.UNAVAILABLE, "not now"))
    described = json.loads(await setup.gateway.call(ADA, "DescribeDaemon", b"{}"))
    assert (described["store"]["kind"], described["breakers"]) == ("memory", None)


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("DescribeWorkflow", "read"),
        ("ListQueues", "read"),
        ("StartWorkflow", "write"),
        ("TerminateWorkflow", "write"),
        ("PollTask", "work"),
        ("StopPolls", "work"),
        ("CompleteTask", "work"),
        ("DescribeDaemon", "admin"),
    ],
)
async def test_a_method_needs_its_scope(autojump_clock: MockClock, setup: Setup, method: str, scope: str) -> None:
    others = Principal("acme", "ada", ADA.scopes - {scope}, None)
    refused = await setup.refusal(others, method)
    assert refused.status is ErrorStatus.PERMISSION_DENIED
    assert f'{method} needs the scope "{scope}"' in refused.message
    assert setup.peers.asked == []


async def test_a_token_without_scopes_may_say_hello(autojump_clock: MockClock, setup: Setup) -> None:
    await setup.gateway.call(Principal("acme", "ada", frozenset(), None), "Hello", b"{}")


async def test_an_expired_principal_may_nothing(autojump_clock: MockClock, setup: Setup) -> None:
    until = TrioClock().now() / 1000 + 10
    short = Principal("acme", "ada", ADA.scopes, until)
    await setup.gateway.call(short, "Hello", b"{}")
    await trio.sleep(11)
    assert (await setup.refusal(short, "Hello")).status is ErrorStatus.UNAUTHENTICATED


async def test_an_unknown_method_is_named_and_a_near_one_suggested(autojump_clock: MockClock, setup: Setup) -> None:
    refused = await setup.refusal(ADA, "StartWorkflw")
    assert refused.status is ErrorStatus.INVALID_ARGUMENT
    assert refused.message == "there is no method 'StartWorkflw'; did you mean StartWorkflow?"
    count = setup.metrics.registry.get_sample_value
    assert count("engine_rpc_calls_total", {"method": "unknown", "status": "INVALID_ARGUMENT"}) == 1


async def test_a_refusal_of_history_passes_through(autojump_clock: MockClock, setup: Setup) -> None:
    faults = Refused(ErrorStatus.INVALID_ARGUMENT, "2 faults", {"faults": ["States.A.Next: …"]})
    setup.peers.on(calls.RegisterWorkflow, faults)
    refused = await setup.refusal(ADA, "RegisterWorkflow", b'{"name":"w","definition":{}}')
    assert (refused.message, refused.data) == ("2 faults", {"faults": ["States.A.Next: …"]})


async def test_what_is_not_foreseen_is_internal_and_shows_nothing(autojump_clock: MockClock, setup: Setup) -> None:
    setup.peers.on(calls.DescribeWorkflow, Acknowledged())
    refused = await setup.refusal(ADA, "DescribeWorkflow", b'{"workflow_id":"w"}')
    assert refused.status is ErrorStatus.INTERNAL
    assert "Acknowledged" not in refused.message


@pytest.mark.parametrize(
    ("method", "params", "after"),
    [
        ("DescribeWorkflow", b'{"workflow_id":"w"}', 30),
        ("WaitWorkflow", b'{"workflow_id":"w","wait_seconds":100}', 130),
        ("GetHistory", b'{"workflow_id":"w","wait_seconds":50}', 80),
        ("PollTask", POLL, 60),
    ],
)
async def test_a_silent_service_is_given_its_time_and_no_more(
    autojump_clock: MockClock, setup: Setup, method: str, params: bytes, after: float
) -> None:
    async def silent(_: Request) -> Result | Refused:
        await trio.sleep_forever()

    for call in (calls.DescribeWorkflow, calls.WaitWorkflow, calls.GetHistory, MatchTasks):
        setup.peers.on(call, silent)
    begun = trio.current_time()
    assert (await setup.refusal(ADA, method, params)).status is ErrorStatus.UNAVAILABLE
    assert trio.current_time() - begun == pytest.approx(after)


async def test_a_poll_asks_matching_and_then_history(
    autojump_clock: MockClock, setup: Setup, make_task_ref: Callable[[int], TaskRef]
) -> None:
    setup.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1), make_task_ref(2)]))
    setup.peers.on(StartTasks, given("t1", "t2"))
    answer = json.loads(await setup.gateway.call(ADA, "PollTask", POLL))
    assert [task["token"] for task in answer["tasks"]] == ["t1", "t2"]
    assert setup.peers.asked == [
        MatchTasks(queue=QueueKey("acme", TaskKind.ACTIVITY, "pack"), worker_id="w1", max_tasks=2, wait_seconds=30),
        StartTasks(tasks=[make_task_ref(1), make_task_ref(2)], worker_id="w1"),
    ]
    dispatched = setup.metrics.registry.get_sample_value("engine_tasks_dispatched_total", {"kind": "activity"})
    assert dispatched == 2


async def test_a_poll_without_a_task_is_empty(autojump_clock: MockClock, setup: Setup) -> None:
    assert await setup.gateway.call(ADA, "PollTask", POLL) == b'{"tasks":[]}'


async def test_a_poll_whose_tasks_were_all_over_asks_again_while_there_is_time(
    autojump_clock: MockClock, setup: Setup, make_task_ref: Callable[[int], TaskRef]
) -> None:
    async def match(request: Request) -> Result:
        await trio.sleep(12)
        return MatchTasksResult(tasks=[make_task_ref(1)])

    setup.peers.on(MatchTasks, match)
    setup.peers.on(StartTasks, given())
    assert await setup.gateway.call(ADA, "PollTask", POLL) == b'{"tasks":[]}'
    assert [asked.wait_seconds for asked in setup.peers.of(MatchTasks)] == pytest.approx([30, 18, 6])


async def test_a_poll_given_up_while_its_tasks_start_gives_them_back(
    autojump_clock: MockClock, setup: Setup, make_task_ref: Callable[[int], TaskRef]
) -> None:
    starting, go_on = trio.Event(), trio.Event()

    async def start(_: Request) -> Result:
        starting.set()
        await go_on.wait()
        return given("t1", "t2")

    setup.peers.on(MatchTasks, MatchTasksResult(tasks=[make_task_ref(1), make_task_ref(2)]))
    setup.peers.on(StartTasks, start)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(setup.gateway.call, ADA, "PollTask", POLL)
        await starting.wait()
        nursery.cancel_scope.cancel()
        go_on.set()
    assert sorted(asked.token for asked in setup.peers.of(calls.ReturnTask)) == ["t1", "t2"]
    assert setup.metrics.registry.get_sample_value("engine_tasks_undelivered_total") == 2


async def test_a_poll_given_up_before_that_starts_nothing(autojump_clock: MockClock, setup: Setup) -> None:
    async def match(_: Request) -> Result | Refused:
        await trio.sleep_forever()

    setup.peers.on(MatchTasks, match)
    with trio.move_on_after(5):
        await setup.gateway.call(ADA, "PollTask", POLL)
    assert setup.peers.of(StartTasks) == []


async def test_giving_back_is_bounded_and_refusals_end_it_quietly(autojump_clock: MockClock, setup: Setup) -> None:
    async def slow(request: Request) -> Result | Refused:
        if request.call != calls.ReturnTask(token="gone", reason="r"):
            await trio.sleep_forever()
        return Refused(ErrorStatus.FAILED_PRECONDITION, "over", {"reason": "CLOSED"})

    setup.peers.on(calls.ReturnTask, slow)
    begun = trio.current_time()
    await setup.gateway.give_back(ADA, ["gone", "t"], "r")
    assert trio.current_time() - begun == pytest.approx(2)


async def test_draining_refuses_new_work_ends_polls_and_answers_the_rest(
    autojump_clock: MockClock, setup: Setup
) -> None:
    begun, go_on = trio.Event(), trio.Event()
    results: list[bytes] = []

    async def slow_start(_: Request) -> Result:
        begun.set()
        await go_on.wait()
        return calls.StartWorkflowResult(workflow_id="w", run_id="r")

    async def forever(_: Request) -> Result | Refused:
        await trio.sleep_forever()

    async def keep(method: str, params: bytes) -> None:
        results.append(await setup.gateway.call(ADA, method, params))

    setup.peers.on(calls.StartWorkflow, slow_start)
    setup.peers.on(MatchTasks, forever)
    drained = trio.Event()

    async def drain() -> None:
        await setup.gateway.drain()
        drained.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "PollTask", POLL)
        nursery.start_soon(keep, "StartWorkflow", b'{"workflow":"w"}')
        await begun.wait()
        await wait_all_tasks_blocked()
        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        assert results == [b'{"tasks":[]}']
        for method, params in (("PollTask", POLL), ("StartWorkflow", b'{"workflow":"w"}')):
            refused = await setup.refusal(ADA, method, params)
            assert refused.status is ErrorStatus.UNAVAILABLE
            assert refused.data["retry_after_seconds"] == 2.0
        await setup.gateway.call(ADA, "CompleteTask", b'{"token":"t"}')
        assert not drained.is_set()
        go_on.set()
    assert json.loads(results[1])["run_id"] == "r"
    assert drained.is_set()


async def test_a_token_is_not_renewed_where_there_is_no_connection(autojump_clock: MockClock, setup: Setup) -> None:
    refused = await setup.refusal(ADA, "Authenticate", b'{"token":"x"}')
    assert refused.status is ErrorStatus.INVALID_ARGUMENT


async def test_a_worker_that_stops_has_its_polls_ended_and_nobody_else_s(
    autojump_clock: MockClock, setup: Setup
) -> None:
    async def silent(_: Request) -> Result:
        await trio.sleep_forever()
        raise AssertionError

    setup.peers.on(MatchTasks, silent)
    ended: list[str] = []

    async def poll(principal: Principal, worker_id: str) -> None:
        params = json.dumps({"queue": "pack", "worker_id": worker_id, "wait_seconds": 30}).encode()
        assert await setup.gateway.call(principal, "PollTask", params) == b'{"tasks":[]}'
        ended.append(f"{principal.tenant} {worker_id}")

    other = Principal("umbrella", "eve", frozenset({"work"}), None)
    async with trio.open_nursery() as nursery:
        for principal, worker_id in ((ADA, "w1"), (ADA, "w1"), (ADA, "w2"), (other, "w1")):
            nursery.start_soon(poll, principal, worker_id)
        await wait_all_tasks_blocked()
        stopped = await setup.gateway.call(ADA, "StopPolls", b'{"worker_id":"w1"}')
        assert stopped == b'{"stopped":2}'
        await wait_all_tasks_blocked()
        assert ended == ["acme w1"] * 2
        assert await setup.gateway.call(ADA, "StopPolls", b'{"worker_id":"w1"}') == b'{"stopped":0}'
        nursery.cancel_scope.cancel()
