"""A distributed Map under `kill -9` of the daemon: every item is run as one execution, none that ended is run again."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import trio

from enginekit.client import open_client
from enginekit.messages import calls
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus
from examples.orders.stage import open_engine

ITEMS, FEW_ITEMS = 3_000, 1_000
KILLS, FEW_KILLS = 5, 2
"""The fewer: in `make test`."""
WHOLE_SECONDS = 540.0

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
                "ProcessorConfig": {"Mode": "DISTRIBUTED"},
                "StartAt": "Echo",
                "States": {
                    "Echo": {"Type": "Task", "Resource": "echo", "Next": "Rest"},
                    "Rest": {"Type": "Wait", "Seconds": 1, "End": True},
                },
            },
            "MaxConcurrency": 200,
            "ResultWriter": {
                "Resource": "file:write",
                "Parameters": {"Path": "out"},
                "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSON"},
            },
            "End": True,
        }
    },
}


def count(folder: Path, parent: str) -> tuple[int, int, int]:
    """Runs of items in the store, how many names they have, and how many have succeeded."""
    store = sqlite3.connect(folder / "data" / "engine.db")
    found = store.execute(
        "SELECT count(*), count(DISTINCT workflow_id), total(status = 'SUCCEEDED') FROM readable_executions "
        "WHERE parent = ?",
        (parent,),
    ).fetchone()
    store.close()
    return found


async def middle(folder: Path, parent: str, ended: int) -> None:
    """Returns when so many of its items have ended."""
    while (count(folder, parent)[2] or 0) < ended:  # noqa: ASYNC110
        await trio.sleep(0.05)  # another process, and no clock of ours in it


async def test_every_item_is_run_once_whatever_is_killed(tmp_path, many_kills):
    items, kills = (ITEMS, KILLS) if many_kills else (FEW_ITEMS, FEW_KILLS)
    files = tmp_path / "files"
    files.mkdir()
    (files / "items.jsonl").write_text("".join(f'{{"n": {number}}}\n' for number in range(items)))
    settings = f'[files]\nfolder = "{files}"\n'
    chance = random.Random(5)
    started: calls.StartWorkflowResult | None = None
    ended: list[int] = []
    with trio.fail_after(WHOLE_SECONDS):
        for kill in range(kills + 1):
            async with open_engine(tmp_path, settings) as (engine, local):
                async with open_client(local.url, local.token) as client:
                    if started is None:
                        started = await client.start(SPREAD, workflow_id="spread", request_id="one")
                    if kill < kills:
                        if kill == 0:
                            await trio.sleep(chance.random() / 2)  # while it is being spread, perhaps
                        else:
                            await middle(tmp_path, started.run_id, int(items * (kill - chance.random()) / kills))
                        engine.process.kill()
                        await engine.process.wait()
                        ended.append(count(tmp_path, started.run_id)[2] or 0)
                        continue
                    closed = await client.wait("spread", started.run_id)
                await engine.stop()
    assert closed.status is ExecutionStatus.SUCCEEDED, closed.cause
    manifest = next((files / "out").rglob("manifest.json"))
    (written,) = json.loads(manifest.read_text())["ResultFiles"]["SUCCEEDED"]
    assert json.loads((files / written["Key"]).read_text()) == [{"n": number} for number in range(items)]
    assert count(tmp_path, started.run_id) == (items, items, items)
    assert any(0 < done < items for done in ended), "no kill came in the middle"
    with sqlite3.connect(tmp_path / "data" / "engine.db") as store:
        for table in ("open_runs", "tasks", "effects", "map_results"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    store.close()
