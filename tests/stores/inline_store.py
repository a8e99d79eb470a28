"""`ProcessStore` without its process: what it asks is answered here, by the driver process's own code, frames and all.

For many short tests of one backend: a process and its connections for each of them take longer than the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from daemon.stores import frames, host, process
from daemon.stores.driver import Driver


class InlineStore(process.ProcessStore):
    """Over a driver that somebody else opens and closes."""

    def __init__(self, driver: Driver) -> None:
        super().__init__("", shards=driver.info.shards, lock_wait_seconds=1.0, call_timeout_seconds=30.0)
        self._driver = driver

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        writer, reader = self._driver.writer, self._driver.reader
        self._connection = process._Connection(
            None,
            self._driver.info,
            _InlineLane(host._write_requests, lambda request: host._write(writer, request)),
            _InlineLane(host._read_requests, lambda request: frames.answer(host._read(reader, request))),
        )
        self._became_ready.set()
        task_status.started()
        await trio.sleep_forever()


class _InlineLane:
    def __init__(self, requests: msgspec.msgpack.Decoder[Any], handle: Callable[[Any], frames.Reply]) -> None:
        self._requests = requests
        self._handle = handle

    async def ask(self, message: bytearray) -> frames.Reply:
        await trio.lowlevel.checkpoint()
        request = self._requests.decode(bytes(message[frames.HEADER.size :]))
        reply = frames.frame(host._reply(request, self._handle))
        return process._replies.decode(bytes(reply[frames.HEADER.size :]))
