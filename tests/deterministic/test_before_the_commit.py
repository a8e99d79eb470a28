"""Nothing leaves before its commit: no answer, and no refusal either that tells of what may never be on disk."""

from __future__ import annotations

import trio
from slow_store import Gate

from enginekit.messages import calls
from enginekit.messages.events import TaskCompleted
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus, Refused

ACT = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:a", "End": True}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}}


async def twice(daemon, first, second):
    """`first` is decided, its commit waits; `second` is asked; then the commit is lost. What each was told."""
    gate = Gate(daemon.memory)
    told = []

    async def ask(name, call, result):
        try:
            told.append((name, await daemon.call(call, result)))
        except Refused as refused:
            told.append((name, refused.data.get("reason", refused.status.value)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "first", *first)
        await gate.waiting.wait()
        with trio.move_on_after(2):
            await ask("second", *second)
        gate.open(fail=True)
    await trio.sleep(1)
    return dict(told)


async def polled(daemon):
    tasks = await daemon.call(calls.PollTask(queue="a", worker_id="w", wait_seconds=5), calls.PollTaskResult)
    return tasks.tasks[0].token


def test_a_repeated_report_is_not_called_recorded_before_the_first_is(simulate):
    async def scenario(daemon):
        started = await daemon.start(ACT)
        report = calls.CompleteTask(token=await polled(daemon), output=encode(1))
        told = await twice(daemon, (report, calls.Acknowledged), (report, calls.Acknowledged))
        assert told["first"] == "UNAVAILABLE"
        assert "second" not in told
        assert not any(isinstance(event, TaskCompleted) for event in await daemon.events(started))

    simulate(scenario)


def test_a_second_terminate_is_not_told_of_a_first_that_is_not_on_disk(simulate):
    async def scenario(daemon):
        started = await daemon.start(WAIT)

        def terminate(request_id):
            about = {"workflow_id": started.workflow_id, "run_id": started.run_id}
            return calls.TerminateWorkflow(**about, request_id=request_id), calls.Acknowledged

        told = await twice(daemon, terminate("a"), terminate("b"))
        assert "second" not in told
        view = await daemon.call(calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult)
        assert view.status is ExecutionStatus.RUNNING

    simulate(scenario)


def test_a_heartbeat_does_not_tell_of_a_cancellation_that_is_not_on_disk(simulate):
    async def scenario(daemon):
        started = await daemon.start(ACT)
        token = await polled(daemon)
        cancel = calls.CancelWorkflow(workflow_id=started.workflow_id, run_id=started.run_id, request_id="a")
        beat = calls.HeartbeatTask(token=token)
        told = await twice(daemon, (cancel, calls.Acknowledged), (beat, calls.HeartbeatTaskResult))
        assert "second" not in told
        assert not (await daemon.call(beat, calls.HeartbeatTaskResult)).cancel_requested

    simulate(scenario)
