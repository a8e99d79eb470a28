"""The Frontend service: binds its port and puts the gateway behind it. The only way in.

What a call means is in `daemon/api/`; here is only what starts, in which order, and how it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import trio
from prometheus_client import CollectorRegistry

from daemon.api.auth import load_verifier
from daemon.api.gateway import Gateway
from daemon.api.listening import address_of, listen
from daemon.api.websocket import RpcServer
from daemon.clock import Clock, WallClock
from daemon.links.roster import Roster
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.settings import Settings
from enginekit.messages.calls import DescribeDaemonResult

ADVICE: Final = "is another daemon running?"


class Frontend:
    """The service. `describe` answers DescribeDaemon; `roster` knows how busy other processes are, where there are any.

    `bound` (`HOST:PORT` with the real port) is None until `run` has started. An instance that runs again takes the port
    it had.
    """

    def __init__(
        self,
        links: Links,
        settings: Settings,
        data_dir: Path,
        describe: Callable[[], DescribeDaemonResult],
        *,
        roster: Roster | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._clock = clock if clock is not None else WallClock()
        self._metrics = metrics if metrics is not None else Metrics(CollectorRegistry())
        self.gateway = Gateway(links, settings, describe, self._clock, self._metrics, roster)
        self.bound: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once the port is bound.

        Raises ListenFailed, or KeyUnusable when tokens cannot be checked. Cancelled: connections are told and closed,
        within a few seconds.
        """
        verifier = load_verifier(self._settings.auth, self._data_dir, self._clock)
        settings = self._settings.frontend
        with closing(await listen("frontend.rpc_listen", self.bound or settings.rpc_listen, ADVICE)) as rpc:
            self.bound = address_of(rpc)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(rpc))
            server = RpcServer(self.gateway, verifier, settings, self._metrics)
            async with trio.open_nursery() as nursery:
                await nursery.start(self.gateway.reads.run)
                nursery.start_soon(server.serve, [listener])
                task_status.started()

    async def drain(self) -> None:
        """Take no new work, and return once the starts and polls let in before are answered. See `Gateway.drain`."""
        await self.gateway.drain()
