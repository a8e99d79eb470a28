"""How tasks a second grow with processes, and what each costs: `make scaling`.

A real PostgreSQL and a real Redis-protocol server, an engine of processes with one role each, and a client. With
nodes that wait 50 ms for an HTTP answer: one, two and four Workers of few slots each. With `echo`: one and two
Histories. Prints tasks a second, ratios, and the processor time that each kind of process took for a task; asserts
nothing. On two cores all processes share them: what saturates first is said, not what more cores would give.
"""

from __future__ import annotations

import argparse
import http.server
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.throughput import cpu_seconds, load
from enginekit.client import open_client
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import JSON, encode
from examples.split.cluster import Cluster, open_cluster
from examples.split.demo import servers

TASKS = 5
ANSWER_SECONDS = 0.05
SLOTS = 10
"""Of each Worker of tasks that wait: few, so that the number of Workers decides and not the two cores. With `echo` it
is the default, so that Workers decide nothing."""
IN_FLIGHT = 64
ONE_OF_EACH = {"history": 1, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers after a while."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(ANSWER_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def slow_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()


def chain(state: dict[str, JSON]) -> dict[str, JSON]:
    """The same task, one after the other."""
    states: dict[str, JSON] = {}
    for number in range(TASKS):
        following: dict[str, JSON] = {"End": True} if number == TASKS - 1 else {"Next": f"Task{number + 1}"}
        states[f"Task{number}"] = {**state, **following}
    return {"StartAt": "Task0", "States": states}


def spent(cluster: Cluster) -> Counter[str]:
    """Processor seconds so far, by role; a process's drivers count with it."""
    found: Counter[str] = Counter()
    for member in cluster.members:
        children = Path(f"/proc/{member.pid}/task/{member.pid}/children").read_text().split()
        found[member.role] += sum(cpu_seconds(pid) for pid in (member.pid, *map(int, children)))
    return found


async def measure(
    plan: dict[str, int], definition: dict[str, JSON], executions: int, title: str, more: str = ""
) -> float:
    """Tasks a second. `more`: for engine.toml."""
    with tempfile.TemporaryDirectory(prefix="engine-scaling-") as folder, servers() as (postgres, redis):
        async with (
            open_cluster(Path(folder), postgres, redis, plan, lease_seconds=10.0, more=more) as cluster,
            open_client(cluster.local.url, cluster.local.token) as client,
        ):
            await client.call(RegisterWorkflow(name="bench", definition=encode(definition)))
            await load(client, IN_FLIGHT, IN_FLIGHT)
            before = spent(cluster)
            seconds = await load(client, executions, IN_FLIGHT)
            cost = {role: (after - before[role]) / executions / TASKS * 1e6 for role, after in spent(cluster).items()}
            await cluster.stop()
    rate = executions * TASKS / seconds
    busy = ", ".join(f"{role} {cost[role]:.0f}" for role in sorted(cost, key=lambda role: -cost[role]))
    print(f"{title:38} {rate:7.0f} tasks/s   µs of processor time a task: {busy}", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--executions", type=int, default=400)
    arguments = parser.parse_args()
    with slow_server() as url:
        waits = chain({"Type": "Task", "Resource": "http", "Parameters": {"Method": "GET", "ApiEndpoint": url}})
        rates = []
        for workers in (1, 2, 4):
            title, plan = f"http answers after 50 ms, {workers} worker(s)", {**ONE_OF_EACH, "worker": workers}
            few = f"[worker]\nslots = {SLOTS}\n"
            rates.append(trio.run(measure, plan, waits, arguments.executions, title, few))
    print("  ratios: " + ", ".join(f"{rate / rates[0]:.2f}" for rate in rates))
    echo = chain({"Type": "Task", "Resource": "echo"})
    rates = []
    for histories in (1, 2):
        title = f"echo, {histories} history process(es)"
        rates.append(trio.run(measure, {**ONE_OF_EACH, "history": histories}, echo, arguments.executions, title))
    print("  ratios: " + ", ".join(f"{rate / rates[0]:.2f}" for rate in rates))


if __name__ == "__main__":
    main()
