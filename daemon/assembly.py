"""The daemon put together: settings in, a supervised tree of services out. The one place that knows every part.

Nothing is decided here and nothing lives here beyond the wiring; `daemon/supervisor.py` keeps what is built alive.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog
import trio
from prometheus_client import CollectorRegistry

from daemon.announcing import DaemonFile, file_of, reachable, remove_own, write_private
from daemon.api.auth import tokens_decided_by
from daemon.api.gateway import Gateway, engine_version
from daemon.api.http import HttpApp
from daemon.api.keys import KeyUnusable
from daemon.api.listening import ListenFailed
from daemon.clock import Clock, moment
from daemon.condition import Condition
from daemon.configuration import parse_listen
from daemon.connections import Connections
from daemon.dispatch.membership import StoreMembership
from daemon.drivers.faults import ServerUnusable
from daemon.links.counting import LinkCollector
from daemon.links.exchange import Exchange
from daemon.links.open import open_exchange
from daemon.links.roster import Roster
from daemon.links.table import Links, memory_links, shared_links
from daemon.metrics import Metrics
from daemon.nodes.registry import NodeTypeError, NodeTypes
from daemon.nurseries.frontend import Frontend
from daemon.nurseries.health import Health, HealthListen
from daemon.nurseries.history import History
from daemon.nurseries.matching import Matching
from daemon.nurseries.partitions import PartitionedMatching
from daemon.nurseries.post import Post
from daemon.nurseries.queues import Queues
from daemon.nurseries.remote_worker import RemoteWorker
from daemon.nurseries.shared_partitions import SharedPartitions
from daemon.nurseries.timer import Timer
from daemon.nurseries.worker import Worker
from daemon.queues.counting import QueueCollector, TaskCollector
from daemon.queues.interface import Places, TaskQueues
from daemon.queues.open import open_queues
from daemon.roles import ALL_ROLES, ON_THE_STORE, Role, check_roles
from daemon.settings import Settings
from daemon.stores.interface import Store, StoreUnavailable, StoreUnusable
from daemon.stores.open import open_store
from daemon.supervisor import Service, ServiceFailed, ServiceName, ServiceSpec, Supervisor, Unusable
from daemon.systemd import Notifier
from daemon.vigil import Vigil
from enginekit.messages.calls import DescribeDaemonResult, ServiceView

log = structlog.get_logger("daemon")

STORE_PAUSE_SECONDS = 0.1
"""Between two questions to a store that went away as it was asked."""


class Bound(msgspec.Struct, frozen=True):
    """Where a process listens, each `HOST:PORT` with the real port. `rpc` is None without a Frontend."""

    rpc: str | None
    http: str


class Daemon:
    """One daemon: the services of its `roles`. `http_listen` counts before the settings'. `store`, `nodes` and `seed`
    are for tests, and so is to `listen` nowhere; without a seed, chance is the machine's. `notifier`: the systemd that
    wants to know.

    Raises Unusable when there is no starting with what it is given.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        clock: Clock,
        *,
        roles: frozenset[Role] = ALL_ROLES,
        http_listen: str | None = None,
        store: Store | None = None,
        nodes: NodeTypes | None = None,
        seed: int | None = None,
        listen: bool = True,
        notifier: Notifier | None = None,
    ) -> None:
        check_roles(roles, settings)
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unusable(f"the data folder {data_dir} cannot be made: {error.strerror}") from error
        self._settings = settings
        self._roles = roles if listen else roles - {Role.FRONTEND}
        self._data_dir = data_dir
        self._clock = clock
        # Task tokens are made of it: what the machine gives cannot be told from what it gave before.
        self._entropy = random.SystemRandom() if seed is None else random.Random(seed)
        try:
            self._store = open_store(settings.store, data_dir) if store is None else store
            self._nodes = NodeTypes(settings) if nodes is None else nodes
        except (StoreUnusable, NodeTypeError) as error:
            raise Unusable(str(error)) from error
        self._has_store = bool(self._roles & ON_THE_STORE)
        self._process = f"{socket.gethostname()}.{os.getpid()}.{self._entropy.getrandbits(32):08x}"
        """Its name among the processes that share the work."""
        self._exchange: Exchange | None = None
        self._queues: TaskQueues | None = None
        if settings.links.url != "memory:":
            try:
                self._exchange = open_exchange(
                    settings.links,
                    process=self._process,
                    shards=settings.store.store_shards,
                    partitions=settings.matching.partitions,
                    queues="memory" if settings.queues.url == "memory:" else "redis",
                )
                if Role.MATCHING in self._roles:
                    self._queues = open_queues(settings, self._process)
            except ServerUnusable as error:
                raise Unusable(str(error)) from error
        self.links: Links = memory_links() if self._exchange is None else self._linked(self._exchange)
        self.metrics = Metrics(CollectorRegistry())
        if self._exchange is not None:
            LinkCollector(self._exchange.counts, self.metrics.registry)
        if self._queues is not None:
            QueueCollector(self._queues.counts, self.metrics.registry)
        self._places: Callable[[], Mapping[int, Places]] = dict
        if Role.MATCHING in self._roles:
            TaskCollector(lambda: self._places(), self.metrics.registry)
        self._incarnations = itertools.count(1)
        self._runs = itertools.count(1)
        self._condition = Condition(
            self._process,
            sorted(role.value for role in self._roles),
            lambda: self.supervisor.views(),
            self._http,
            settings.store.url.partition(":")[0],
            self._store if self._has_store else None,
            self._exchange,
            self.metrics,
            moment(clock.now()),
        )
        if self._exchange is not None:
            self._condition.roster = Roster(
                self._exchange,
                self._process,
                self._condition.announce,
                lambda seconds: moment(clock.now() - round(seconds * 1000)),
                listens=Role.FRONTEND in self._roles,
            )
        self._frontend = Frontend(
            self.links,
            settings,
            data_dir,
            self._condition.describe,
            roster=self._condition.roster,
            clock=clock,
            metrics=self.metrics,
        )
        where = self._health_listen(http_listen) if listen else None
        self._health: Health | None = None
        if where is not None:
            self._health = Health(where, HttpApp(self.metrics.registry, self._condition.unready))
        self.supervisor = Supervisor(
            self.services(),
            settings.supervisor,
            hopeless=(StoreUnusable, ServerUnusable, KeyUnusable),
            explained=(ListenFailed,),
        )
        self._notifier = notifier
        self._vigil = trio.CancelScope()

    @property
    def gateway(self) -> Gateway:
        """Calls without a connection."""
        return self._frontend.gateway

    @property
    def bound(self) -> Bound | None:
        """Where it listens, once it does all that it is to."""
        if self._health is None or self._health.bound is None:
            return None
        if Role.FRONTEND in self._roles and self._frontend.bound is None:
            return None
        return Bound(self._frontend.bound, self._health.bound)

    def _http(self) -> str | None:
        return None if self._health is None or self._health.bound is None else f"http://{self._health.bound}"

    def _health_listen(self, given: str | None) -> HealthListen | None:
        if given is not None:
            return HealthListen("--http-listen", given)
        if Role.FRONTEND in self._roles:
            return HealthListen("frontend.http_listen", self._settings.frontend.http_listen)
        address = self._settings.health.listen
        return None if address is None else HealthListen("health.listen", address)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run every service until drained, stopped or cancelled; a file in the data folder says where meanwhile.

        Raises what the supervisor raises.
        """
        for problem in Connections(self._settings.connections).problems():
            log.warning("a connection cannot be used as things are", problem=problem)
        roles = [role.value for role in self._roles]
        file = file_of(self._data_dir, roles, frontend=Role.FRONTEND in self._roles)
        announced = False
        try:
            async with trio.open_nursery() as nursery:
                if self._notifier is not None:
                    nursery.start_soon(self._keep_vigil, self._notifier)
                await nursery.start(self._supervise)
                if self.supervisor.ready:
                    await self._announce(file)
                    announced = True
                    if self._notifier is not None:
                        self._notifier.ready()
                task_status.started()
        finally:
            if announced:
                # Only then: a second daemon that found the store locked must not take away the first one's.
                remove_own(file)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5.0):
                await self._nodes.aclose()

    def drain(self) -> None:
        """Ask for an orderly end."""
        self._tell_end("draining: what runs may end, nothing new begins")
        self.supervisor.drain()

    def stop(self) -> None:
        """End at once."""
        self._tell_end("stopping at once")
        self.supervisor.stop()

    async def _supervise(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.supervisor.run(task_status=task_status)
        except ServiceFailed as failed:
            self._tell_end(f"failed: {failed.name.value} is given up; the log says why")
            raise
        except Unusable:
            self._tell_end("failed: something cannot be used as it is; the log says what")
            raise
        finally:
            self._vigil.cancel()

    async def _keep_vigil(self, notifier: Notifier) -> None:
        with self._vigil:
            await Vigil(notifier, self, self.links, self._store).run()

    def _tell_end(self, status: str) -> None:
        """The last word; systemd's watchdog sleeps from here on."""
        self._vigil.cancel()
        if self._notifier is not None:
            self._notifier.stopping(status)

    # --- what is watched ----------------------------------------------------------------------------------------

    def states(self) -> list[ServiceView]:
        return self.supervisor.views()

    def store_awaited(self, seconds: float) -> bool:
        """Whether the store is lost, or one commit to it has taken as long. Not before it was first there."""
        return self._condition.store_awaited(seconds)

    def listens(self, name: ServiceName) -> tuple[str, int] | None:
        listening = self._health if name is ServiceName.HEALTH else self._frontend
        if listening is None or listening.bound is None:
            return None
        host, port = parse_listen(reachable(listening.bound))
        return host, port

    def describe(self) -> DescribeDaemonResult:
        """What it says of itself."""
        return self._condition.describe()

    def unready(self) -> list[str]:
        """What `/readyz` waits for."""
        return self._condition.unready()

    # --- the services -------------------------------------------------------------------------------------------

    def services(self) -> list[ServiceSpec]:
        """What is to be supervised, in the order of starting."""
        settings = self._settings
        drain = settings.supervisor.drain_seconds
        makers: list[tuple[ServiceName, Callable[[], Service], float]] = [
            (ServiceName.HISTORY, self._make_history, drain),
            (ServiceName.MATCHING, self._make_matching, drain),
            (ServiceName.TIMER, self._make_timer, drain),
            (ServiceName.WORKER, self._make_worker, settings.worker.drain_seconds + 10.0),
            (ServiceName.FRONTEND, self._make_frontend, drain),
        ]
        roles = {role.value for role in self._roles}
        below: list[tuple[ServiceName, Callable[[], Service], float]] = []
        health = self._health
        if health is not None:
            # The same one again after a restart, as with the Frontend: they keep their ports.
            below.append((ServiceName.HEALTH, lambda: health, drain))
        if self._has_store:
            below.append((ServiceName.STORE, lambda: self._store, drain))
        if self._exchange is not None:
            below.append((ServiceName.LINKS, self._make_links, drain))
        if self._queues is not None:
            below.append((ServiceName.QUEUES, self._make_queues, drain))
        wanted = below + [maker for maker in makers if maker[0].value in roles]
        return [ServiceSpec(name, make, seconds) for name, make, seconds in wanted]

    def _linked(self, exchange: Exchange) -> Links:
        settings = self._settings
        return shared_links(exchange, settings.store.store_shards, settings.matching.partitions, self._entropy)

    def _make_links(self) -> Service:
        assert self._exchange is not None
        assert self._condition.roster is not None
        return Post(self._exchange, self._store if self._has_store else None, self._condition.roster)

    def _make_queues(self) -> Service:
        assert self._queues is not None
        return Queues(self._queues, self._store)

    def _make_history(self) -> Service:
        history = self._condition.history = History(
            self.links,
            self._store,
            self._settings,
            self._clock,
            f"{self._process}.{next(self._runs)}",
            self._entropy,
            self._nodes.names(),
            self._nodes.check,
            self.metrics,
        )
        return history

    def _make_matching(self) -> Service:
        if self._exchange is not None and self._queues is not None:
            shared = self._condition.matching = SharedPartitions(
                self.links,
                self._exchange,
                self._store,
                self._queues,
                self._settings,
                self._clock,
                f"{self._process}.{next(self._runs)}",
                self.metrics,
            )
            self._places = shared.places
            return shared
        if self._exchange is not None:
            matching = self._condition.matching = PartitionedMatching(
                self.links,
                self._exchange,
                self._store,
                self._settings.matching,
                self._settings.breakers,
                self._clock,
                StoreMembership(self._store),
                f"{self._process}.{next(self._runs)}",
                self.metrics,
            )
            self._places = matching.places
            return matching
        alone = Matching(
            self.links, self._store, self._settings.matching, self._settings.breakers, self._clock, self.metrics
        )
        self._places = lambda: {0: alone.places}
        return alone

    def _make_timer(self) -> Service:
        return Timer(self.links, self._store, self._settings.timer, self._clock)

    def _make_worker(self) -> Service:
        if self._exchange is not None:
            return RemoteWorker(
                self._exchange,
                self.links.history,
                self._settings,
                self._nodes,
                self._entropy,
                metrics=self.metrics,
            )
        return Worker(
            self.links,
            self._settings.worker,
            self._nodes,
            incarnations=self._incarnations,
            payload_bytes=self._settings.history.payload_bytes,
            metrics=self.metrics,
        )

    def _make_frontend(self) -> Service:
        return self._frontend

    async def _announce(self, file: Path) -> None:
        """Say where it listens, if it does."""
        while self._has_store and not self._condition.schema_version:
            await self._store.wait_ready()
            try:
                self._condition.schema_version = (await self._store.info()).schema_version
            except StoreUnavailable:
                await trio.sleep(STORE_PAUSE_SECONDS)
        bound = self.bound
        if bound is None:
            return
        write_private(
            file,
            msgspec.json.encode(
                DaemonFile(
                    pid=os.getpid(),
                    engine=engine_version(),
                    rpc=None if bound.rpc is None else f"ws://{reachable(bound.rpc)}/rpc",
                    http=f"http://{reachable(bound.http)}",
                    roles=[] if self._roles == ALL_ROLES else sorted(role.value for role in self._roles),
                    tokens=tokens_decided_by(self._settings.auth),
                )
            ),
        )
        log.info("the daemon is up", rpc=bound.rpc, http=bound.http, data_dir=str(self._data_dir))
