"""Tasks a second through the WebSocket, on SQLite with `synchronous=FULL`: `make bench`.

A daemon process, a client process that starts and awaits executions of five sequential `echo` tasks, 64 in flight;
then the same beside a second client that floods `DescribeWorkflow`. Prints figures and their ratio; asserts nothing.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import trio

from enginekit.client import Client, open_client
from enginekit.local import LocalDaemon
from enginekit.messages.calls import DescribeWorkflow, RegisterWorkflow
from enginekit.messages.json import JSON, encode
from examples.orders.stage import open_engine, running

TASKS = 5
FLOOD_IN_FLIGHT = 16


def definition(tasks: int) -> dict[str, JSON]:
    """`tasks` echo tasks, one after the other."""
    states: dict[str, JSON] = {}
    for number in range(tasks):
        last = number == tasks - 1
        following: dict[str, JSON] = {"End": True} if last else {"Next": f"Echo{number + 1}"}
        states[f"Echo{number}"] = {"Type": "Task", "Resource": "echo", **following}
    return {"StartAt": "Echo0", "States": states}


async def load(client: Client, executions: int, in_flight: int) -> float:
    """Seconds to start and await that many executions."""
    left = iter(range(executions))

    async def lane() -> None:
        for number in left:
            started = await client.start("bench", input={"number": number, "text": "x" * 40})
            closed = await client.wait(started.workflow_id, started.run_id)
            if closed.status.value != "SUCCEEDED":
                raise SystemExit(f"execution {started.workflow_id} ended as {closed.status.value}: {closed.cause}")

    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(lane)
    return time.perf_counter() - begun


async def flood(client: Client, workflow_id: str) -> None:
    """Ask for one execution over and over, until killed; prints how often, once a second."""
    count = 0

    async def lane() -> None:
        nonlocal count
        while True:
            await client.call(DescribeWorkflow(workflow_id=workflow_id))
            count += 1

    async with trio.open_nursery() as nursery:
        for _ in range(FLOOD_IN_FLIGHT):
            nursery.start_soon(lane)
        while True:
            before = count
            await trio.sleep(1)
            print(count - before, flush=True)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, from the kernel's accounting."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(text) for thread in threads for text in (thread / "children").read_text().split()]


async def measure(client: Client, daemon_pid: int, executions: int, in_flight: int, label: str) -> float:
    store = children(daemon_pid)
    before, store_before = cpu_seconds(daemon_pid), sum(map(cpu_seconds, store))
    own = resource.getrusage(resource.RUSAGE_SELF)
    seconds = await load(client, executions, in_flight)
    tasks = executions * TASKS
    now = resource.getrusage(resource.RUSAGE_SELF)
    client_cpu = now.ru_utime + now.ru_stime - own.ru_utime - own.ru_stime
    print(
        f"{label}: {tasks / seconds:,.0f} tasks/s ({executions / seconds:,.0f} executions/s); microseconds of CPU a "
        f"task: daemon {(cpu_seconds(daemon_pid) - before) / tasks * 1e6:.0f}, store process "
        f"{(sum(map(cpu_seconds, store)) - store_before) / tasks * 1e6:.0f}, client {client_cpu / tasks * 1e6:.0f}",
        flush=True,
    )
    return tasks / seconds


async def main(executions: int, in_flight: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_engine(folder) as (engine, local), open_client(local.url, local.token) as client:
            await client.call(RegisterWorkflow(name="bench", definition=encode(definition(TASKS))))
            await load(client, 200, in_flight)
            pid = engine.process.pid
            plain = await measure(client, pid, executions, in_flight, "alone")
            waiting = await client.start(
                {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}}
            )
            command = [sys.executable, "-m", "benchmarks.throughput", "--flood", waiting.workflow_id]
            command += ["--data-dir", str(local.folder)]
            async with running("the flood", command, folder / "flood.log") as flooding:
                with trio.fail_after(20):
                    while len(flooding.log.read_text().split()) < 2:
                        await trio.sleep(0.1)
                beside = await measure(client, pid, executions, in_flight, "beside a flood of Describe")
                rates = [int(text) for text in flooding.log.read_text().split()]
            print(f"the flood: {sum(rates) / len(rates):,.0f} calls/s; ratio {beside / plain:.2f}")
            await engine.stop()


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--flood", metavar="WORKFLOW_ID", help="be the flood (used by the benchmark itself)")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    if given.flood:
        daemon = LocalDaemon(given.data_dir)

        async def be_the_flood() -> None:
            async with open_client(daemon.url, daemon.token) as client:
                await flood(client, given.flood)

        trio.run(be_the_flood)
    else:
        trio.run(main, given.executions, given.in_flight)


if __name__ == "__main__":
    run()
