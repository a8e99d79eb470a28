"""A link between a console and its daemon that can be made slow: a proxy in threads of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

SEGMENT_BYTES = 536
"""As on a modem: what a kernel buffers for a connection goes by its segments."""
BUFFER_BYTES = 4096
SLOW_BYTES, SLOW_SECONDS = 1000, 0.1
"""So much, and then a rest. Who takes nothing at all is cut off after ten seconds."""


class SlowLink:
    """`url` leads through it. While `fast` is not set, ten thousand bytes a second come from the daemon."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._daemon = (parts.hostname, parts.port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = parts._replace(netloc=f"127.0.0.1:{self._server.getsockname()[1]}").geturl()
        self.fast = threading.Event()
        self.fast.set()
        self._sockets = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.fast.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                theirs = socket.socket()
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
                theirs.connect(self._daemon)
                self._sockets += [ours, theirs]
                threading.Thread(target=self._up, args=(ours, theirs), daemon=True).start()
                threading.Thread(target=self._down, args=(theirs, ours), daemon=True).start()

    def _up(self, ours: socket.socket, theirs: socket.socket) -> None:
        with suppress(OSError):
            while data := ours.recv(65536):
                theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)

    def _down(self, theirs: socket.socket, ours: socket.socket) -> None:
        with suppress(OSError):
            while data := theirs.recv(65536 if self.fast.is_set() else SLOW_BYTES):
                ours.sendall(data)
                self.fast.wait(SLOW_SECONDS)
            ours.shutdown(socket.SHUT_WR)


@contextmanager
def slow_link(url: str) -> Iterator[SlowLink]:
    link = SlowLink(url)
    try:
        yield link
    finally:
        link.close()
