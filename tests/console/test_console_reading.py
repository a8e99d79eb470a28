"""What the line above the executions says of how they are read, by a daemon that takes its time to answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import trio
from msgspec.structs import replace

from console.connection import Connection
from console.state import Executions
from console.views import choice_in_words
from enginekit.client import open_client
from enginekit.local import Access
from enginekit.messages.calls import ExecutionSummary, ListWorkflowsResult
from enginekit.messages.status import ExecutionStatus
from tests.enginekit.scripted_engine import scripted_engine

SUMMARY = ExecutionSummary(
    workflow_id="order",
    run_id="run-1",
    workflow="order",
    version=1,
    status=ExecutionStatus.RUNNING,
    error=None,
    labels={},
    started_at=datetime(2026, 3, 1, tzinfo=UTC),
    closed_at=None,
)


async def test_they_are_read_again_once_they_have_been() -> None:
    """Until then the old picture is there, whose line must not say that it is the new one."""
    answer = trio.Event()

    async def listed(params: dict[str, Any]) -> object:
        await answer.wait()
        return ListWorkflowsResult(executions=[SUMMARY])

    async with (
        scripted_engine(ListWorkflows=listed) as engine,
        open_client(engine.url, "tok") as client,
        trio.open_nursery() as nursery,
    ):
        connection = Connection(Access(lambda: engine.url, lambda: "tok"))
        connection.update(lambda state: replace(state, executions=Executions(complete=True, behind=True, missed=7)))

        def said() -> str:
            executions = connection.state.executions
            return choice_in_words(executions, len(executions.order))

        nursery.start_soon(connection._reading.run, client)
        await engine.until("ListWorkflows")
        assert said() == "0 · status any · workflow any · text any · 7 changes were missed, reading again"
        answer.set()
        with trio.fail_after(60):
            while not connection.state.executions.order:  # noqa: ASYNC110 - the console looks at it now and then, too
                await trio.sleep(0.01)
        assert said() == "1 · status any · workflow any · text any · 7 changes were missed, read again"
        nursery.cancel_scope.cancel()
