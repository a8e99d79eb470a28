"""A subscriber that does not read: nothing is asked for it any more, nobody else waits, and it hears what it missed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import trio

from enginekit.messages.calls import (
    ExecutionSummary,
    GetHistory,
    GetHistoryResult,
    ListWorkflows,
    ListWorkflowsResult,
)
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.messages.subscriptions import WatchExecutions, WatchExecutionsResult

MISSED = 7


def execution(number: int) -> ExecutionSummary:
    return ExecutionSummary(
        workflow_id=f"order-{number}",
        run_id=f"run-{number}",
        workflow="order",
        version=1,
        status=ExecutionStatus.RUNNING,
        error=None,
        labels={f"label-{index}": "x" * 200 for index in range(30)},
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        closed_at=None,
    )


async def test_a_subscriber_that_does_not_read_is_asked_for_no_more_and_told_what_it_missed(serve, peers):
    asked = 0

    async def watch(request):
        nonlocal asked
        asked += 1
        many = [execution(number) for number in range(100)]
        return WatchExecutionsResult(watch="w", seq=[sum(request.call.after) + 100], executions=many, missed=MISSED)

    peers.on(WatchExecutions, watch)
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[]))
    async with serve() as served, served.client() as silent, served.client() as other:
        await silent.call("Subscribe", topics=["executions"])
        stalled, before = 0, -1
        with trio.fail_after(60):
            while stalled < 5:  # until nothing was asked for half a second: its socket is full
                stalled = stalled + 1 if asked == before else 0
                before = asked
                assert (await other.call("ListWorkflows"))["executions"] == []
                await trio.sleep(0.1)
        told = []
        with trio.fail_after(60):
            while len(told) < before + 2:
                message = await silent.receive()
                told.append(message["params"])
        assert [update["seq"] for update in told] == list(range(1, len(told) + 1))
        assert [update.get("missed", 0) for update in told] == [0] + [MISSED] * (len(told) - 1)
        assert asked > before


async def test_a_topic_tells_at_most_ten_times_a_second_whatever_happens(serve, peers):
    async def watch(request):
        return WatchExecutionsResult(watch="w", seq=[sum(request.call.after) + 1], executions=[execution(1)])

    peers.on(WatchExecutions, watch)
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[]))
    async with serve() as served, served.client() as client:
        begun = trio.current_time()
        await client.call("Subscribe", topics=["executions"])
        told = [(await client.receive())["params"]["seq"] for _ in range(12)]
        assert told == list(range(1, 13))
        assert trio.current_time() - begun >= (len(told) - 2) / 10, "the snapshot, the first change, and a pause each"


async def test_a_service_that_is_away_begins_its_topic_anew(serve, peers):
    answers = iter(
        [
            WatchExecutionsResult(watch="one", seq=[5]),
            Refused(ErrorStatus.UNAVAILABLE, "History is starting again"),
            WatchExecutionsResult(watch="two", seq=[0]),
            WatchExecutionsResult(watch="two", seq=[1], executions=[execution(1)]),
        ]
    )

    async def watch(request):
        found = next(answers, None)
        if found is None:
            await trio.sleep_forever()
        return found

    peers.on(WatchExecutions, watch)
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[execution(0)]))
    async with serve() as served, served.client() as client:
        await client.call("Subscribe", topics=["executions"])
        told = [(await client.receive())["params"] for _ in range(3)]
        assert [(update["seq"], update.get("snapshot", False)) for update in told] == [(1, True), (2, True), (3, False)]


async def test_a_topic_ends_when_the_token_does(serve, peers):
    peers.on(WatchExecutions, Refused(ErrorStatus.PERMISSION_DENIED, "not any more"))
    async with serve() as served, served.client() as client:
        await client.call("Subscribe", topics=["executions"])
        update = (await client.receive())["params"]
        assert update["ended"] == "PERMISSION_DENIED: not any more"


def _subscribing(name):
    return {"method": "Subscribe", "params": {"topics": ["executions"], "subscription": name}}


async def test_subscribed_and_unsubscribed_in_one_batch(serve, peers):
    """In whatever order the calls of a batch are done, none of it has begun before the last of them."""
    peers.on(WatchExecutions, WatchExecutionsResult(watch="w", seq=[0]))
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[]))
    batch = []
    for number in range(10):
        name = f"s{number}"
        end = {"method": "Unsubscribe", "params": {"subscription": name}}
        batch += [_subscribing(name), end, _subscribing(name)]
    frame = [{"jsonrpc": "2.0", "id": number, **call} for number, call in enumerate(batch)]
    async with serve() as served, served.client() as client:
        await client.send(json.dumps(frame))
        while not isinstance(await client.receive(), list):
            pass
        await client.send(json.dumps({"jsonrpc": "2.0", "id": 99, **_subscribing("last")}))
        while (await client.receive()).get("params", {}).get("subscription") != "last":
            pass


async def test_many_large_topics_at_once_do_not_cut_off_who_reads(serve, peers):
    event = msgspec.Raw(msgspec.json.encode("x" * 20_000))

    async def history(request):
        await trio.sleep(0.05)
        return GetHistoryResult(run_id="r", events=[event] * 50, next_after_id=request.call.after_id + 50, closed=True)

    peers.on(GetHistory, history)
    async with serve() as served, served.client(max_message_size=2**24) as client:
        for number in range(2):
            topics = [f"history:order-{number}-{index}" for index in range(16)]
            params = {"topics": topics, "subscription": f"s{number}"}
            await client.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": "Subscribe", "params": params}))
        snapshots: set[str] = set()
        while len(snapshots) < 32:
            message = await client.receive()
            if message.get("params", {}).get("snapshot"):
                snapshots.add(message["params"]["topic"])


async def test_a_topic_goes_on_when_its_tenant_asks_for_less_again(serve, peers):
    answers = iter([Refused(ErrorStatus.RESOURCE_EXHAUSTED, "too much", {"retry_after_seconds": 0.1})])

    async def watch(request):
        return next(answers, WatchExecutionsResult(watch="w", seq=[0]))

    peers.on(WatchExecutions, watch)
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[execution(0)]))
    async with serve() as served, served.client() as client:
        await client.call("Subscribe", topics=["executions"])
        update = (await client.receive())["params"]
        assert (update.get("ended"), update.get("snapshot")) == (None, True)
