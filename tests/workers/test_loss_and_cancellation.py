"""Workers that are killed, paused or cut off, and executions that are canceled under them: with real processes."""

from __future__ import annotations

import json
import signal
from functools import partial

import pytest
import trio
from worker_site import Site, lines, logged, open_site, until

from enginekit.client import open_client
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus, Refused, ReportRefusal
from enginekit.worker import TaskContext, Worker
from examples.orders.stage import open_engine

LEASES = "\n[tasks]\nlease_seconds = 3.0\nreturns = 50\n"
"""Short, as tests wait for them to lapse. On a machine that does much else one may lapse once more than it was made to,
of a worker that is well: its task is then taken again, as the same attempt."""
STEP = {"StartAt": "Do", "States": {"Do": {"Type": "Task", "Resource": "activity:step", "End": True}}}


async def history(site: Site, workflow_id: str) -> list[ev.AnyEvent]:
    return [event async for event in site.client.history(workflow_id)]


async def test_a_killed_worker_s_task_goes_to_another_as_the_same_attempt(site: Site) -> None:
    async with site.worker("--queue", "step") as first:
        await site.client.start(STEP, input={"seconds": 2}, workflow_id="w")
        await site.noted("begun")
        first.process.kill()
        await first.process.wait()
    async with site.worker("--queue", "step"):
        assert await site.client.result("w") == {"seconds": 2}
    events = await history(site, "w")
    returned = [event.reason for event in events if isinstance(event, ev.TaskReturned)]
    assert returned
    assert all(reason.endswith("lapsed (3 s without a heartbeat)") for reason in returned)
    begun = site.ledger("begun")
    assert len({entry["pid"] for entry in begun}) == 2
    assert {entry["attempt"] for entry in begun} == {1}


async def test_a_worker_that_wakes_up_late_is_told_and_stops(site: Site) -> None:
    gated = {"StartAt": "Do", "States": {"Do": {**STEP["States"]["Do"], "Resource": "activity:gated"}}}
    async with site.worker("--queue", "gated") as sleeper:
        await site.client.start(gated, input=7, workflow_id="w")
        await site.noted("begun")
        sleeper.process.send_signal(signal.SIGSTOP)
        async with site.worker("--queue", "gated"):
            # A poll of the sleeper's own may be given it once more.
            await until(lambda: {entry["pid"] for entry in site.ledger("begun")} != {sleeper.process.pid})
            sleeper.process.send_signal(signal.SIGCONT)
            told = await logged(sleeper, "task stopped")
            assert "another worker's now" in told["event"]
            assert (told["workflow_id"], told["level"]) == ("w", "warning")
            (site.folder / "go").touch()
            assert await site.client.result("w") == 7
        assert sleeper.process.pid in {entry["pid"] for entry in site.ledger("cancelled")}
        # It is as good as new.
        await site.client.start(gated, input=8, workflow_id="again")
        assert await site.client.result("again") == 8
    ends = [event for event in await history(site, "w") if isinstance(event, ev.TaskCompleted | ev.TaskFailed)]
    assert len(ends) == 1


async def test_workers_that_die_of_a_task_are_bounded(tmp_path) -> None:
    """Every worker that takes it is killed: the task fails by that name, and the workflow goes on."""
    deadly = {
        "StartAt": "Do",
        "States": {
            "Do": {
                **STEP["States"]["Do"],
                "Retry": [{"ErrorEquals": ["States.Timeout"]}],
                "Catch": [{"ErrorEquals": ["Engine.WorkerLost"], "Next": "Lost"}],
            },
            "Lost": {"Type": "Pass", "End": True},
        },
    }
    async with open_site(tmp_path, "\n[tasks]\nlease_seconds = 0.5\nreturns = 1\n") as site:
        await site.client.start(deadly, input={"seconds": 600}, workflow_id="w")

        async def kill_whoever_takes_it() -> None:
            while True:
                begun = len(site.ledger("begun"))
                async with site.worker("--queue", "step") as worker:
                    await site.noted("begun", begun + 1)
                    worker.process.kill()
                    await worker.process.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_whoever_takes_it)
            output = await site.client.result("w")
            nursery.cancel_scope.cancel()
        assert isinstance(output, dict)
        assert output["Error"] == "Engine.WorkerLost"
        assert "2 workers took the task and none ended it" in str(output["Cause"])


