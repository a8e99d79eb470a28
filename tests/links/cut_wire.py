"""A wire to a server that can be cut: at once, or behind what was sent, so that nobody hears the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class CutWire:
    """Forwards connections to `port`. `url` is where to come in."""

    def __init__(self, port: int, listener: trio.SocketListener) -> None:
        self._to = port
        self._listener = listener
        self._connections: set[trio.CancelScope] = set()
        self._deaf = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.socket.getsockname()[1]}"

    def deafen(self) -> None:
        """From now on the server is told everything, and its answers go nowhere."""
        self._deaf = True

    def cut(self) -> None:
        """Every connection ends; new ones are as good as any."""
        self._deaf = False
        for connection in self._connections:
            connection.cancel()

    async def serve(self) -> None:
        await trio.serve_listeners(self._forward, [self._listener])

    async def _forward(self, client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", self._to) as server, trio.open_nursery() as both:
            self._connections.add(both.cancel_scope)
            both.start_soon(self._copy, client, server, False, both.cancel_scope)
            both.start_soon(self._copy, server, client, True, both.cancel_scope)
        self._connections.discard(both.cancel_scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, answers: bool, both: trio.CancelScope
    ) -> None:
        try:
            async for some in source:
                if not (answers and self._deaf):
                    await sink.send_all(some)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()


@asynccontextmanager
async def cut_wire(port: int) -> AsyncIterator[CutWire]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        wire = CutWire(port, listener)
        nursery.start_soon(wire.serve)
        yield wire
        nursery.cancel_scope.cancel()
