"""What queues in Redis cost a split engine, against queues in their owners' memory: `make queues`.

Two engines of processes with one role each, over one PostgreSQL and one Redis each, differing in `[queues]` alone. They
are loaded in turns, so that what else happens on the machine happens to both; the ratio of each round is what counts.
Prints tasks a second, the processor time of Matching for a task, the ratios, and how busy the machine was; asserts
nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from benchmarks.scaling import IN_FLIGHT, TASKS, chain, spent
from benchmarks.throughput import load
from enginekit.client import open_client
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode
from examples.split.cluster import Cluster, open_cluster
from examples.split.demo import servers

PLAN = {"history": 1, "matching": 2, "timer": 1, "worker": 1, "frontend": 1}
PLACES = ("memory", "redis")


async def measure(rounds: int, executions: int) -> None:
    async with AsyncExitStack() as stack:
        clusters: dict[str, Cluster] = {}
        for place in PLACES:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="engine-queues-"))
            postgres, redis = stack.enter_context(servers())
            more = f'[queues]\nurl = "{redis}"\n' if place == "redis" else ""
            cluster = open_cluster(Path(folder), postgres, redis, PLAN, lease_seconds=10.0, more=more)
            clusters[place] = await stack.enter_async_context(cluster)
        clients = {}
        for place, cluster in clusters.items():
            client = open_client(cluster.local.url, cluster.local.token)
            clients[place] = await stack.enter_async_context(client)
            definition = encode(chain({"Type": "Task", "Resource": "echo"}))
            await clients[place].call(RegisterWorkflow(name="bench", definition=definition))
            await load(clients[place], IN_FLIGHT, IN_FLIGHT)
        ratios: list[float] = []
        for number in range(rounds):
            rates = {}
            for place in PLACES if number % 2 else reversed(PLACES):
                before = spent(clusters[place])["matching"]
                rates[place] = executions * TASKS / await load(clients[place], executions, IN_FLIGHT)
                cost = (spent(clusters[place])["matching"] - before) / executions / TASKS * 1e6
                print(f"{place:8} {rates[place]:7.0f} tasks/s   Matching: {cost:5.0f} µs a task", flush=True)
            ratios.append(rates["redis"] / rates["memory"])
        print(f"  redis / memory: {statistics.median(ratios):.2f} ({', '.join(f'{each:.2f}' for each in ratios)})")
        print(f"  load average: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for cluster in clusters.values():
            await cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queues")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--executions", type=int, default=200)
    arguments = parser.parse_args()
    trio.run(measure, arguments.rounds, arguments.executions)


if __name__ == "__main__":
    main()
