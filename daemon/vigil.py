"""Keeps systemd told how the daemon is, and feeds its watchdog only while every service answers.

To answer is to do something: History, Matching, Timer and the Worker take a question off their link and answer it,
/healthz is served, the Frontend refuses a handshake that asks for what is not there, the store reads. A service that
does not answer starves the watchdog, and systemd starts the daemon anew. While the store is lost that would help
nobody: those who stand on it are excused, and the status says what is waited for. Where services are processes of
their own, the links lead to any of them: there /healthz, the Frontend and the store are asked, where the process has
them, and that the loop goes on at all is what feeds the watchdog of the others.

Nothing here runs where no systemd listens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

import trio

from daemon.links.interface import Caller, Link
from daemon.links.table import Links
from daemon.stores.interface import Store, StoreUnavailable
from daemon.supervisor import ServiceName, ServiceState
from daemon.systemd import Notifier
from enginekit.messages.calls import ServiceView
from enginekit.messages.links import Ping, Pong
from enginekit.messages.status import ErrorStatus, Refused

LOOK_SECONDS: Final = 0.5
"""Between two looks at what the services' states are. No service is asked anything for it."""
ROUNDS: Final = 8
"""One round of questions may take this part of the watchdog's time: after half of it, three more are possible."""
FULL_PAUSE_SECONDS: Final = 0.05
"""A link that is full belongs to a service that has much to do: it is tried again within the round."""
ANSWER_BYTES: Final = 4096
SLOW_SECONDS: Final = 5.0
"""A commit that takes longer counts as a store that is waited for, where no watchdog sets a measure."""

HEALTHZ: Final = b"GET /healthz HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2F0Y2hkb2cgYXNrcy4uLg==\r\n\r\n"
)
"""The Frontend is at /rpc: it needs no token, and makes no connection, to be told so."""

M = TypeVar("M")

CALLER: Final = Caller(tenant="", subject="watchdog")
ON_THE_STORE: Final = frozenset({ServiceName.STORE, ServiceName.HISTORY, ServiceName.MATCHING, ServiceName.TIMER})
"""Who may stand still while the store is lost."""


class Watched(Protocol):
    """The daemon, as far as it is watched."""

    def states(self) -> list[ServiceView]:
        """Every service's."""

    def store_awaited(self, seconds: float) -> bool:
        """Whether the store is lost, or one commit to it has taken as long."""

    def listens(self, name: ServiceName) -> tuple[str, int] | None:
        """Where this service listens; None while it is nowhere."""


class Vigil:
    """One daemon's. `run` is to be a task beside its services."""

    def __init__(self, notifier: Notifier, watched: Watched, links: Links, store: Store) -> None:
        self._notifier = notifier
        self._watched = watched
        self._store = store
        self._patience = (notifier.watchdog_seconds or 0.0) / ROUNDS
        self._store_asked_at: float | None = None
        self._silent: list[str] = []
        self._questions: dict[ServiceName, Callable[[], Awaitable[None]]] = {
            ServiceName.HEALTH: partial(self._get, ServiceName.HEALTH, HEALTHZ, b"200"),
            ServiceName.FRONTEND: partial(self._get, ServiceName.FRONTEND, HANDSHAKE, b"404"),
        }
        if links.shared:
            # Whoever answers there may be in another process.
            return
        self._questions |= {
            ServiceName.HISTORY: partial(self._ask, links.history),
            ServiceName.MATCHING: partial(self._ask, links.matching),
            ServiceName.TIMER: partial(self._ask, links.timer),
            ServiceName.WORKER: partial(self._ask, links.worker),
        }

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._notifier.watchdog_seconds is not None:
                nursery.start_soon(self._feed, self._notifier.watchdog_seconds, nursery)
            while True:
                self._notifier.status(self._status())
                await trio.sleep(LOOK_SECONDS)

    def _status(self) -> str:
        states = self._watched.states()
        down = [view.name for view in states if view.state != ServiceState.RUNNING.value]
        if self._store_lost():
            return "waiting for the store: what runs goes on when it is back"
        if down:
            return f"waiting for {', '.join(down)}"
        if self._silent:
            return f"no answer from {', '.join(self._silent)}: the watchdog is not fed"
        return f"running: {len(states)} services"

    def _store_lost(self) -> bool:
        """Whether it is lost, or has not answered for longer than a service may take."""
        asked = self._store_asked_at
        if asked is not None and trio.current_time() >= asked + self._patience:
            return True
        return self._watched.store_awaited(self._patience or SLOW_SECONDS)

    # --- the watchdog ------------------------------------------------------------------------------------------------

    async def _feed(self, seconds: float, nursery: trio.Nursery) -> None:
        while True:
            if self._store_asked_at is None:
                # Not bounded by the round: the store's own bound ends it, and has the driver replaced.
                self._store_asked_at = trio.current_time()
                nursery.start_soon(self._ask_store)
            silent = await self._round([view.name for view in self._watched.states()])
            lost = self._store_lost()
            self._silent = [name.value for name in silent if not (lost and name in ON_THE_STORE)]
            if self._silent:
                await trio.sleep(self._patience / 4)
            else:
                self._notifier.fed()
                await trio.sleep(seconds / 2)

    async def _round(self, services: list[str]) -> list[ServiceName]:
        """Ask all of them at once. Those that did not answer in time."""
        silent = [name for name in self._questions if name.value in services]

        async def hear(name: ServiceName) -> None:
            try:
                await self._questions[name]()
            except (Refused, OSError, trio.BrokenResourceError):
                return  # it was there to be asked, and did not answer
            silent.remove(name)

        with trio.move_on_after(self._patience):
            async with trio.open_nursery() as nursery:
                for name in list(silent):
                    nursery.start_soon(hear, name)
        return silent

    async def _ask(self, link: Link[M]) -> None:
        """Raises Refused when it does not answer."""
        while True:
            try:
                await link.request(CALLER, Ping(), Pong, self._patience)
            except Refused as refused:
                if refused.status is not ErrorStatus.RESOURCE_EXHAUSTED:
                    raise
                await trio.sleep(FULL_PAUSE_SECONDS)
            else:
                return

    async def _get(self, name: ServiceName, request: bytes, status: bytes) -> None:
        """Raises OSError or BrokenResourceError when it does not answer as it should."""
        address = self._watched.listens(name)
        if address is None:
            raise ConnectionError("it listens nowhere")
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(request)
            if not (await stream.receive_some(ANSWER_BYTES)).startswith(b"HTTP/1.1 %b " % status):
                raise ConnectionError(f"its answer is not {status.decode()}")

    async def _ask_store(self) -> None:
        # Whether it is lost, and waited for, the store says itself.
        with suppress(StoreUnavailable):
            await self._store.execution("", "")
        self._store_asked_at = None
