"""Health, readiness, metrics, and ports that cannot be had."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import pytest
import trio

from daemon.nurseries.frontend import Frontend, ListenFailed
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


def frontend(serving: Any, settings: FrontendSettings) -> Frontend:
    return Frontend(serving.links, Settings(frontend=settings), serving.folder, lambda: pytest.fail("not asked"), list)


class Serving:
    def __init__(self, links: Any, folder: Any) -> None:
        self.links = links
        self.folder = folder


@pytest.mark.parametrize("setting", ["rpc_listen", "http_listen"])
async def test_a_port_that_is_taken_is_named(peers: Any, tmp_path: Any, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listens = {"rpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", setting: address}
        service = frontend(Serving(peers.links, tmp_path), FrontendSettings(**listens))
        with pytest.raises(ListenFailed, match=f"frontend.{setting} = '{address}': cannot listen there: .*in use"):
            await service.run()


@pytest.mark.parametrize("address", ["7460", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http", ":7460"])
async def test_an_address_that_is_none_is_refused(peers: Any, tmp_path: Any, address: str) -> None:
    service = frontend(Serving(peers.links, tmp_path), FrontendSettings(rpc_listen=address))
    with pytest.raises(ListenFailed, match="must be HOST:PORT"):
        await service.run()


async def test_a_frontend_that_runs_again_takes_the_ports_it_had(peers: Any, tmp_path: Any) -> None:
    settings = FrontendSettings(rpc_listen="127.0.0.1:0", http_listen="127.0.0.1:0")
    service = frontend(Serving(peers.links, tmp_path), settings)
    bound = []
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            bound.append(service.bound)
            nursery.cancel_scope.cancel()
    assert bound[0] == bound[1]
