"""What a split engine does at a pace that it can keep: `make pace`.

A real PostgreSQL and a real Redis-protocol server, an engine of processes with one role each, and a client that starts
ten executions of five tasks each second, whatever becomes of those before. Prints how long a start takes to be
acknowledged, how long an execution takes, how many are behind at the end, and the processor time of each kind of
process of the engine; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from benchmarks.scaling import ONE_OF_EACH, TASKS, chain, spent
from enginekit.client import Client, open_client
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus
from examples.split.cluster import open_cluster
from examples.split.demo import servers

WARM_UP = 20
"""Executions before those that count."""


class Pace:
    """Seconds, of each execution: until its start was acknowledged, and until its end was known."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.acknowledged: list[float] = []
        self.ended: list[float] = []

    async def run(self, executions: int, rate: float, name: str) -> float:
        """Seconds from the last start to the last end."""
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(executions):
                await trio.sleep_until(begun + number / rate)
                nursery.start_soon(self._one, f"{name}-{number}")
            last = trio.current_time()
        return trio.current_time() - last

    async def _one(self, name: str) -> None:
        begun = trio.current_time()
        started = await self._client.start("bench", workflow_id=name, input={})
        self.acknowledged.append(trio.current_time() - begun)
        closed = await self._client.wait(started.workflow_id, started.run_id)
        assert closed.status is ExecutionStatus.SUCCEEDED
        self.ended.append(trio.current_time() - begun)


def shown(seconds: Sequence[float]) -> str:
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    median, most, nearly_all = (hundredths[place] * 1000 for place in (49, 94, 98))
    return f"median {median:.0f} ms, 95 % {most:.0f} ms, 99 % {nearly_all:.0f} ms, longest {max(seconds) * 1000:.0f} ms"


async def measure(executions: int, rate: float) -> None:
    with tempfile.TemporaryDirectory(prefix="engine-pace-") as folder, servers() as (postgres, redis):
        async with (
            open_cluster(Path(folder), postgres, redis, ONE_OF_EACH, lease_seconds=10.0) as cluster,
            open_client(cluster.local.url, cluster.local.token) as client,
        ):
            definition = encode(chain({"Type": "Task", "Resource": "echo"}))
            await client.call(RegisterWorkflow(name="bench", definition=definition))
            await Pace(client).run(WARM_UP, rate, "warm")
            pace, before, began = Pace(client), spent(cluster), trio.current_time()
            behind = await pace.run(executions, rate, "paced")
            seconds = trio.current_time() - began
            cores = {role: (after - before[role]) / seconds for role, after in spent(cluster).items()}
            await cluster.stop()
    print(f"{executions} executions of {TASKS} tasks, {rate:g} started a second; load {os.getloadavg()[0]:.1f}")
    print(f"start acknowledged: {shown(pace.acknowledged)}")
    print(f"execution ended:    {shown(pace.ended)}")
    print(f"the last one ended {behind:.1f} s after it was started")
    busy = ", ".join(f"{role} {cores[role]:.2f}" for role in sorted(cores, key=lambda role: -cores[role]))
    print(f"cores busy: {sum(cores.values()):.2f} ({busy})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pace")
    parser.add_argument("--executions", type=int, default=600)
    parser.add_argument("--rate", type=float, default=10.0, help="executions started a second")
    arguments = parser.parse_args()
    trio.run(measure, arguments.executions, arguments.rate)


if __name__ == "__main__":
    main()
