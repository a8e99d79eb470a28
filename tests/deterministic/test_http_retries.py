"""The http node in a whole daemon: what a server says about coming back is kept to, under one idempotency key."""

from __future__ import annotations

import httpx2
import pytest
import trio

from daemon.nodes.http import HttpNode
from daemon.settings import HttpSettings
from enginekit.messages.events import TaskFailed
from enginekit.messages.status import ExecutionStatus

RETRY = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 2}]


def calling(resource, **more):
    parameters = {"Method": "POST", "ApiEndpoint": "http://shop.test/orders", "RequestBody": {"n": 1}}
    call = {"Type": "Task", "Resource": resource, "Parameters": parameters, "End": True, **more}
    return {"StartAt": "Call", "States": {"Call": call}}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("definition", [calling("http"), calling("arn:aws:states:::http:invoke", Retry=RETRY)])
def test_the_next_attempt_waits_for_what_the_server_says(simulate, status, definition):
    async def scenario(daemon):
        began = trio.current_time()
        seen = []

        def answer(sent):
            seen.append((trio.current_time() - began, sent.headers["Idempotency-Key"]))
            if len(seen) == 1:
                return httpx2.Response(status, headers={"Retry-After": "90"})
            if len(seen) == 2:
                dates = {"Retry-After": "Wed, 21 Oct 2026 07:30:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
                return httpx2.Response(status, headers=dates)
            return httpx2.Response(200, json={"id": 7})

        daemon._nodes._nodes["http"] = HttpNode(HttpSettings(), transport=httpx2.MockTransport(answer))
        started = await daemon.start(definition)
        closed = await daemon.closed(started)
        assert closed.status is ExecutionStatus.SUCCEEDED
        first, second, third = (at for at, _ in seen)
        assert 90 <= second - first < 100
        assert 120 <= third - second < 130
        assert len({key for _, key in seen}) == 1
        failed = [event for event in await daemon.events(started) if isinstance(event, TaskFailed)]
        assert [event.retry_after_seconds for event in failed] == [90.0, 120.0]

    simulate(scenario)
