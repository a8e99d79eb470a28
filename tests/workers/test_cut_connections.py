"""A worker whose connection is cut again and again, in the middle of whatever: nothing is lost or counted twice."""

from __future__ import annotations

import random
from collections import Counter
from urllib.parse import urlsplit

import trio
from worker_site import SHORT_LEASES, Site, until

from enginekit.client import open_client
from enginekit.messages import events as ev
from enginekit.messages.json import JSON
from enginekit.worker import TaskContext, Worker

LEASES = SHORT_LEASES
TASKS = 60
CUTS = 10
CHUNK = 512
"""Bytes that are passed on at once: so that frames are cut, too."""


class Proxy:
    """Between a client and the daemon, until it cuts what is there."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._open: set[trio.SocketStream] = set()
        self.url = ""
        self.connections = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._connect, 0)
            self.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/rpc"
            task_status.started()

    async def _connect(self, near: trio.SocketStream) -> None:
        self.connections += 1
        far = await trio.open_tcp_stream(self._host, self._port)
        self._open |= {near, far}
        try:
            async with trio.open_nursery() as nursery:
                for source, target in ((near, far), (far, near)):
                    nursery.start_soon(self._pass_on, source, target, nursery.cancel_scope)
        finally:
            self._open -= {near, far}
            for stream in (near, far):
                await trio.aclose_forcefully(stream)

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(CHUNK):
                await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()

    @property
    def connected(self) -> bool:
        return bool(self._open)

    async def cut(self) -> None:
        streams, self._open = self._open, set()  # From now on, connected is who has come again.
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def test_no_outcome_is_lost_or_counted_twice(site: Site) -> None:
    chance = random.Random(5)
    calls: Counter[str] = Counter()
    outputs: dict[str, JSON] = {}
    state: dict[str, JSON] = {"Type": "Task", "Resource": "activity:cut", "End": True}
    states: dict[str, JSON] = {"One": {**state, "Next": "Two"}, "Two": state}
    del states["One"]["End"]  # type: ignore[union-attr, arg-type]

    async def work(value: JSON, task: TaskContext) -> JSON:
        calls[f"{task.workflow_id} {task.node}"] += 1
        await trio.sleep(chance.uniform(0, 0.2))
        assert isinstance(value, int)
        return value + 1

    async def one(number: int) -> None:
        started = await site.client.start({"StartAt": "One", "States": states}, input=number, workflow_id=f"w{number}")
        outputs[started.workflow_id] = await site.client.result(started.workflow_id, started.run_id)

    parts = urlsplit(site.local.url())
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        # The client outlives the worker, whose last poll is still under way when it is told to stop.
        async with open_client(lambda: proxy.url, site.local.token) as client, trio.open_nursery() as working:
            worker = Worker(client, {"cut": work}, concurrency=8)
            await working.start(worker.run)
            with trio.fail_after(240):
                async with trio.open_nursery() as executions:
                    for number in range(TASKS):
                        executions.start_soon(one, number)
                    for _ in range(CUTS):
                        await until(lambda: proxy.connected)
                        await trio.sleep(chance.uniform(0, 0.2))
                        await proxy.cut()
            worker.stop()
        nursery.cancel_scope.cancel()
    assert outputs == {f"w{number}": number + 2 for number in range(TASKS)}
    assert len(calls) == 2 * TASKS
    assert proxy.connections >= CUTS, "it was connected again in between"
    for number in range(TASKS):
        events = [event async for event in site.client.history(f"w{number}")]
        completed = [event.task for event in events if isinstance(event, ev.TaskCompleted)]
        assert len(completed) == len(set(completed)) == 2
        assert not any(isinstance(event, ev.TaskFailed | ev.TaskTimedOut) for event in events)
