"""Somebody who sits before the console of a real daemon: reads the screen and presses keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import trio
from textual import events
from textual.pilot import Pilot

from console.app import ConsoleApp
from console.connection import Connection
from enginekit.client import Client, open_client
from enginekit.local import TENANT, Access, LocalDaemon
from tests.servers.engine import RealDaemon

PATIENCE_SECONDS = 120.0


def access(daemon: RealDaemon, tenant: str = TENANT) -> Access:
    local = LocalDaemon(daemon.data, tenant)
    return Access(local.url, local.token)


def prepared(daemon: RealDaemon, prepare: Callable[[Client], Awaitable[object]], tenant: str = TENANT) -> None:
    """Do this to the daemon, before the console looks."""

    async def run() -> None:
        found = access(daemon, tenant)
        async with open_client(found.url, found.token) as client:
            await prepare(client)

    trio.run(run)


class Sitting:
    """Somebody before the console: reads the screen and presses keys."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    def text(self) -> str:
        """What is on the screen, line by line."""
        width, height = self.app.size
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).ljust(width) for strip in lines[:height])

    async def press(self, *keys: str) -> None:
        """One after the other, each when what the one before it opened is there to take it."""
        for key in keys:
            await self.pilot.press(key)

    async def paste(self, text: str) -> None:
        """What the terminal says of a text that is pasted; each key of a long one would be waited for."""
        assert self.app._driver is not None
        self.app._driver.send_message(events.Paste(text))
        await self.pilot.pause()

    async def sees(self, *texts: str, without: str | None = None) -> str:
        """Wait until all of them are on the screen. A word that is shown for a moment only is waited for by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen = self.text()
            if all(text in seen for text in texts) and (without is None or without not in seen):
                return seen
            assert time.monotonic() < deadline, f"{texts} never came; there is\n{seen}"
            await asyncio.sleep(0.05)  # the daemon is another process


def sit(found: Access, do: Callable[[Sitting], Awaitable[None]], size: tuple[int, int] = (100, 30)) -> None:
    """Open the console, do this, and leave it."""

    async def run() -> None:
        connection = Connection(found)
        app = ConsoleApp(connection)
        async with connection.attached(app.exit), app.run_test(size=size, notifications=True) as pilot:
            await do(Sitting(app, pilot))

    asyncio.run(run())
