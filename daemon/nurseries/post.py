"""The links to other processes as a supervised service: the exchange is run, and told whose it is.

A process that has the store open knows its cluster: a Redis that another cluster uses under the same name is noticed
before anything is sent. Beside it the process tells the others how it is.
"""

from __future__ import annotations

import trio

from daemon.links.exchange import Exchange
from daemon.links.roster import Roster
from daemon.stores.interface import Store, StoreUnavailable

PAUSE_SECONDS = 0.1


class Post:
    """One run of the exchange. `store` where this process has it open."""

    def __init__(self, exchange: Exchange, store: Store | None, roster: Roster) -> None:
        self._exchange = exchange
        self._store = store
        self._roster = roster

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry messages until cancelled. Raises (also in a group) ServerUnusable."""
        if self._store is not None:
            self._exchange.belongs_to(await cluster_of(self._store))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._roster.run)
            await self._exchange.run(task_status=task_status)

    async def drain(self) -> None:
        """Nobody is to look for this process any more. What waits to leave does so when `run` is cancelled."""
        await self._roster.depart()


async def cluster_of(store: Store) -> str | None:
    """Its id, once it can be read."""
    while True:
        await store.wait_ready()
        try:
            return (await store.info()).cluster
        except StoreUnavailable:
            await trio.sleep(PAUSE_SECONDS)
