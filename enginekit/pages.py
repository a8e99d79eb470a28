"""Answers that come in pages, as iterators. Plain objects, not generators: leaving a loop over one early leaves
nothing behind."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from enginekit.errors import ProtocolError
from enginekit.messages.calls import ExecutionSummary, GetHistory, GetHistoryResult, ListWorkflows
from enginekit.messages.events import AnyEvent, decode_event
from enginekit.methods import Caller

FOLLOW_SECONDS: Final = 30.0


class HistoryPages(AsyncIterator[GetHistoryResult]):
    """The pages of one run's history, none of them empty; the run is the one that the first answer was about."""

    def __init__(self, client: Caller, query: GetHistory, follow: bool) -> None:
        self._client = client
        self._query = msgspec.structs.replace(query, wait_seconds=FOLLOW_SECONDS if follow else 0.0)
        self._follow = follow
        self._over = False

    async def __anext__(self) -> GetHistoryResult:
        while not self._over:
            page = await self._client.call(self._query)
            self._over = page.closed or not (page.events or self._follow)
            self._query = msgspec.structs.replace(self._query, run_id=page.run_id, after_id=page.next_after_id)
            if page.events:
                return page
        raise StopAsyncIteration


class Events(AsyncIterator[AnyEvent]):
    """The events of those pages."""

    def __init__(self, pages: HistoryPages) -> None:
        self._pages = pages
        self._ready: deque[msgspec.Raw] = deque()

    async def __anext__(self) -> AnyEvent:
        if not self._ready:
            self._ready.extend((await self._pages.__anext__()).events)
        try:
            return decode_event(bytes(self._ready.popleft()))
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the history has an event that is not understood: {error}") from error


class Executions(AsyncIterator[ExecutionSummary]):
    """What a query finds."""

    def __init__(self, client: Caller, query: ListWorkflows) -> None:
        self._client = client
        self._query: ListWorkflows | None = query
        self._ready: deque[ExecutionSummary] = deque()

    async def __anext__(self) -> ExecutionSummary:
        while not self._ready:
            if self._query is None:
                raise StopAsyncIteration
            page = await self._client.call(self._query)
            self._ready.extend(page.executions)
            token = page.next_page_token
            self._query = None if token is None else msgspec.structs.replace(self._query, page_token=token)
        return self._ready.popleft()
