"""What one tenant's flood does to another: `make flood`.

One tenant asks for ten times what it may, over several connections, and does not do as its refusals say. Another
tenant's calls beside it, as multiples of what they take alone; the daemon's memory before and after; what was refused,
and how. Fails where memory grows, or a refusal does not say when to come back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jwt
import trio
from trio_websocket import connect_websocket_url

from benchmarks.idle import everybody, resident_bytes
from enginekit.client import Client, open_client
from enginekit.messages.json import JSON
from examples.orders.stage import open_engine

LIMIT = 50.0
"""Starts a second that a tenant may make."""
TIMES = 10
CONNECTIONS = 4
CALLS = 300
PAUSE_SECONDS = 0.03
GROWTH_MIB = 16.0
LIMITS = f"\n[limits]\nstarts_per_second = {LIMIT}\nstarts_burst = {LIMIT}\n"
WORKFLOW: dict[str, JSON] = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}


def token(data: Path, tenant: str) -> str:
    claims = {"sub": "flood", "tenant": tenant, "scope": "read write", "aud": "engine", "iss": "engine"}
    return jwt.encode({**claims, "exp": int(time.time()) + 3600}, (data / "key").read_bytes(), algorithm="HS256")


async def flood(url: str, bearer: str, seconds: float) -> None:
    """In a process of its own: calls at ten times the limit, whatever is answered. Prints what was."""
    answers: Counter[str] = Counter()
    until = trio.current_time() + seconds

    async def connection() -> None:
        headers = [(b"Authorization", f"Bearer {bearer}".encode())]
        async with trio.open_nursery() as nursery:
            websocket = await connect_websocket_url(nursery, url, subprotocols=["engine.v1"], extra_headers=headers)

            async def read() -> None:
                while True:
                    answer = json.loads(await websocket.get_message())
                    data = answer.get("error", {}).get("data", {})
                    told = data.get("retry_after_seconds", 0) > 0
                    answers["let in" if "result" in answer else "told when" if told else "not told"] += 1

            nursery.start_soon(read)
            number = 0
            while trio.current_time() < until:
                number += 1
                params = {"definition": WORKFLOW, "input": {"text": "x" * 1000}}
                frame = {"jsonrpc": "2.0", "id": number, "method": "StartWorkflow", "params": params}
                await websocket.send_message(json.dumps(frame))
                await trio.sleep(CONNECTIONS / (LIMIT * TIMES))
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as everybody_floods:
        for _ in range(CONNECTIONS):
            everybody_floods.start_soon(connection)
    print(json.dumps(answers))


async def latencies(client: Client) -> list[float]:
    """Milliseconds of each call, sorted. A refusal would be ridden out by the client, and show as a long call."""
    found: list[float] = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        await client.start(WORKFLOW)
        found.append((time.perf_counter() - begun) * 1000)
        await trio.sleep(PAUSE_SECONDS)
    return sorted(found)


async def main() -> bool:
    with tempfile.TemporaryDirectory() as name:
        async with open_engine(Path(name), LIMITS) as (engine, local):
            url, data = local.url(), Path(name) / "data"
            pids = everybody(engine.process.pid)
            async with open_client(url, token(data, "quiet")) as client:
                await latencies(client)
                alone = await latencies(client)
                seconds = CALLS * PAUSE_SECONDS * 3
                command = [sys.executable, "-m", "benchmarks.flood", "--url", url, "--token", token(data, "loud")]
                answered: list[bytes] = []
                async with trio.open_nursery() as nursery:

                    async def flooding() -> None:
                        done = await trio.run_process([*command, "--seconds", str(seconds)], capture_stdout=True)
                        answered.append(done.stdout)

                    nursery.start_soon(flooding)
                    await trio.sleep(2)
                    before = sum(map(resident_bytes, pids))
                    beside = await latencies(client)
                after = sum(map(resident_bytes, pids))
            await engine.stop()
    answers = json.loads(answered[0])
    growth = (after - before) / 2**20
    print(f"the flood: {answers}, at {LIMIT * TIMES:g} calls a second where {LIMIT:g} are allowed")
    for what, share in (("median", 0.5), ("99th percentile", 0.99)):
        was, now = alone[int(CALLS * share)], beside[int(CALLS * share)]
        print(f"the other tenant's calls, {what}: {was:.2f} ms alone, {now:.2f} ms beside it (x {now / was:.2f})")
    print(f"the other tenant's calls, mean: x {statistics.mean(beside) / statistics.mean(alone):.2f}")
    print(f"memory of the daemon and its store: {growth:+.1f} MiB over the flood (at most {GROWTH_MIB:g})")
    return growth <= GROWTH_MIB and not answers.get("not told") and bool(answers.get("told when"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--token")
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    if given.url:
        trio.run(flood, given.url, given.token, given.seconds)
    else:
        sys.exit(not trio.run(main))