async def test_an_outcome_outlives_a_kill_of_the_daemon(tmp_path) -> None:
    """The function ends while there is no daemon; so does one that waits for its token."""
    asking = {
        "StartAt": "Ask",
        "States": {
            "Ask": {
                "Type": "Task",
                "Resource": "activity:ask.waitForTaskToken",
                "InputPath": "$$.Task.Token",
                "HeartbeatSeconds": 600,
                "End": True,
            }
        },
    }
    async with open_site(tmp_path, "") as site, site.worker("--queue", "step", "--queue", "ask"):
        await site.client.start(asking, workflow_id="asked")
        (asked,) = await site.noted("asked")
        await site.client.start(STEP, input={"seconds": 1}, workflow_id="w")
        await site.noted("begun")
        async for event in site.client.history("asked", follow=True):
            if isinstance(event, ev.TaskSubmitted):
                break
        site.engine.process.kill()
        await site.engine.process.wait()
        await until((tmp_path / "effects").exists)
        async with open_engine(tmp_path, ""):
            assert await site.client.result("w") == {"seconds": 1}
            assert not await site.client.heartbeat_task(asked["token"])
            assert await site.run("task", "complete", asked["token"], "--output", '"yes"') == "completed\n"
            assert await site.client.result("asked") == "yes"
            with pytest.raises(Refused, match="its outcome was recorded before"):
                await site.client.complete_task(asked["token"], "no")
            for workflow_id in ("w", "asked"):
                events = await history(site, workflow_id)
                assert sum(isinstance(event, ev.TaskCompleted) for event in events) == 1
                assert not any(isinstance(event, ev.TaskReturned) for event in events)
            begun = [entry["workflow"] for entry in site.ledger("begun")]
            assert begun == ["w"], "it was not run again"


# --- cancellation --------------------------------------------------------------------------------------------------


def canceled_by(how: str, state: dict) -> dict:
    """The state, alone or beside one that fails as soon as `go` is signalled by completing its activity."""
    working = {
        "StartAt": "Work",
        "States": {
            "Work": {
                **state,
                "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1}],
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
                "End": True,
            },
            "Caught": {"Type": "Pass", "End": True},
        },
    }
    if how != "a sibling failed":
        return working
    fails = {"Type": "Task", "Resource": "activity:trigger", "End": True}
    branches = [working, {"StartAt": "Fails", "States": {"Fails": fails}}]
    return {"StartAt": "Both", "States": {"Both": {"Type": "Parallel", "Branches": branches, "End": True}}}


async def cancel(site: Site, how: str) -> ExecutionStatus:
    """Have it cancelled; how the execution ended."""
    match how:
        case "cancel":
            await site.client.call(calls.CancelWorkflow(workflow_id="w"))
        case "terminate":
            await site.client.call(calls.TerminateWorkflow(workflow_id="w"))
        case _:
            await trigger(site)
    return (await site.client.wait("w")).status


async def trigger(site: Site) -> None:
    while True:
        (task,) = (await site.client.call(calls.PollTask(queue="trigger", worker_id="t", wait_seconds=60))).tasks
        try:
            return await site.client.fail_task(task.token, "Trigger")
        except Refused as late:
            # Its lease has lapsed before this: it is to be taken once more.
            assert late.data["reason"] == ReportRefusal.TIMED_OUT.value  # noqa: PT017


HOW = {
    "cancel": ExecutionStatus.CANCELED,
    "terminate": ExecutionStatus.TERMINATED,
    "a sibling failed": ExecutionStatus.FAILED,
}


async def check_canceled(site: Site) -> None:
    events = await history(site, "w")
    (canceled,) = [event for event in events if isinstance(event, ev.TaskCanceled)]
    assert canceled.node == "Work"
    assert not any(isinstance(event, ev.TaskRetryScheduled) for event in events)
    assert "Caught" not in [getattr(event, "node", "") for event in events]


