"""The Redis driver in threads of this process: its own code, lanes and connections, without the second that a process
takes to start. For many short tests; those of what dies and is cut have the process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from daemon.drivers.hosting import serve, shut
from daemon.drivers.lane import Lane
from daemon.links.redis import host


class InlineProcess:
    """What the exchange asks of a process. It ends with its lanes, as the process does."""

    pid = -1

    def __init__(
        self, driver: host._Host, *ends: tuple[socket.socket, Callable[[Any], Any], msgspec.msgpack.Decoder[Any]]
    ) -> None:
        self._driver = driver
        self._threads = [threading.Thread(target=self._serve, args=each) for each in ends]
        self.returncode: int | None = None
        for thread in self._threads:
            thread.start()

    def _serve(self, lane: socket.socket, handle: Callable[[Any], Any], requests: msgspec.msgpack.Decoder[Any]) -> None:
        with lane:
            serve(lane, requests, handle)
            shut(lane, socket.SHUT_RDWR)

    async def wait(self) -> None:
        # A process that ends takes its connections along, also one on which a read blocks.
        self._driver._close()
        for thread in self._threads:
            await trio.to_thread.run_sync(thread.join)
        self.returncode = 0


async def spawn(
    module: str, replies: msgspec.msgpack.Decoder[Any], lost: Callable[[str], Exception]
) -> tuple[InlineProcess, Lane[Any], Lane[Any]]:
    assert module == host.__name__
    await trio.lowlevel.checkpoint()
    writes, driver_writes = socket.socketpair()
    reads, driver_reads = socket.socketpair()
    driver = host._Host()

    process = InlineProcess(
        driver,
        (driver_writes, driver.write, host._write_requests),
        (driver_reads, driver.read, host._read_requests),
    )
    return process, Lane(writes, replies, lost), Lane(reads, replies, lost)
