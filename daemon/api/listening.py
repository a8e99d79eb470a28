"""A socket that listens where a setting says, or an error that says which setting, which address and why not.

What is served on it is not known here.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

import trio

BACKLOG: Final = 1024


class ListenFailed(Exception):
    """An address cannot be listened on: which setting, which address, why."""


async def listen(setting: str, address: str, advice: str) -> socket.socket:
    """A listening socket. `advice`: what to do where somebody else listens there. Raises ListenFailed."""
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
        hint = f"; {advice}" if error.errno == errno.EADDRINUSE else ""
        why = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise ListenFailed(f"{setting} = {address!r}: cannot listen there: {why}{hint}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """`HOST:PORT` with the real port."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