@pytest.mark.parametrize("how", HOW)
async def test_an_http_call_is_aborted(site: Site, how: str) -> None:
    """The server sees its connection close."""
    called, closed = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            while b"\r\n\r\n" not in await stream.receive_some():
                pass
            called.set()
            while await stream.receive_some():
                pass
            closed.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        state = {
            "Type": "Task",
            "Resource": "http",
            "Parameters": {"Method": "GET", "ApiEndpoint": f"http://127.0.0.1:{port}/slow"},
        }
        await site.client.start(canceled_by(how, state), workflow_id="w")
        with trio.fail_after(120):
            await called.wait()
            assert await cancel(site, how) is HOW[how]
            await closed.wait()
        nursery.cancel_scope.cancel()
    await check_canceled(site)


@pytest.mark.parametrize("how", HOW)
async def test_activities_learn_of_it_by_heartbeat(site: Site, how: str) -> None:
    """Within one heartbeat interval: a third of the lease here. An asynchronous function is cancelled, a synchronous
    one asks."""
    for resource in ("activity:step", "activity:step:sync"):
        async with site.worker("--queue", "step", "--queue", "step:sync") as worker:
            begun, cancelled = len(site.ledger("begun")), len(site.ledger("cancelled"))
            state = {"Type": "Task", "Resource": resource, "Parameters": {"seconds": 600}, "TimeoutSeconds": 900}
            await site.client.start(canceled_by(how, state), workflow_id="w")
            await site.noted("begun", begun + 1)
            assert await cancel(site, how) is HOW[how]
            await site.noted("cancelled", cancelled + 1)
            assert (await logged(worker, "task stopped: its execution does not want it"))["level"] == "info"
            await check_canceled(site)
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.process.wait() == 0
            assert "task given back" not in [line["event"] for line in lines(worker)]


async def test_a_worker_is_told_with_its_very_next_heartbeat(tmp_path) -> None:
    """Counted, not timed: no heartbeat after the cancellation is answered as if nothing had happened."""
    beats: list[bool] = []
    begun = trio.Event()

    async with (
        open_site(tmp_path, "") as site,
        open_client(site.local.url, site.local.token) as client,
        trio.open_nursery() as nursery,
    ):
        perform = client._perform

        async def counting(params: calls.Call, timeout_seconds: float | None) -> calls.Result:
            answer = await perform(params, timeout_seconds)
            if isinstance(answer, calls.HeartbeatTaskResult):
                beats.append(answer.cancel_requested)
            return answer

        client._perform = counting  # type: ignore[method-assign]

        async def work(value: object, task: TaskContext) -> None:
            begun.set()
            await trio.sleep_forever()

        worker = Worker(client, {"mine": work}, heartbeat_seconds=0.3)
        await nursery.start(worker.run)
        state = {"Type": "Task", "Resource": "activity:mine", "End": True}
        await site.client.start({"StartAt": "A", "States": {"A": state}}, workflow_id="w")
        await begun.wait()
        await site.client.call(calls.CancelWorkflow(workflow_id="w"))
        answered = len(beats)
        await until(lambda: not worker.running)
        assert beats.index(True) == len(beats) - 1
        assert len(beats) - answered <= 2, "one may have been on its way"
        worker.stop()


async def test_reports_on_a_task_that_was_canceled_are_told_so(site: Site) -> None:
    await site.client.start(STEP, workflow_id="w")
    (task,) = (await site.client.call(calls.PollTask(queue="step", worker_id="me", wait_seconds=60))).tasks
    await site.client.call(calls.CancelWorkflow(workflow_id="w"))
    assert await site.client.heartbeat_task(task.token)
    with pytest.raises(Refused) as late:
        await site.client.call(calls.CompleteTask(token=task.token, output=encode(1)))
    assert late.value.data["reason"] == "CLOSED"
    seen = json.loads(await site.run("describe", "w", "--json"))
    assert seen["status"] == "CANCELED"
