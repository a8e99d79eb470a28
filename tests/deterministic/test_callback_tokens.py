"""`.waitForTaskToken` on the whole daemon: whoever has the token ends the task, long after it was run."""

from __future__ import annotations

import json

import pytest
import trio

from enginekit.messages import calls
from enginekit.messages.json import decode, encode
from enginekit.messages.status import ExecutionStatus, Refused

ASK = {
    "StartAt": "Ask",
    "States": {
        "Ask": {
            "Type": "Task",
            "Resource": "activity:ask.waitForTaskToken",
            "Parameters": {"token.$": "$$.Task.Token"},
            "TimeoutSeconds": 86_400,
            "End": True,
        }
    },
}
POLL = calls.PollTask(queue="ask", worker_id="w", wait_seconds=5)


async def asked(daemon):
    """The execution, and the token that its worker was given in the input, once the worker has done its part."""
    started = await daemon.start(ASK)
    (task,) = (await daemon.call(POLL, calls.PollTaskResult)).tasks
    await daemon.call(calls.CompleteTask(token=task.token, output=encode("sent")), calls.Acknowledged)
    return started, json.loads(bytes(task.input))["token"]


def test_whoever_has_the_token_ends_the_task(simulate):
    async def scenario(daemon):
        started, token = await asked(daemon)
        await trio.sleep(3600)
        view = await daemon.call(calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult)
        assert [node.state for node in view.nodes] == ["awaiting_token"]
        await daemon.call(calls.CompleteTask(token=token, output=encode({"approved": True})), calls.Acknowledged)
        closed = await daemon.closed(started)
        assert decode(closed.output) == {"approved": True}
        with pytest.raises(Refused) as late:
            await daemon.call(calls.CompleteTask(token=token, output=encode(1)), calls.Acknowledged)
        assert late.value.data["reason"] == "ALREADY_RECORDED"

    simulate(scenario)


def test_the_token_outlives_a_loss_of_the_store(simulate):
    async def scenario(daemon):
        started, token = await asked(daemon)
        daemon.memory.fail_next_commit(after_write=False)
        with pytest.raises(Refused):
            await daemon.start(ASK)
        await trio.sleep(5)
        await daemon.call(calls.FailTask(token=token, error="Denied", cause="no"), calls.Acknowledged)
        closed = await daemon.closed(started)
        assert (closed.error, closed.cause) == ("Denied", "no")

    simulate(scenario)


def test_nobody_answers_in_time(simulate):
    async def scenario(daemon):
        started, token = await asked(daemon)
        closed = await daemon.closed(started)
        assert (closed.status, closed.error) == (ExecutionStatus.FAILED, "States.Timeout")
        assert (closed.closed_at - closed.started_at).total_seconds() == pytest.approx(86_400, abs=1)
        with pytest.raises(Refused) as late:
            await daemon.call(calls.CompleteTask(token=token, output=encode(1)), calls.Acknowledged)
        assert late.value.data["reason"] == "TIMED_OUT"

    simulate(scenario)
