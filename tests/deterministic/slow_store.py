"""A memory store whose next commits wait at a gate, and calls on behalf of another tenant."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import trio

from daemon.api.auth import Principal
from daemon.stores.interface import StoreUnavailable
from daemon.stores.memory import MemoryStore
from daemon.stores.rows import Batch
from enginekit.messages import calls

R = TypeVar("R", bound=calls.Result)

OTHER = Principal(
    tenant="other", subject="mallory", scopes=frozenset({"read", "write", "work", "admin"}), expires_at=None
)


class Gate:
    """Commits wait until it is opened; with `fail` the first of them is then lost."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self._commit = memory.commit
        self._open = trio.Event()
        self._fail = False
        self.waiting = trio.Event()
        memory.commit = self

    async def __call__(self, batch: Batch) -> None:
        self.waiting.set()
        await self._open.wait()
        if self._fail:
            self._fail = False
            raise StoreUnavailable("not written")
        await self._commit(batch)

    def open(self, *, fail: bool = False) -> None:
        self._fail = fail
        self._memory.commit = self if fail else self._commit
        self._open.set()


def slow_loads(memory: MemoryStore) -> None:
    """Reading a run back takes a fifth of a second."""
    real = memory.load_runs

    async def slowly(*arguments):
        await trio.sleep(0.2)
        return await real(*arguments)

    memory.load_runs = slowly


async def as_other(daemon, call: calls.Call, result: type[R]) -> R:
    answer = await daemon.gateway.call(OTHER, type(call).__name__, msgspec.json.encode(call))
    return msgspec.json.decode(answer, type=result)
