"""Following the execution that is being looked at: its events as they happen, what runs in it now, its definition. In
Trio."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec.structs import replace

from console import reducers
from console.state import Opened
from enginekit.client import Client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import DescribeWorkflow, DescribeWorkflowResult, GetDefinition, GetHistory
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import HISTORY, HistoryGrown, Notify

if TYPE_CHECKING:
    from console.connection import Connection

DESCRIBE_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 2.0
PAGE: Final = 1000
WAIT_SECONDS: Final = 30.0

_grown = msgspec.json.Decoder(HistoryGrown)


class Following:
    """One execution at a time: `state.opened`, as it was at the last `turn`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turned = trio.Event()

    def turn(self) -> None:
        """Look again at what is to be looked at."""
        self._turned.set()

    async def run(self, client: Client) -> None:
        """Until cancelled."""
        while True:
            self._turned = trio.Event()
            opened = self._connection.state.opened
            if opened is None:
                await self._turned.wait()
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._describe, client, opened)
                nursery.start_soon(self._read_history, client, opened)
                await self._turned.wait()
                nursery.cancel_scope.cancel()

    async def _describe(self, client: Client, opened: Opened) -> None:
        """What runs in it now; at once, and then as long as it is open. One that was redriven is read on."""
        try:
            seen = await self._see(client, opened)
            if seen.workflow is not None:
                definition = await client.call(GetDefinition(name=seen.workflow, version=seen.version))
                self._change(opened, lambda now: replace(now, definition=definition.definition))
            while True:
                await trio.sleep(DESCRIBE_SECONDS)
                try:
                    seen = await self._see(client, opened)
                except Unreachable:
                    continue  # the connection says so
                now = self._connection.state.opened
                if now is not None and now.closed and now.events and seen.history_length > now.events[-1].id:
                    self._turned.set()  # opened again, and perhaps closed again by now
        except (Refused, Unreachable, ProtocolError) as problem:
            await self._failed(opened, problem)

    async def _see(self, client: Client, opened: Opened) -> DescribeWorkflowResult:
        seen = await client.call(DescribeWorkflow(workflow_id=opened.workflow_id, run_id=opened.run_id))
        self._change(opened, lambda now: reducers.described(now, seen))
        return seen

    async def _read_history(self, client: Client, opened: Opened) -> None:
        """Through the topic, which tells of the newest run of a workflow_id; of an older one, page by page."""
        try:
            async with client.subscribe([HISTORY + opened.workflow_id]) as updates:
                async for update in updates:
                    if update.ended is not None or not isinstance(update.data, msgspec.Raw):
                        break
                    if _grown.decode(update.data).run_id != opened.run_id:
                        break
                    self._tell(update)
                    now = self._connection.state.opened
                    if now is not None and now.closed:
                        return
            await self._read_pages(client, opened)
        except (Refused, Unreachable, ProtocolError) as problem:
            await self._failed(opened, problem)
        except msgspec.MsgspecError as error:
            await self._failed(opened, ProtocolError(f"its history is not understood: {error}"))

    async def _read_pages(self, client: Client, opened: Opened) -> None:
        while True:
            now = self._connection.state.opened
            last = now.events[-1].id if now is not None and now.events else 0
            page = await client.call(
                GetHistory(
                    workflow_id=opened.workflow_id,
                    run_id=opened.run_id,
                    after_id=last,
                    limit=PAGE,
                    wait_seconds=WAIT_SECONDS,
                )
            )
            grown = HistoryGrown(run_id=page.run_id, events=page.events, closed=page.closed)
            self._change(opened, partial(reducers.with_history, grown=grown))
            if page.closed:
                return

    def _tell(self, update: Notify) -> None:
        self._connection.update(lambda state: reducers.told(state, update, self._connection.now()))

    def _change(self, opened: Opened, change: reducers.Change) -> None:
        """Unless by now something else is looked at."""
        self._connection.update(lambda state: reducers.with_opened(state, opened.run_id, change))

    async def _failed(self, opened: Opened, problem: Refused | Unreachable | ProtocolError) -> None:
        if isinstance(problem, Refused) and problem.status is ErrorStatus.UNAUTHENTICATED:
            self._connection.turned_away(problem)
        self._change(opened, lambda now: replace(now, problem=str(problem)))
        if isinstance(problem, Unreachable):
            await trio.sleep(AGAIN_SECONDS)
            self._turned.set()
