"""The HTTP side: `/healthz`, `/readyz` and `/metrics`, one small ASGI application under hypercorn's Trio worker.

Open to whoever reaches the port, so nothing of a tenant is shown here.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve
from hypercorn.utils import wrap_app
from prometheus_client import CollectorRegistry, make_asgi_app

Scope: TypeAlias = Any
"""ASGI's own messages are untyped dictionaries; they go no further than this file."""
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

SEND_SECONDS: Final = 5

_encoder = msgspec.json.Encoder()


class HttpApp:
    """The application. `unready` names what is not ready yet, in words; nothing: the process is."""

    def __init__(self, registry: CollectorRegistry, unready: Callable[[], list[str]]) -> None:
        self._metrics = make_asgi_app(registry)
        self._unready = unready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close"})
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, {"error": "only GET and HEAD are answered here"}, (b"allow", b"GET, HEAD"))
        elif scope["path"] == "/healthz":
            await _answer(send, 200, {"status": "alive"})
        elif scope["path"] == "/readyz":
            waiting = self._unready()
            await _answer(send, 503 if waiting else 200, {"ready": not waiting, "waiting_for": waiting})
        elif scope["path"] == "/metrics":
            await self._metrics(scope, receive, send)
        else:
            await _answer(send, 404, {"error": "nothing is here; try /healthz, /readyz or /metrics"})


async def serve_http(app: HttpApp, listener: socket.socket) -> None:
    """Serve on a socket that is bound and listens. Runs until cancelled. The socket is the caller's."""
    # Hypercorn shields its sends without a bound; the kernel's gives up on a client that does not read.
    unread: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
    if unread is not None:
        listener.setsockopt(socket.IPPROTO_TCP, unread, SEND_SECONDS * 1000)
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    config.include_server_header = False
    config.keep_alive_timeout = 30
    config.graceful_timeout = 1
    config.shutdown_timeout = 1
    sockets = Sockets([], [listener], [])
    await worker_serve(wrap_app(app, config.wsgi_max_body_size, "asgi"), config, sockets=sockets)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(send: Send, status: int, body: object, *headers: tuple[bytes, bytes]) -> None:
    content = _encoder.encode(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": content})
