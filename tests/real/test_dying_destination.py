"""A destination that dies and returns under 500 waiting tasks: a real daemon, its real HTTP node, a real server."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

WAITING = 500
PROBES = 3
OPEN_SECONDS = 1.0
SETTINGS = f"""
[http]
allow = ["127.0.0.0/8"]

[worker]
slots = 20

[breakers]
minimum_calls = 10
open_seconds = {OPEN_SECONDS}
probes = {PROBES}
"""
CLOSED = {"state": "CLOSED", "waiting": 0, "since": "1970-01-01T00:00:00Z"}
AGAIN = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 50, "BackoffRate": 1}]


class Server:
    """Answers every call while it is well. Sick, it cuts each connection, or does not listen at all."""

    def __init__(self, listens_when_sick: bool) -> None:
        self.listens_when_sick = listens_when_sick
        self.well = False
        self.cut = 0
        self.port = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        if self.well or self.listens_when_sick:
            await trio.serve_listeners(self._serve, listeners, task_status=task_status)
        await listeners[0].aclose()
        task_status.started()

    async def recover(self, nursery: trio.Nursery) -> None:
        self.well = True
        if not self.listens_when_sick:
            await nursery.start(self.run)

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                received = await stream.receive_some()
                if not received:
                    return
                asked += received
            if not self.well:
                self.cut += 1
                return
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwell")


async def start(wire: Any, port: int, first: int, count: int) -> None:
    """So many executions of one call each, named by numbers from `first` on."""
    url = f"http://127.0.0.1:{port}/"
    task = {"Type": "Task", "Resource": "http", "Parameters": {"Method": "GET", "ApiEndpoint": url}, "End": True}
    definition = {"StartAt": "Call", "States": {"Call": {**task, "Retry": AGAIN}}}
    frames = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "StartWorkflow",
            "params": {"definition": definition, "workflow_id": f"call-{number}"},
        }
        for number in range(first, first + count)
    ]
    for begin in range(0, count, 100):
        answers = await wire.raw(json.dumps(frames[begin : begin + 100]))
        assert all("result" in answer for answer in answers)


async def breaker(wire: Any) -> dict:
    found = (await wire.result("DescribeDaemon"))["breakers"]
    return found[0] if found else CLOSED


async def until_open(wire: Any, *, waiting: int = 0, again_after: dict | None = None) -> dict:
    """What is seen of it once it is open: again, after it let probes through for a moment that nobody has to see."""
    with trio.fail_after(120):
        # Another process: it has no clock of ours, and tells nobody.
        while True:
            seen = await breaker(wire)
            again = again_after is None or moment(seen) > moment(again_after) + timedelta(seconds=OPEN_SECONDS / 2)
            if again and seen["state"] == "OPEN" and seen["waiting"] >= waiting:
                return seen
            await trio.sleep(0.02)


def moment(seen: dict) -> datetime:
    """When it came into its state, to the millisecond or two."""
    return datetime.fromisoformat(seen["since"])


async def closed(wire: Any, workflow_id: str) -> dict:
    """It may be the last of all, on a machine that takes its time for each."""
    with trio.fail_after(400):
        while True:
            seen = await wire.result("WaitWorkflow", workflow_id=workflow_id, wait_seconds=60)
            if seen["status"] != "RUNNING":
                return seen


@pytest.mark.parametrize("listens", [True, False], ids=["cuts connections", "does not listen"])
async def test_a_destination_dies_and_returns_under_500_waiting_tasks(start_daemon: Any, listens: bool) -> None:
    server = Server(listens_when_sick=listens)
    daemon = await trio.to_thread.run_sync(start_daemon, SETTINGS)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        async with daemon.connected() as wire:
            began = trio.current_time()
            await start(wire, server.port, 0, 20)
            await until_open(wire)
            await start(wire, server.port, 20, WAITING)
            seen = await until_open(wire, waiting=WAITING)
            await until_open(wire, waiting=WAITING, again_after=seen)
            await server.recover(nursery)
            dead_seconds = trio.current_time() - began
            failures: list[int] = []
            attempts: list[int] = []
            for number in range(20 + WAITING):
                ended = await closed(wire, f"call-{number}")
                assert ended["status"] == "SUCCEEDED"
                assert ended["output"]["ResponseBody"] == "well"
                events = (await wire.result("GetHistory", workflow_id=f"call-{number}"))["events"]
                failures.append(sum(event["type"] == "TaskFailed" for event in events))
                attempts.append(max(event["attempt"] for event in events if event["type"] == "TaskScheduled"))
            assert await breaker(wire) == CLOSED
        nursery.cancel_scope.cancel()
    rounds = dead_seconds / OPEN_SECONDS + 1
    # Whose turn it was to be the probe, which there has been by now, is nobody's business.
    assert sum(failures[20:]) <= PROBES * rounds, "a handful of probes, and no more of the 500 were called"
    assert sum(failures) <= 20 + PROBES * rounds
    assert attempts == [failed + 1 for failed in failures], "no attempt was used up but by a call"
    if listens:
        assert server.cut == sum(failures), "the server saw as many"
