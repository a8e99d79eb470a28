"""The socket below a WebSocket: TCP, TLS around it for `wss:`, and what goes wrong with either in words."""

from __future__ import annotations

import os
import ssl
from typing import TypeAlias
from urllib.parse import urlsplit

import trio

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def dial(url: str, tls: ssl.SSLContext | None) -> Stream:
    """A connection to the host of a `ws:` or `wss:` URL; `tls` None: with the system's certificates.

    Raises OSError, and trio.BrokenResourceError for a TLS handshake that fails. Cancelled: nothing stays open.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, parts.port or 80)
    context = tls or ssl.create_default_context()
    port = parts.port or 443
    stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=context)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def reason(error: OSError) -> str:
    """A failed connection in words: of several addresses tried, what the first said."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, OSError):
        error = cause
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
