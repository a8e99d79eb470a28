"""A distributed Map over a file of 100,000 lines, with its results written to files: `make distributed`.

Prints how many items a second it runs and how much memory the daemon takes meanwhile over that of an empty one, next to
the same number of executions started one by one. Prints figures; asserts nothing but that every item was run once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import trio

from benchmarks.idle import everybody, resident_bytes
from enginekit.client import open_client
from enginekit.messages.json import JSON
from examples.orders.stage import open_engine

SPREAD: dict[str, JSON] = {
    "StartAt": "Each",
    "States": {
        "Each": {
            "Type": "Map",
            "ItemReader": {
                "Resource": "file:read",
                "Parameters": {"Path": "items.jsonl"},
                "ReaderConfig": {"InputType": "JSONL"},
            },
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Echo",
                "States": {"Echo": {"Type": "Task", "Resource": "echo", "End": True}},
            },
            "ResultWriter": {
                "Resource": "file:write",
                "Parameters": {"Path": "out"},
                "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSONL"},
            },
            "End": True,
        }
    },
}


async def watch(pid: int, most: list[int]) -> None:
    while True:
        most[0] = max(most[0], sum(map(resident_bytes, everybody(pid))))
        await trio.sleep(0.25)


async def main(items: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        lines = "".join(json.dumps({"order": number, "text": "x" * 100}) + "\n" for number in range(items))
        (folder / "files" / "items.jsonl").write_text(lines)
        async with open_engine(folder, f'[files]\nfolder = "{folder / "files"}"\n') as (engine, local):
            pid = engine.process.pid
            async with open_client(local.url, local.token) as client, trio.open_nursery() as nursery:
                await trio.sleep(1)
                empty = sum(map(resident_bytes, everybody(pid)))
                most = [0]
                nursery.start_soon(watch, pid, most)
                begun = time.monotonic()
                started = await client.start(SPREAD)
                result = await client.result(started.workflow_id, started.run_id)
                took = time.monotonic() - begun
                nursery.cancel_scope.cancel()
            assert isinstance(result, dict)
            manifest = next((folder / "files" / "out").rglob("manifest.json"))
            (written,) = json.loads(manifest.read_text())["ResultFiles"]["SUCCEEDED"]
            orders = [json.loads(line)["order"] for line in (folder / "files" / written["Key"]).open()]
            assert orders == list(range(items)), "an item is missing, doubled or out of order"
            print(
                f"{items:,} items in {took:.1f} s: {items / took:,.0f} a second; at most "
                f"{(most[0] - empty) / 2**20:.1f} MiB over the {empty / 2**20:.1f} MiB of an empty daemon; store "
                f"{(folder / 'data' / 'engine.db').stat().st_size / 2**20:.0f} MiB"
            )
            await engine.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    trio.run(main, parser.parse_args().items)
