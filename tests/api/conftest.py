"""A Frontend whose History and Matching are small real tasks behind real memory links, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from prometheus_client import CollectorRegistry
from trio_websocket import WebSocketConnection, wrap_client_stream

from daemon.api.auth import sign_local_token
from daemon.api.http import HttpApp
from daemon.links.interface import Request
from daemon.links.memory import MemoryLink
from daemon.links.table import Links, memory_links
from daemon.metrics import Metrics
from daemon.nurseries.frontend import Frontend
from daemon.nurseries.health import Health, HealthListen
from daemon.settings import FrontendSettings, Settings
from enginekit.messages.calls import Acknowledged, Call, DescribeDaemonResult, Result, StoreView
from enginekit.messages.links import MatchTasks, MatchTasksResult, RunRef, TaskRef
from enginekit.messages.status import Refused

Answerer = Callable[[Request], Awaitable[Result | Refused]]
ALL_SCOPES = ["read", "write", "work", "admin"]


class Peers:
    """History and Matching as the Frontend sees them: every request is kept, and answered by what the test says."""

    def __init__(self, links: Links) -> None:
        self.links = links
        self.asked: list[Call] = []
        self.subjects: list[tuple[str, str]] = []
        self.arrived = trio.Event()
        self.answers: dict[type[Call], Answerer] = {}

    def on(self, call: type[Call], answer: Answerer | Result | Refused) -> None:
        """How calls of this type are answered; without it, Acknowledged (and an empty match)."""
        if isinstance(answer, Result | Refused):
            fixed = answer

            async def always(_: Request) -> Result | Refused:
                return fixed

            self.answers[call] = always
        else:
            self.answers[call] = answer

    def of(self, call: type[Call]) -> list[Any]:
        return [asked for asked in self.asked if type(asked) is call]

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.arrived = trio.Event()
            with trio.fail_after(60):
                await self.arrived.wait()

    async def serve(self, link: MemoryLink[Any]) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                for item in await link.receive():
                    assert isinstance(item, Request)
                    nursery.start_soon(self._answer, item)

    async def _answer(self, request: Request) -> None:
        self.asked.append(request.call)
        self.subjects.append((request.caller.tenant, request.caller.subject))
        self.arrived.set()
        answer = self.answers.get(type(request.call))
        if answer is not None:
            result = await answer(request)
        else:
            result = MatchTasksResult(tasks=[]) if isinstance(request.call, MatchTasks) else Acknowledged()
        if isinstance(result, Refused):
            request.refuse(result)
        else:
            request.answer(result)


class Served:
    """A running Frontend and its peers."""

    def __init__(self, frontend: Frontend, health: Health, peers: Peers, data_dir: Path, metrics: Metrics) -> None:
        self.frontend = frontend
        self.peers = peers
        self.data_dir = data_dir
        self.metrics = metrics
        self.http = f"http://{health.bound}"

    def token(self, tenant: str = "acme", scopes: list[str] | None = None, ttl: float = 600) -> str:
        return sign_local_token(self.data_dir, tenant, "ada", ALL_SCOPES if scopes is None else scopes, ttl)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    @asynccontextmanager
    async def client(self, token: str | None = None, **options: Any) -> AsyncIterator[Client]:
        headers = [(b"Authorization", f"Bearer {token if token is not None else self.token()}".encode())]
        assert self.frontend.bound is not None
        host, port = self.frontend.bound.split(":")
        arguments: dict[str, Any] = {"subprotocols": ["engine.v1"], "extra_headers": headers, **options}
        # The library's own way in leaves the socket open where the server closes first.
        async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(nursery, stream, host, "/rpc", **arguments)
            async with connection:
                yield Client(connection)
            nursery.cancel_scope.cancel()


class Client:
    """One JSON-RPC call after the other, or frames as the test likes them."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self._id = 0

    async def send(self, frame: str | bytes) -> None:
        await self.connection.send_message(frame)

    async def receive(self) -> Any:
        with trio.fail_after(60):
            return msgspec.json.decode(await self.connection.get_message())

    async def ask(self, frame: str | bytes) -> Any:
        await self.send(frame)
        return await self.receive()

    async def call(self, method: str, **params: Any) -> Any:
        """The result, or the error."""
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        response = await self.ask(msgspec.json.encode(request).decode())
        assert response["id"] == self._id
        return response["result"] if "result" in response else response["error"]


def describe() -> DescribeDaemonResult:
    return DescribeDaemonResult(
        engine="1",
        python="3",
        trio="0",
        pid=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        services=[],
        shards=[],
        store=StoreView(kind="memory", state="READY", schema_version=1),
    )


def task_ref(number: int) -> TaskRef:
    return TaskRef(RunRef("acme", f"w-{number}", f"r-{number}"), number)


@pytest.fixture
def make_task_ref() -> Callable[[int], TaskRef]:
    return task_ref


@pytest.fixture
def describe_daemon() -> Callable[[], DescribeDaemonResult]:
    return describe


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    links = memory_links()
    served = Peers(links)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.serve, links.history)
        nursery.start_soon(served.serve, links.matching)
        yield served
        nursery.cancel_scope.cancel()


@pytest.fixture
def serve(peers: Peers, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Served]]:
    """Runs a Frontend and a Health on free ports: `async with serve(frame_bytes=…) as served`."""

    @asynccontextmanager
    async def running(
        settings: Settings | None = None, ready: Callable[[], list[str]] = list, clock: Any = None, **options: Any
    ) -> AsyncIterator[Served]:
        ports = FrontendSettings(rpc_listen="127.0.0.1:0", **options)
        chosen = msgspec.structs.replace(settings if settings is not None else Settings(), frontend=ports)
        metrics = Metrics(CollectorRegistry())
        frontend = Frontend(peers.links, chosen, tmp_path, describe, clock=clock, metrics=metrics)
        health = Health(HealthListen("frontend.http_listen", "127.0.0.1:0"), HttpApp(metrics.registry, ready))
        async with trio.open_nursery() as nursery:
            await nursery.start(health.run)
            await nursery.start(frontend.run)
            yield Served(frontend, health, peers, tmp_path, metrics)
            nursery.cancel_scope.cancel()

    return running
