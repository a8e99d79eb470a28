"""Schedules that fire every second under `kill -9` of the daemon: each firing starts one execution, whatever dies."""

from __future__ import annotations

import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio

from enginekit.client import Client, open_client
from enginekit.messages import calls, schedules
from enginekit.messages.json import JSON, encode
from enginekit.messages.schedules import Overlap
from examples.orders.stage import open_engine

KILLS, FEW_KILLS = 6, 2
"""The fewer: in `make test`."""
WHOLE_SECONDS = 540.0
BRIEF: dict[str, JSON] = {
    "StartAt": "Echo",
    "States": {
        "Echo": {"Type": "Task", "Resource": "echo", "Next": "Rest"},
        "Rest": {"Type": "Wait", "Seconds": 0, "End": True},
    },
}
LONG: dict[str, JSON] = {"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": 1, "End": True}}}


def started(folder: Path, schedule_id: str) -> list[datetime]:
    """The nominal times of what it has started, in order, as their names say."""
    store = sqlite3.connect(folder / "data" / "engine.db")
    rows = store.execute(
        "SELECT workflow_id FROM readable_executions WHERE workflow_id LIKE ? ORDER BY run_id", (f"{schedule_id}-%",)
    ).fetchall()
    store.close()
    return [
        datetime.strptime(name[len(schedule_id) + 1 :], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) for (name,) in rows
    ]


async def described(client: Client, folder: Path, schedule_id: str) -> schedules.DescribeScheduleResult:
    """Once what was being started when it was paused is counted, too."""
    while True:
        seen = await client.call(schedules.DescribeSchedule(schedule_id=schedule_id))
        if seen.started == len(started(folder, schedule_id)):
            return seen
        await trio.sleep(0.05)


async def test_every_firing_starts_one_execution_whatever_is_killed(tmp_path: Path, many_kills: bool) -> None:
    kills = KILLS if many_kills else FEW_KILLS
    chance = random.Random(3)
    with trio.fail_after(WHOLE_SECONDS):
        for kill in range(kills + 1):
            async with open_engine(tmp_path) as (engine, local):
                async with open_client(local.url, local.token) as client:
                    if kill == 0:
                        for name, definition in (("brief", BRIEF), ("long", LONG)):
                            await client.call(calls.RegisterWorkflow(name=name, definition=encode(definition)))
                        for name, overlap in (("every", Overlap.ALLOW), ("one", Overlap.BUFFER_ONE)):
                            await client.call(
                                schedules.CreateSchedule(
                                    schedule_id=name,
                                    cron="* * * * * *",
                                    workflow="brief" if name == "every" else "long",
                                    overlap=overlap,
                                )
                            )
                    if kill < kills:
                        await trio.sleep(1.5 + chance.random())
                        engine.process.kill()
                        await engine.process.wait()
                        continue
                    await trio.sleep(2.5)
                    for name in ("every", "one"):
                        await client.call(schedules.PauseSchedule(schedule_id=name))
                    paused = datetime.now(UTC)
                    every, one = [await described(client, tmp_path, name) for name in ("every", "one")]
                await engine.stop()
    times = started(tmp_path, "every")
    assert len(times) >= kills * 2
    assert times == [times[0] + timedelta(seconds=number) for number in range(len(times))], "none lost, none doubled"
    assert every.started == len(times)
    assert (every.failed, every.missed, every.skipped) == (0, 0, 0)
    times = started(tmp_path, "one")
    assert times == sorted(set(times))
    assert one.started == len(times)
    told = one.started + one.skipped
    assert told >= (times[-1] - times[0]).total_seconds() + 1, "every second is started, skipped or waits"
    assert told <= (paused - times[0]).total_seconds() + 1, "and none of them twice"
