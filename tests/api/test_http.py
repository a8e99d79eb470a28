"""Health, readiness, metrics, and ports that cannot be had."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from prometheus_client import CollectorRegistry

from daemon.api.http import HttpApp
from daemon.api.listening import ListenFailed
from daemon.nurseries.frontend import Frontend
from daemon.nurseries.health import Health, HealthListen
from daemon.settings import FrontendSettings, Settings


async def test_health_and_readiness(serve: Any) -> None:
    waiting = ["history: STARTING", "store: not connected"]
    async with serve(ready=lambda: waiting) as served, httpx2.AsyncClient(base_url=served.http) as http:
        assert (await http.get("/healthz")).status_code == 200
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "waiting_for": waiting})
        waiting.clear()
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True, "waiting_for": []})
        assert (await http.head("/healthz")).status_code == 200


async def test_metrics_count_calls_by_method_and_status(serve: Any) -> None:
    async with serve() as served, served.client() as client, httpx2.AsyncClient(base_url=served.http) as http:
        await client.call("Hello")
        await client.call("Hello", x=1)
        await client.call("Nonsense")
        text = (await http.get("/metrics")).text
        assert 'engine_rpc_calls_total{method="Hello",status="OK"} 1.0' in text
        assert 'engine_rpc_calls_total{method="Hello",status="INVALID_ARGUMENT"} 1.0' in text
        assert 'engine_rpc_calls_total{method="unknown",status="INVALID_ARGUMENT"} 1.0' in text
        assert "engine_rpc_connections 1.0" in text


async def test_there_is_nothing_else(serve: Any) -> None:
    async with serve() as served, httpx2.AsyncClient(base_url=served.http) as http:
        assert (await http.get("/")).status_code == 404
        answer = await http.post("/healthz")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def frontend(links: Any, folder: Path, address: str) -> Frontend:
    settings = Settings(frontend=FrontendSettings(rpc_listen=address))
    return Frontend(links, settings, folder, lambda: pytest.fail("not asked"))


def health(address: str) -> Health:
    return Health(HealthListen("health.listen", address), HttpApp(CollectorRegistry(), list))


def service(name: str, links: Any, folder: Path, address: str) -> Frontend | Health:
    return health(address) if name == "health" else frontend(links, folder, address)


SERVICES = pytest.mark.parametrize(
    ("name", "setting"), [("frontend", "frontend.rpc_listen"), ("health", "health.listen")]
)


@SERVICES
async def test_a_port_that_is_taken_is_named(peers: Any, tmp_path: Path, name: str, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenFailed, match=f"{setting} = '{address}': cannot listen there: .*in use; is another"):
            await service(name, peers.links, tmp_path, address).run()


@SERVICES
@pytest.mark.parametrize("address", ["7460", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", ":7460"])
async def test_an_address_that_is_none_is_refused(
    peers: Any, tmp_path: Path, name: str, setting: str, address: str
) -> None:
    with pytest.raises(ListenFailed, match=f"{setting} = .*must be HOST:PORT"):
        await service(name, peers.links, tmp_path, address).run()


@pytest.mark.parametrize("name", ["frontend", "health"])
async def test_what_runs_again_takes_the_port_it_had(peers: Any, tmp_path: Path, name: str) -> None:
    again = service(name, peers.links, tmp_path, "127.0.0.1:0")
    bound = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(again.run)
            bound.append(again.bound)
            nursery.cancel_scope.cancel()
    assert bound[0] is not None
    assert bound[0] == bound[1]
