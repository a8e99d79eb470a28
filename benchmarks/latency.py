"""Does a run that never rests hold up the others? `make latency`.

The time from start to end of one-task executions, eight at once: alone; beside four executions of a Pass state that
points at itself; beside four Maps over 10,000 items. Prints medians, 99th percentiles and ratios; asserts nothing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import trio

from enginekit.client import Client, open_client
from enginekit.messages.calls import RegisterWorkflow, TerminateWorkflow
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import Refused
from examples.orders.stage import open_engine

LANES = 8
EXECUTIONS = 400
NEIGHBOURS = 4

ECHO: dict[str, JSON] = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}
LOOP: dict[str, JSON] = {"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "A"}}}
WIDE: dict[str, JSON] = {
    "StartAt": "M",
    "States": {
        "M": {
            "Type": "Map",
            "ItemProcessor": {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}},
            "End": True,
        }
    },
}


async def latencies(client: Client) -> list[float]:
    """Milliseconds of each execution, sorted."""
    found: list[float] = []
    left = iter(range(EXECUTIONS))

    async def lane() -> None:
        for number in left:
            begun = time.perf_counter()
            started = await client.start("echo", input=number)
            await client.wait(started.workflow_id, started.run_id)
            found.append((time.perf_counter() - begun) * 1000)

    async with trio.open_nursery() as nursery:
        for _ in range(LANES):
            nursery.start_soon(lane)
    return sorted(found)


async def beside(client: Client, name: str, data: JSON) -> list[float]:
    """The same while neighbours of that workflow run, one started again as soon as it ends."""
    async with trio.open_nursery() as nursery:
        names: list[str] = []

        async def neighbour() -> None:
            while True:
                started = await client.start(name, input=data)
                names.append(started.workflow_id)
                await client.wait(started.workflow_id, started.run_id)

        for _ in range(NEIGHBOURS):
            nursery.start_soon(neighbour)
        await trio.sleep(0.5)
        found = await latencies(client)
        nursery.cancel_scope.cancel()
    for workflow_id in names:
        try:
            await client.call(TerminateWorkflow(workflow_id=workflow_id))
        except Refused:
            continue  # it has ended by itself
    return found


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_engine(Path(folder)) as (engine, local), open_client(local.url, local.token) as client:
            for name, definition in (("echo", ECHO), ("loop", LOOP), ("wide", WIDE)):
                await client.call(RegisterWorkflow(name=name, definition=encode(definition)))
            await latencies(client)
            rows = [
                ("alone", await latencies(client)),
                (f"beside {NEIGHBOURS} Pass loops", await beside(client, "loop", {})),
                (f"beside {NEIGHBOURS} Maps over 10,000 items", await beside(client, "wide", list(range(10_000)))),
            ]
            await engine.stop()
    middle, high = statistics.median(rows[0][1]), rows[0][1][int(EXECUTIONS * 0.99)]
    for label, found in rows:
        median, percentile = statistics.median(found), found[int(EXECUTIONS * 0.99)]
        print(
            f"{label}: median {median:.1f} ms (x {median / middle:.2f}), 99th percentile {percentile:.1f} ms "
            f"(x {percentile / high:.2f}), longest {found[-1]:.1f} ms"
        )


if __name__ == "__main__":
    trio.run(main)
