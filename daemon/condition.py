"""How a process is: what it waits for until it is ready, and what it says of itself when it is asked.

Nothing is done about it here; the supervisor restarts, and `daemon/vigil.py` tells systemd.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import datetime

import trio

from daemon.api.gateway import engine_version
from daemon.links.exchange import Exchange
from daemon.nurseries.history import History
from daemon.nurseries.partitions import PartitionedMatching
from daemon.stores.interface import Store
from daemon.supervisor import ServiceName, ServiceState
from enginekit.messages.calls import DescribeDaemonResult, ServiceView, ShardView, StoreView


class Condition:
    """Of one process. `store` and `exchange` where it has them; `history` and `matching` are the instances that run, or
    ran last."""

    def __init__(
        self,
        views: Callable[[], list[ServiceView]],
        store_kind: str,
        store: Store | None,
        exchange: Exchange | None,
        started_at: datetime,
    ) -> None:
        self._views = views
        self._store_kind = store_kind
        self._store = store
        self._exchange = exchange
        self._started_at = started_at
        self.history: History | None = None
        self.matching: PartitionedMatching | None = None
        self.schema_version = 0
        """Of the store, once it has been asked; 0 before that."""

    def unready(self) -> list[str]:
        """What it waits for, in words: services that do not run, the store, the links, and what a service that runs
        needs for its work. Nothing: it does what its roles say, or would if there were more to do."""
        running = [view.name for view in self._views() if view.state == ServiceState.RUNNING.value]
        waiting = [view.name for view in self._views() if view.name not in running]
        if self._store is not None and not self._store.ready and ServiceName.STORE.value not in waiting:
            waiting.append(ServiceName.STORE.value)
        if self._exchange is not None and not self._exchange.ready and ServiceName.LINKS.value not in waiting:
            waiting.append(ServiceName.LINKS.value)
        needs = {
            ServiceName.HISTORY.value: self.history.lacks() if self.history is not None else None,
            ServiceName.MATCHING.value: self.matching.lacks() if self.matching is not None else None,
        }
        waiting += [f"{name}: {what}" for name, what in needs.items() if what is not None and name in running]
        return waiting

    def store_awaited(self, seconds: float) -> bool:
        """Whether the store is lost, or one commit to it has taken as long. Not before it was first there."""
        if self._store is None:
            return False
        if self.history is None:
            return self._store.restarts > 0 and not self._store.ready
        return not self._store.ready or self.history.awaits_store(seconds)

    def describe(self) -> DescribeDaemonResult:
        """What `DescribeDaemon` answers of this process."""
        shards: list[ShardView] = [] if self.history is None else self.history.shards()
        store = self._store
        return DescribeDaemonResult(
            engine=engine_version(),
            python=platform.python_version(),
            trio=trio.__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            services=self._views(),
            shards=shards,
            store=StoreView(
                kind=self._store_kind,
                state="ELSEWHERE" if store is None else "READY" if store.ready else "LOST",
                schema_version=self.schema_version,
                restarts=0 if store is None else store.restarts,
            ),
        )
