"""The whole daemon in one thread: memory store, memory links, the mock clock, one seed; spoken to in calls."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
from msgspec import Raw

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import TrioClock
from daemon.nodes.registry import NodeTypes
from daemon.settings import Settings
from daemon.stores.memory import MemoryStore
from daemon.supervisor import Service, ServiceName, ServiceSpec
from enginekit.messages import calls
from enginekit.messages.events import AnyEvent, decode_event
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.node import Node

R = TypeVar("R", bound=calls.Result)

ELSEWHERE = (ServiceName.HEALTH, ServiceName.FRONTEND, ServiceName.LINKS, ServiceName.QUEUES)
SERVICES = [name for name in ServiceName if name not in ELSEWHERE]
"""Those of a simulated daemon."""

OWNER = Principal(
    tenant="acme", subject="tester", scopes=frozenset({"read", "write", "work", "admin"}), expires_at=None
)


class SettableClock(TrioClock):
    """The machine's clock, as somebody has set it."""

    set_by = 0
    """Milliseconds."""

    def now(self) -> int:
        return super().now() + self.set_by


class Sabotaged:
    """A service that raises when it is told to."""

    def __init__(self, service: Service, raise_now: trio.Event | None) -> None:
        self._service = service
        self._raise_now = raise_now

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._service.run)
            task_status.started()
            if self._raise_now is None:
                raise RuntimeError("sabotage")
            await self._raise_now.wait()
            raise RuntimeError("sabotage")


class Simulation(Daemon):
    """A daemon whose services can be made to raise, and that is spoken to in calls."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        seed: int,
        always_raises: ServiceName | None = None,
        made: Mapping[str, Node] | None = None,
    ) -> None:
        self.sabotage: dict[ServiceName, trio.Event] = {}
        self._always_raises = always_raises
        self.memory = MemoryStore(4, b"k" * 32)
        self.clock = SettableClock()
        entry = EntryPoint(name="test:flaky", value="flaky_node:Flaky", group="engine.nodes")
        super().__init__(
            settings,
            folder,
            self.clock,
            store=self.memory,
            nodes=NodeTypes(settings, [entry], made=made),
            seed=seed,
            listen=False,
        )

    def services(self) -> list[ServiceSpec]:
        return [self._sabotaged(spec) for spec in super().services()]

    def _sabotaged(self, spec: ServiceSpec) -> ServiceSpec:
        def start() -> Service:
            if spec.name is self._always_raises:
                return Sabotaged(spec.start(), None)
            self.sabotage[spec.name] = trio.Event()
            return Sabotaged(spec.start(), self.sabotage[spec.name])

        return msgspec.structs.replace(spec, start=start)

    async def call(self, call: calls.Call, result: type[R]) -> R:
        answer = await self.gateway.call(OWNER, type(call).__name__, msgspec.json.encode(call))
        return msgspec.json.decode(answer, type=result)

    async def start(self, definition: dict[str, JSON], data: JSON = None, **more: object) -> calls.StartWorkflowResult:
        return await self.call(
            calls.StartWorkflow(definition=encode(definition), input=encode({} if data is None else data), **more),
            calls.StartWorkflowResult,
        )

    async def closed(self, started: calls.StartWorkflowResult) -> calls.DescribeWorkflowResult:
        """Its end; asked for again, as the client does, when a service is just being restarted."""
        while True:
            try:
                seen = await self.call(
                    calls.WaitWorkflow(workflow_id=started.workflow_id, run_id=started.run_id, wait_seconds=3600),
                    calls.DescribeWorkflowResult,
                )
            except Refused as refused:
                if refused.status is not ErrorStatus.UNAVAILABLE:
                    raise
                continue
            if seen.status.closed:
                return seen

    async def events(self, started: calls.StartWorkflowResult) -> list[AnyEvent]:
        found: list[Raw] = []
        while True:
            page = await self.call(
                calls.GetHistory(workflow_id=started.workflow_id, run_id=started.run_id, after_id=len(found)),
                calls.GetHistoryResult,
            )
            found += page.events
            if not page.events or page.closed:
                return [decode_event(bytes(event)) for event in found]
