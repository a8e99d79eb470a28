"""What runs while something breaks: executions whose starts are repeated until they are acknowledged, and starts that
are asked for once, to hear what a caller is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio

from enginekit import jsonrpc
from enginekit.client import Client
from enginekit.connection import Connection, Lost, TokenSource, Tuning, UrlSource
from enginekit.messages import calls
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.methods import DECODERS

AT_ONCE = 10
PAUSE_SECONDS = 0.1

STEPS = {
    "StartAt": "A",
    "States": {
        "A": {"Type": "Task", "Resource": "echo", "Next": "B"},
        "B": {"Type": "Wait", "Seconds": 1, "Next": "C"},
        "C": {"Type": "Task", "Resource": "echo", "End": True},
    },
}
SETTLE_SECONDS = 180.0
RECOVERY_SECONDS = 180.0


@contextmanager
def recovers(what: str):
    """Within bounds, and if not, it is said from what."""
    with trio.move_on_after(RECOVERY_SECONDS) as patience:
        yield
    if patience.cancelled_caught:
        pytest.fail(f"nothing goes on {RECOVERY_SECONDS:g} s after {what}")


class Load:
    """Executions, one after the other on each of some lines, until it is told to end."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.ended = False
        self.acknowledged: set[str] = set()
        self.closed: dict[str, ExecutionStatus] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for line in range(AT_ONCE):
                nursery.start_soon(self._line, line)

    async def goes_on(self) -> None:
        """Returns once on each line, on the average, an execution has closed that was started after this was called."""
        known = len(self.acknowledged) + AT_ONCE
        while len(self.closed) < known:  # noqa: ASYNC110
            await trio.sleep(PAUSE_SECONDS)

    async def _line(self, line: int) -> None:
        number = 0
        while not self.ended:
            name = f"run-{line}-{number}"
            number += 1
            started = await self._client.start(STEPS, workflow_id=name, input={"n": number})
            self.acknowledged.add(name)
            closed = await self._client.wait(started.workflow_id, started.run_id)
            self.closed[name] = closed.status


class Once:
    """Calls that are not repeated, over a connection of its own."""

    def __init__(self, url: UrlSource, token: TokenSource) -> None:
        self._connection = Connection(url, token, Tuning())
        self.acknowledged: set[str] = set()
        self.refused: Counter[ErrorStatus] = Counter()
        self.lost = 0

    async def ask(self, params: calls.Call) -> Any:
        """The answer. Raises Refused and Lost."""
        reply = await self._connection.request(type(params).__name__, msgspec.json.encode(params))
        if reply.error is not None:
            raise jsonrpc.refusal(reply.error)
        return DECODERS[type(params)].decode(reply.result)

    async def start(self, name: str) -> None:
        params = calls.StartWorkflow(definition=encode(STEPS), workflow_id=name, request_id=name)
        try:
            await self.ask(params)
        except Lost:
            self.lost += 1
        except Refused as refused:
            self.refused[refused.status] += 1
        else:
            self.acknowledged.add(name)

    async def start_all_the_time(self, name: str) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            number = 0
            while True:
                nursery.start_soon(self.start, f"{name}-{number}")
                number += 1
                await trio.sleep(PAUSE_SECONDS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connected until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._connection.run)
            try:
                await self._connection.opened()
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._connection.close()


async def settled(client: Client) -> None:
    """Returns when no execution runs any more. Raises TooSlowError."""
    running = calls.ListWorkflows(status=ExecutionStatus.RUNNING)
    with trio.fail_after(SETTLE_SECONDS):
        while [one async for one in client.executions(running)]:  # noqa: ASYNC110
            await trio.sleep(PAUSE_SECONDS)


async def under(load: Load, faults: Callable[[], Awaitable[None]]) -> None:
    """The faults, while the load runs; returns when both have ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        await load.goes_on()
        await faults()
        load.ended = True
