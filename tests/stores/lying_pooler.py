"""Something between a client and PostgreSQL that looks like a pooler to whoever connects."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Pooler:
    """What a pooler is to whoever connects: all is passed on, but for the process id, which is made up."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Pooler:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        # A test that fails leaves connections open.
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            for source, target, changed in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, target, changed))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, changed: bool) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                if changed and (at := some.find(b"K\0\0\0")) >= 0:
                    some = some[: at + 5] + (1).to_bytes(4, "big") + some[at + 9 :]
                    changed = False
                target.sendall(some)
            target.shutdown(socket.SHUT_WR)
