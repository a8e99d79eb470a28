"""A driver of Redis in threads of this process: its own code, lanes and connections, without the second that a process
takes to start. For many short tests; those of what dies and is cut have the process."""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from daemon.drivers.hosting import serve, shut
from daemon.drivers.lane import Lane


class InlineProcess:
    """What a driver asks of its process. It ends with its lanes, as the process does."""

    pid = -1

    def __init__(self, module: str, calls: socket.socket, reads: socket.socket) -> None:
        code = importlib.import_module(module)
        self._host = code.Host()
        ends = ((calls, code.calls, self._host.call), (reads, code.reads, self._host.read))
        self._threads = [threading.Thread(target=self._serve, args=each) for each in ends]
        self.returncode: int | None = None
        for thread in self._threads:
            thread.start()

    def _serve(self, lane: socket.socket, requests: msgspec.msgpack.Decoder[Any], handle: Callable[[Any], Any]) -> None:
        with lane:
            serve(lane, requests, handle)
            shut(lane, socket.SHUT_RDWR)

    async def wait(self) -> None:
        # A process that ends takes its connections along, also one on which a read blocks.
        self._host.close()
        for thread in self._threads:
            await trio.to_thread.run_sync(thread.join)
        self.returncode = 0


async def spawn(
    module: str, replies: msgspec.msgpack.Decoder[Any], lost: Callable[[str], Exception]
) -> tuple[InlineProcess, Lane[Any], Lane[Any]]:
    """In the place of `daemon.redis.driver.spawn`."""
    await trio.lowlevel.checkpoint()
    calls, driver_calls = socket.socketpair()
    reads, driver_reads = socket.socketpair()
    process = InlineProcess(module, driver_calls, driver_reads)
    return process, Lane(calls, replies, lost), Lane(reads, replies, lost)
