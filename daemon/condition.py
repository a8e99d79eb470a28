"""How a process is: what it waits for until it is ready, and what it says of itself when it is asked.

Nothing is done about it here; the supervisor restarts, and `daemon/vigil.py` tells systemd.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import trio

from daemon.api.gateway import engine_version
from daemon.links.exchange import Exchange
from daemon.links.roster import Announcement, Roster
from daemon.metrics import Meter, Metrics
from daemon.nurseries.history import History
from daemon.nurseries.partitions import PartitionedMatching
from daemon.nurseries.shared_partitions import SharedPartitions
from daemon.stores.interface import Store
from daemon.supervisor import ServiceName, ServiceState
from enginekit.messages.calls import DescribeDaemonResult, ProcessView, ServiceView, ShardView, StoreView

ELSEWHERE: Final = "ELSEWHERE"
"""The store of a process that does not have it open."""
ERROR_CHARACTERS: Final = 500
"""Of a service's last error, as others are told it."""


class Condition:
    """Of one process, whose name among the others is `process`. `store` and `exchange` where it has them; `history` and
    `matching` are the instances that run, or ran last; `roster` knows of the others, where there are any."""

    def __init__(
        self,
        process: str,
        roles: list[str],
        views: Callable[[], list[ServiceView]],
        http: Callable[[], str | None],
        store_kind: str,
        store: Store | None,
        exchange: Exchange | None,
        metrics: Metrics,
        started_at: datetime,
    ) -> None:
        self._process = process
        self._roles = roles
        self._views = views
        self._http = http
        self._store_kind = store_kind
        self._store = store
        self._exchange = exchange
        self._metrics = metrics
        self._meter: Meter | None = None
        self._started_at = started_at
        self.history: History | None = None
        self.matching: PartitionedMatching | SharedPartitions | None = None
        self.roster: Roster | None = None
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

    def view(self) -> ProcessView:
        """This process, as it is now."""
        return ProcessView(
            process=self._process,
            roles=self._roles,
            engine=engine_version(),
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            services=self._views(),
            store=self._store_view(),
            waiting_for=self.unready(),
            shards=[] if self.history is None else self.history.shards(),
            partitions=[] if self.matching is None else self.matching.partitions,
            http=self._http(),
        )

    def announce(self) -> Announcement:
        """What the others are told, with what the services did since they were told last."""
        if self._meter is None:
            self._meter = Meter(self._metrics, trio.current_time)
        view = self.view()
        services = [
            msgspec.structs.replace(each, last_error=each.last_error and each.last_error[:ERROR_CHARACTERS])
            for each in view.services
        ]
        return Announcement(view=msgspec.structs.replace(view, services=services), rates=self._meter.rates())

    def describe(self) -> DescribeDaemonResult:
        """What `DescribeDaemon` answers: this process, and what it knows of all. Nobody is asked for it."""
        own = self.view()
        views = [own] if self.roster is None else [own, *self.roster.others()]
        speaking = [view for view in views if view.silent_since is None]
        return DescribeDaemonResult(
            engine=own.engine,
            python=platform.python_version(),
            trio=trio.__version__,
            pid=own.pid,
            started_at=own.started_at,
            services=own.services,
            shards=_shards(speaking),
            store=_store(speaking),
            processes=views,
        )

    def _store_view(self) -> StoreView:
        store = self._store
        return StoreView(
            kind=self._store_kind,
            state=ELSEWHERE if store is None else "READY" if store.ready else "LOST",
            schema_version=self.schema_version,
            restarts=0 if store is None else store.restarts,
        )


def _shards(views: list[ProcessView]) -> list[ShardView]:
    """Those of all. One that moves may be said by two: the newer epoch is its owner's."""
    newest: dict[int, ShardView] = {}
    for view in views:
        for shard in view.shards:
            if shard.shard not in newest or newest[shard.shard].epoch < shard.epoch:
                newest[shard.shard] = shard
    return [newest[shard] for shard in sorted(newest)]


def _store(views: list[ProcessView]) -> StoreView:
    """Ours, where we have it open; else as the first says who has it, and finds it ready if anybody does."""
    own = views[0].store
    if own.state != ELSEWHERE:
        return own
    seen = [view.store for view in views if view.store.state != ELSEWHERE]
    return next((store for store in seen if store.state == "READY"), seen[0] if seen else own)
