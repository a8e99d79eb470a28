"""The daemon put together: settings in, a supervised tree of services out. The one place that knows every part.

Nothing is decided here and nothing lives here beyond the wiring; `daemon/supervisor.py` keeps what is built alive.
"""

from __future__ import annotations

import itertools
import os
import platform
import random
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
import trio
from prometheus_client import CollectorRegistry

from daemon.api.gateway import engine_version
from daemon.api.metrics import Metrics
from daemon.clock import Clock, moment
from daemon.links.table import Links, memory_links
from daemon.nodes.registry import NodeTypes
from daemon.nurseries.frontend import Bound, Frontend
from daemon.nurseries.history import History
from daemon.nurseries.matching import Matching
from daemon.nurseries.timer import Timer
from daemon.nurseries.worker import Worker
from daemon.settings import Settings
from daemon.stores.interface import Store
from daemon.stores.open import open_store
from daemon.supervisor import Service, ServiceName, ServiceSpec, Supervisor
from enginekit.messages.calls import DescribeDaemonResult, ShardView, StoreView

log = structlog.get_logger("daemon")


class DaemonFile(msgspec.Struct, frozen=True, kw_only=True):
    """`daemon.json` in the data folder: how to find the running daemon."""

    pid: int
    engine: str
    rpc: str
    http: str


class Daemon:
    """One daemon. `store`, `nodes` and `seed` are for tests; without a seed, chance is the machine's."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        clock: Clock,
        *,
        store: Store | None = None,
        nodes: NodeTypes | None = None,
        seed: int | None = None,
    ) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._settings = settings
        self._data_dir = data_dir
        self._clock = clock
        self._entropy = random.Random(secrets.randbits(128) if seed is None else seed)
        self._store = open_store(settings.store, data_dir) if store is None else store
        self._nodes = NodeTypes(settings) if nodes is None else nodes
        self.links: Links = memory_links()
        self.metrics = Metrics(CollectorRegistry())
        self._incarnations = itertools.count(1)
        self._history: History | None = None
        self._frontend = Frontend(
            self.links, settings, data_dir, self.describe, self.unready, clock=clock, metrics=self.metrics
        )
        self._store_kind = settings.store.url.partition(":")[0]
        self._schema_version = 0
        self._started_at = moment(clock.now())
        self.supervisor = Supervisor(self._specs(), settings.supervisor)

    @property
    def bound(self) -> Bound | None:
        """Where the Frontend listens, once it does."""
        return self._frontend.bound

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run every service until drained, stopped or cancelled; `daemon.json` says where meanwhile.

        Raises what the supervisor raises.
        """
        file = self._data_dir / "daemon.json"
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.supervisor.run)
                if self.supervisor.ready:
                    await self._announce(file)
                task_status.started()
        finally:
            file.unlink(missing_ok=True)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5.0):
                await self._nodes.aclose()

    def drain(self) -> None:
        """Ask for an orderly end."""
        self.supervisor.drain()

    def stop(self) -> None:
        """End at once."""
        self.supervisor.stop()

    def describe(self) -> DescribeDaemonResult:
        """What `DescribeDaemon` answers."""
        shards: list[ShardView] = [] if self._history is None else self._history.shards()
        return DescribeDaemonResult(
            engine=engine_version(),
            python=platform.python_version(),
            trio=trio.__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            services=self.supervisor.views(),
            shards=shards,
            store=StoreView(
                kind=self._store_kind,
                state="READY" if self._store.ready else "LOST",
                schema_version=self._schema_version,
                restarts=self._store.restarts,
            ),
        )

    def unready(self) -> list[str]:
        """What `/readyz` waits for."""
        waiting = [view.name for view in self.supervisor.views() if view.state != "RUNNING"]
        if not self._store.ready and ServiceName.STORE.value not in waiting:
            waiting.append(ServiceName.STORE.value)
        return waiting

    # --- the services -------------------------------------------------------------------------------------------

    def _specs(self) -> list[ServiceSpec]:
        settings = self._settings
        drain = settings.supervisor.drain_seconds
        makers: list[tuple[ServiceName, Callable[[], Service], float]] = [
            (ServiceName.STORE, lambda: self._store, drain),
            (ServiceName.HISTORY, self._make_history, drain),
            (ServiceName.MATCHING, self._make_matching, drain),
            (ServiceName.TIMER, self._make_timer, drain),
            (ServiceName.WORKER, self._make_worker, settings.worker.drain_seconds + 10.0),
            (ServiceName.FRONTEND, self._make_frontend, drain),
        ]
        return [ServiceSpec(name, make, seconds) for name, make, seconds in makers]

    def _make_history(self) -> Service:
        self._history = History(
            self.links, self._store, self._settings, self._clock, self._entropy, self._nodes.names()
        )
        return self._history

    def _make_matching(self) -> Service:
        return Matching(self.links, self._store, self._settings.matching, self._clock)

    def _make_timer(self) -> Service:
        return Timer(self.links, self._store, self._settings.timer, self._clock)

    def _make_worker(self) -> Service:
        return Worker(
            self.links,
            self._settings.worker,
            self._nodes,
            incarnations=self._incarnations,
            payload_bytes=self._settings.history.payload_bytes,
        )

    def _make_frontend(self) -> Service:
        # The same one again after a restart: it keeps its ports.
        return self._frontend

    async def _announce(self, file: Path) -> None:
        """Say where the Frontend listens."""
        self._schema_version = (await self._store.info()).schema_version
        bound = self.bound
        assert bound is not None
        _write_private(
            file,
            msgspec.json.encode(
                DaemonFile(
                    pid=os.getpid(),
                    engine=engine_version(),
                    rpc=f"ws://{bound.rpc}/rpc",
                    http=f"http://{bound.http}",
                )
            ),
        )
        log.info("the daemon is up", rpc=bound.rpc, http=bound.http, data_dir=str(self._data_dir))


def _write_private(file: Path, data: bytes) -> None:
    """All of it or nothing, readable by its owner only."""
    part = file.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    part.replace(file)
