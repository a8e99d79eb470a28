"""A subscriber that does not read: nothing is asked for it any more, nobody else waits, and it hears what it missed."""

from __future__ import annotations

from datetime import UTC, datetime

import trio

from enginekit.messages.calls import ExecutionSummary, ListWorkflows, ListWorkflowsResult
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
        return WatchExecutionsResult(watch="w", seq=request.call.after + 100, executions=many, missed=MISSED)

    peers.on(WatchExecutions, watch)
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[]))
    async with serve() as served, served.client() as silent, served.client() as other:
        await silent.call("Subscribe", topics=["executions"])
        stalled, before = 0, -1
        with trio.fail_after(30):
            while stalled < 5:  # until nothing was asked for half a second: its socket is full
                stalled = stalled + 1 if asked == before else 0
                before = asked
                assert (await other.call("ListWorkflows"))["executions"] == []
                await trio.sleep(0.1)
        told = []
        with trio.fail_after(30):
            while len(told) < before + 2:
                message = await silent.receive()
                told.append(message["params"])
        assert [update["seq"] for update in told] == list(range(1, len(told) + 1))
        assert [update.get("missed", 0) for update in told] == [0] + [MISSED] * (len(told) - 1)
        assert asked > before


async def test_a_service_that_is_away_begins_its_topic_anew(serve, peers):
    answers = iter(
        [
            WatchExecutionsResult(watch="one", seq=5),
            Refused(ErrorStatus.UNAVAILABLE, "History is starting again"),
            WatchExecutionsResult(watch="two", seq=0),
            WatchExecutionsResult(watch="two", seq=1, executions=[execution(1)]),
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
