"""The Worker in a process of its own: the Worker service as it is, and beside it what stands in Matching's place."""

from __future__ import annotations

import itertools
import random

import trio

from daemon.dispatch.remote import RemoteSlots, new_worker_id
from daemon.links.exchange import Exchange
from daemon.links.interface import Link
from daemon.metrics import Metrics
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.worker import Worker
from daemon.settings import Settings
from enginekit.messages.links import ToHistory


class RemoteWorker:
    """One run of the service, under a name of its own. Where either half fails, both begin anew."""

    def __init__(
        self,
        exchange: Exchange,
        history: Link[ToHistory],
        settings: Settings,
        nodes: NodeTypes,
        entropy: random.Random,
        *,
        metrics: Metrics,
    ) -> None:
        worker_id = new_worker_id(entropy)
        self._slots = RemoteSlots(exchange, history, settings.matching.partitions, worker_id)
        self._worker = Worker(
            self._slots.links,
            settings.worker,
            nodes,
            incarnations=itertools.count(1),
            payload_bytes=settings.history.payload_bytes,
            worker_id=worker_id,
            metrics=metrics,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll, and run what comes, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._slots.run)
            await nursery.start(self._worker.run)
            task_status.started()

    async def drain(self) -> None:
        """Take no more, and return when what runs has ended and is recorded. Bounded as the Worker's is."""
        await self._slots.drain()
        await self._worker.drain()
