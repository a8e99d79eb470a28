"""The Frontend service: binds its two ports and puts the gateway behind them. The only way in.

What a call means is in `daemon/api/`; here is only what starts, in which order, and how it ends.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import trio
from prometheus_client import CollectorRegistry

from daemon.api.auth import load_verifier
from daemon.api.gateway import Gateway
from daemon.api.http import HttpApp, serve_http
from daemon.api.websocket import RpcServer
from daemon.clock import Clock, WallClock
from daemon.links.table import Links
from daemon.metrics import Metrics
from daemon.settings import Settings
from enginekit.messages.calls import DescribeDaemonResult

BACKLOG: Final = 1024


class Bound(msgspec.Struct, frozen=True):
    """Where the Frontend listens, each `HOST:PORT` with the real port."""

    rpc: str
    http: str


class ListenFailed(Exception):
    """An address cannot be listened on: which setting, which address, why."""


class Frontend:
    """The service. `describe` answers DescribeDaemon; `ready` names what is not ready yet, for `/readyz`.

    `bound` is None until `run` has started. An instance that runs again takes the ports it had.
    """

    def __init__(
        self,
        links: Links,
        settings: Settings,
        data_dir: Path,
        describe: Callable[[], DescribeDaemonResult],
        ready: Callable[[], list[str]],
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._clock = clock if clock is not None else WallClock()
        self._metrics = metrics if metrics is not None else Metrics(CollectorRegistry())
        self._ready = ready
        self.gateway = Gateway(links, settings, describe, self._clock, self._metrics)
        self.bound: Bound | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once both ports are bound.

        Raises ListenFailed, or KeyUnusable when tokens cannot be checked. Cancelled: connections are told and closed,
        within a few seconds.
        """
        verifier = load_verifier(self._settings.auth, self._data_dir, self._clock)
        settings = self._settings.frontend
        rpc_address = self.bound.rpc if self.bound is not None else settings.rpc_listen
        http_address = self.bound.http if self.bound is not None else settings.http_listen
        with (
            closing(await _listen("frontend.rpc_listen", rpc_address)) as rpc,
            closing(await _listen("frontend.http_listen", http_address)) as http,
        ):
            self.bound = Bound(rpc=_address(rpc), http=_address(http))
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(rpc))
            server = RpcServer(self.gateway, verifier, settings, self._metrics)
            async with trio.open_nursery() as nursery:
                await nursery.start(self.gateway.reads.run)
                nursery.start_soon(serve_http, HttpApp(self._metrics.registry, self._ready), http)
                nursery.start_soon(server.serve, [listener])
                task_status.started()

    async def drain(self) -> None:
        """Take no new work, and return once the starts and polls let in before are answered. See `Gateway.drain`."""
        await self.gateway.drain()


async def _listen(setting: str, address: str) -> socket.socket:
    """A listening socket. Raises ListenFailed."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ListenFailed(f"{setting} = {address!r}: must be HOST:PORT, as 127.0.0.1:7460; port 0: any free one")
    try:
        infos = await trio.socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = infos[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(where)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        hint = "; is another daemon running?" if error.errno == errno.EADDRINUSE else ""
        why = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise ListenFailed(f"{setting} = {address!r}: cannot listen there: {why}{hint}") from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
