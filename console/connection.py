"""The console's one connection to its daemon: it lives in Trio, and hands out a ConsoleState and calls to asyncio.

What it is told goes through the reducers; what it has to ask for (older executions, the execution that is being looked
at) it asks for when a page wants it. It connects again by itself, and says in the state how it stands.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio
from msgspec.structs import replace

from console import reducers
from console.following import Following
from console.guest import Guest, hosted
from console.reading import Reading
from console.source import FAILURES, Source
from console.state import Choice, ConsoleState, Opened
from enginekit.client import Client, open_client
from enginekit.errors import ProtocolError, Unreachable
from enginekit.local import Access
from enginekit.messages.calls import Call, Result
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import EXECUTIONS, QUEUES, SERVICES, Notify

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.25


class Connection(Source):
    """Make one, and use it inside `attached`."""

    def __init__(self, access: Access, clock: Callable[[], float] = time.time) -> None:
        self._access = access
        self._clock = clock
        self._state = ConsoleState()
        self._guest: Guest | None = None
        self._client: Client | None = None
        self._again = trio.Event()
        self._over = trio.Event()
        self._reading = Reading(self)
        self._following = Following(self)

    # --- for asyncio -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def attached(self, ended: Callable[[], None]) -> AsyncIterator[None]:
        """Connected, or trying to be, for the block. `ended` is called should that end by itself."""
        async with hosted(self._run, FAILURES, ended) as guest:
            self._guest = guest
            try:
                yield
            finally:
                self._guest = None

    @property
    def state(self) -> ConsoleState:
        return self._state

    def now(self) -> float:
        return self._clock()

    def choose(self, choice: Choice) -> None:
        self._state = replace(self._state, executions=reducers.chosen(self._state.executions, choice))
        self._tell(self._reading.wake)

    def read_on(self) -> None:
        self._tell(self._reading.read_on)

    def look_at(self, workflow_id: str, run_id: str) -> None:
        self._state = replace(self._state, opened=Opened(workflow_id=workflow_id, run_id=run_id))
        self._tell(self._following.turn)

    def look_away(self) -> None:
        self._state = replace(self._state, opened=None)
        self._tell(self._following.turn)

    def try_again(self) -> None:
        def again() -> None:
            self._again.set()
            self._reading.reread()
            self._following.turn()

        self._tell(again)

    def _tell(self, action: Callable[[], None]) -> None:
        if self._guest is not None:
            self._guest.tell(action)

    async def _perform(self, params: Call, timeout_seconds: float | None) -> Result:
        async def ask() -> Result:
            if self._client is None:
                raise Unreachable(f"not connected: {self._state.link.problem or 'no daemon was reached yet'}")
            return await self._client._perform(params, timeout_seconds)

        if self._guest is None:
            raise Unreachable("the console is closing")
        return await self._guest.ask(ask)

    # --- in Trio -----------------------------------------------------------------------------------------------------

    def update(self, change: Callable[[ConsoleState], ConsoleState]) -> None:
        """For those that read in Trio: a step from one state to the next."""
        self._state = change(self._state)

    def turned_away(self, problem: Refused | ProtocolError) -> None:
        """The daemon does not talk to us (any more)."""
        self._state = reducers.turned_away(self._state, str(problem))
        self._over.set()

    async def _run(self) -> None:
        while True:
            self._again, self._over = trio.Event(), trio.Event()
            try:
                async with open_client(
                    self._access.url,
                    self._access.token,
                    timeout_seconds=CALL_SECONDS,
                    connect_seconds=CONNECT_SECONDS,
                ) as client:
                    self._client = client
                    await self._converse(client)
            except Unreachable as unreachable:
                self._state = reducers.lost(self._state, str(unreachable))
            except (Refused, ProtocolError) as problem:
                self.turned_away(problem)
            finally:
                self._client = None
            with trio.move_on_after(REFUSED_SECONDS if self._over.is_set() else AGAIN_SECONDS):
                await self._again.wait()

    async def _converse(self, client: Client) -> None:
        """Until the daemon turns us away."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, client)
            nursery.start_soon(self._follow, client, [EXECUTIONS, QUEUES])
            nursery.start_soon(self._follow, client, [SERVICES])
            nursery.start_soon(self._reading.run, client)
            nursery.start_soon(self._following.run, client)
            await self._over.wait()
            nursery.cancel_scope.cancel()

    async def _watch(self, client: Client) -> None:
        """Whether we are connected, as it changes."""
        was: bool | None = None
        while True:
            if client.online is not was:
                was = client.online
                if was:
                    self._state = reducers.reached(self._state, client.hello, self._clock())
                else:
                    self._state = reducers.lost(self._state, client.problem)
            await trio.sleep(LOOK_SECONDS)

    async def _follow(self, client: Client, topics: list[str]) -> None:
        """Be told of the topics. One that has ended is subscribed to anew, with a token that is new where there is a
        source of tokens."""
        while True:
            try:
                async with client.subscribe(topics) as updates:
                    async for update in updates:
                        if update.ended is not None:
                            break
                        self._take(update)
            except Refused as refused:
                if topics == [SERVICES] and refused.status is ErrorStatus.PERMISSION_DENIED:
                    services = replace(self._state.services, refused=str(refused))
                    self._state = replace(self._state, services=services)
                    return
                self.turned_away(refused)
                return
            except ProtocolError as error:
                self.turned_away(error)
                return
            await trio.sleep(AGAIN_SECONDS)

    def _take(self, update: Notify) -> None:
        self._reading.heed(update)
        self._state = reducers.told(self._state, update, self._clock())
        if self._state.executions.behind:
            self._reading.wake()
