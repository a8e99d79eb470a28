"""What waiting costs: `make idle`.

10,000 executions in a Wait of one hour: the daemon's processor time over 30 seconds, and its memory over that of an
empty daemon (its store process included in both). Prints figures; asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import trio

from benchmarks.throughput import children, cpu_seconds
from enginekit.client import Client, open_client
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import JSON, encode
from examples.orders.stage import open_engine

WAITING: dict[str, JSON] = {
    "StartAt": "Wait",
    "States": {"Wait": {"Type": "Wait", "Seconds": 3600, "Next": "Done"}, "Done": {"Type": "Succeed"}},
}
IN_FLIGHT = 64


def resident_bytes(pid: int) -> int:
    """Resident memory that is the process's own (shared libraries' pages left out), from the kernel's accounting."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def everybody(pid: int) -> list[int]:
    return [pid, *children(pid)]


async def fill(client: Client, executions: int) -> None:
    left = iter(range(executions))

    async def lane() -> None:
        for number in left:
            await client.start("waiting", input={"order": f"order-{number}", "text": "x" * 100})

    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(lane)


async def main(executions: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with open_engine(Path(name)) as (engine, local):
            pid = engine.process.pid
            async with open_client(local.url, local.token) as client:
                await client.call(RegisterWorkflow(name="waiting", definition=encode(WAITING)))
                await client.start("waiting")
                await trio.sleep(2)
                empty = sum(map(resident_bytes, everybody(pid)))
                await fill(client, executions)
            await trio.sleep(5)
            before = sum(map(cpu_seconds, everybody(pid)))
            await trio.sleep(seconds)
            used = sum(map(cpu_seconds, everybody(pid))) - before
            full = sum(map(resident_bytes, everybody(pid)))
            print(
                f"{executions:,} executions waiting: {used / seconds:.2%} of a core over {seconds:g} s; "
                f"{(full - empty) / 2**20:.1f} MiB over the {empty / 2**20:.1f} MiB of an empty daemon"
            )
            await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    trio.run(main, given.executions, given.seconds)
