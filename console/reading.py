"""Reading the list of executions page by page, as far down as somebody looks, and anew after changes were missed. In
Trio. What becomes of a page is a reducer's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from console import reducers
from console.state import Executions
from enginekit.client import Client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.calls import ExecutionSummary, ListWorkflows
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import EXECUTIONS, Notify

if TYPE_CHECKING:
    from console.connection import Connection

PAGE: Final = 500
REREAD_SECONDS: Final = 5.0
"""At least this long between two readings of the whole because of missed changes."""


class Reading:
    """One page at a time. Changes that are told while a page is on its way are kept until it is there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._wake = trio.Event()
        self._more = False
        self._meanwhile: list[ExecutionSummary] | None = None
        """What is told while a page is on its way; None: none is."""
        self._anew_at = 0.0

    def wake(self) -> None:
        self._wake.set()

    def read_on(self) -> None:
        self._more = True
        self._wake.set()

    def reread(self) -> None:
        self._anew_at = 0.0
        self._mark(behind=True)
        self._wake.set()

    def heed(self, update: Notify) -> None:
        """Before a notification is reduced: it may be newer than the page that is being read."""
        if update.topic == EXECUTIONS and self._meanwhile is not None:
            self._meanwhile += reducers.changed_executions(update)

    async def run(self, client: Client) -> None:
        """Read what is wanted, until cancelled."""
        while True:
            self._wake = trio.Event()
            executions = self._connection.state.executions
            try:
                if executions.behind and executions.order and trio.current_time() < self._anew_at:
                    with trio.move_on_at(self._anew_at):
                        await self._wake.wait()
                elif executions.behind:
                    await self._read_anew(client, executions)
                elif self._more and executions.next_page is not None:
                    await self._read_more(client, executions)
                else:
                    self._more = False
                    await self._wake.wait()
                    continue
            except Unreachable:
                await trio.sleep(1)
            except (Refused, ProtocolError) as problem:
                if isinstance(problem, Refused) and problem.status is ErrorStatus.INVALID_ARGUMENT:
                    # A page token of a daemon that has gone.
                    self.reread()
                    await trio.sleep(1)
                    continue
                self._connection.turned_away(problem)
                return

    async def _read_anew(self, client: Client, before: Executions) -> None:
        """As many as there were, from the newest on. The old picture stays until the new one is there."""
        self._anew_at = trio.current_time() + REREAD_SECONDS
        self._mark(behind=False, reading=True)
        wanted = max(len(before.order), PAGE)
        fresh = Executions(choice=before.choice, missed=before.missed)
        self._meanwhile = []
        try:
            while len(fresh.order) < wanted and not fresh.complete:
                fresh = reducers.with_page(fresh, await client.call(_query(fresh)))
            self._replace(before, fresh, self._meanwhile)
        except (Unreachable, Refused, ProtocolError):
            self._mark(behind=True)
            raise
        finally:
            self._meanwhile = None
            self._mark(behind=self._connection.state.executions.behind)

    async def _read_more(self, client: Client, before: Executions) -> None:
        self._more = False
        self._meanwhile = []
        try:
            page = await client.call(_query(before))
            self._replace(before, reducers.with_page(self._connection.state.executions, page), self._meanwhile)
        finally:
            self._meanwhile = None

    def _mark(self, *, behind: bool, reading: bool = False) -> None:
        self._connection.update(
            lambda state: replace(state, executions=replace(state.executions, behind=behind, reading=reading))
        )

    def _replace(self, before: Executions, read: Executions, meanwhile: list[ExecutionSummary]) -> None:
        """What was read, with what was told meanwhile; unless by now something else is wanted."""
        now = self._connection.state.executions
        if (now.choice.status, now.choice.workflow) != (before.choice.status, before.choice.workflow):
            return
        read = reducers.with_executions(read, meanwhile)
        read = replace(read, choice=now.choice, behind=now.behind, missed=now.missed)
        self._connection.update(lambda state: replace(state, executions=read))


def _query(executions: Executions) -> ListWorkflows:
    choice = executions.choice
    return ListWorkflows(
        status=choice.status, workflow=choice.workflow, page_size=PAGE, page_token=executions.next_page
    )
