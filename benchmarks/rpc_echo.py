"""What one small request and its reply cost the Frontend: CPU of the daemon's process, everything in.

A History that answers at once stands behind the memory link; a client in another process keeps `--flight` calls under
way over one WebSocket. Run: python benchmarks/rpc_echo.py [--calls 20000] [--flight 1] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import trio
from trio_websocket import open_websocket_url

from daemon.api.auth import sign_local_token
from daemon.links.interface import Request
from daemon.links.table import Links, memory_links
from daemon.nurseries.frontend import Frontend
from daemon.settings import FrontendSettings, Settings
from enginekit.messages.calls import Acknowledged, DescribeDaemonResult, StoreView


async def history(links: Links, asked: trio.Event) -> None:
    """Acknowledges everything; `asked` once there was something."""
    done = Acknowledged()
    while True:
        for item in await links.history.receive():
            if isinstance(item, Request):
                item.answer(done)
                asked.set()


def describe() -> DescribeDaemonResult:
    return DescribeDaemonResult(
        engine="0",
        python="3",
        trio="0",
        pid=0,
        started_at=datetime.now(UTC),
        services=[],
        shards=[],
        store=StoreView(kind="memory", state="READY", schema_version=1),
    )


def client(address: str, token: str, calls: int, flight: int) -> None:
    """The other process: `flight` calls under way until `calls` are answered."""

    async def run() -> None:
        headers = [(b"authorization", f"Bearer {token}".encode())]
        async with open_websocket_url(f"ws://{address}/rpc", subprotocols=["engine.v1"], extra_headers=headers) as ws:
            for number in range(flight):
                await ws.send_message(_call(number))
            for number in range(flight, calls):
                await ws.get_message()
                await ws.send_message(_call(number))
            for _ in range(flight):
                await ws.get_message()

    trio.run(run)


def _call(number: int) -> str:
    params = f'{{"token":"t{number}","output":{{"n":1}}}}'
    return f'{{"jsonrpc":"2.0","id":{number},"method":"CompleteTask","params":{params}}}'


async def measure(calls: int, flight: int, profiler: cProfile.Profile | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        links = memory_links()
        settings = Settings(frontend=FrontendSettings(rpc_listen="127.0.0.1:0"))
        frontend = Frontend(links, settings, Path(folder), describe)
        async with trio.open_nursery() as nursery:
            asked = trio.Event()
            nursery.start_soon(history, links, asked)
            await nursery.start(frontend.run)
            assert frontend.bound is not None
            token = sign_local_token(Path(folder), "bench", "bench", ["work"], 600)
            arguments = (frontend.bound, token, calls, flight)
            process = multiprocessing.get_context("spawn").Process(target=client, args=arguments)
            process.start()
            await asked.wait()
            cpu, wall, before = time.process_time(), time.perf_counter(), frontend.gateway.answered
            if profiler is not None:
                profiler.enable()
            await trio.to_thread.run_sync(process.join)
            if profiler is not None:
                profiler.disable()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            answered = frontend.gateway.answered - before
            print(
                f"{answered} calls, {flight} in flight: {cpu / answered * 1e6:.0f} us of CPU each, "
                f"{answered / wall:.0f} a second"
            )
            nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--flight", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    profiler = cProfile.Profile() if options.profile else None
    trio.run(measure, options.calls, options.flight, profiler)
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
