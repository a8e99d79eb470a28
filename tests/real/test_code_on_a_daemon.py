"""Code in executions of a real daemon: computed, canceled, and gone with a daemon that is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

FOREVER = {"python": "print('begun')\nwhile True: pass", "javascript": "print('begun'); for (;;);"}
SUM = {"python": "print('summing')\nsum(input)", "javascript": "print('summing'); input.reduce((a, b) => a + b)"}
LANGUAGES = ("python", "javascript")


def definition(language: str, source: str) -> dict:
    parameters = {"Source": source, "Input.$": "$", "TimeoutMilliseconds": 60_000}
    task = {"Type": "Task", "Resource": f"code:{language}", "Parameters": parameters, "End": True}
    return {"StartAt": "Compute", "States": {"Compute": task}}


def hosts(pid: int) -> list[int]:
    """The sandbox's processes that the daemon has started, and what is under them."""
    children = [child for child in children_of(pid) if b"daemon.nodes.sandbox.host" in command_of(child)]
    return children + [grandchild for child in children for grandchild in children_of(child)]


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    try:
        return [int(child) for task in os.listdir(tasks) for child in (tasks / task / "children").read_text().split()]
    except OSError:
        return []


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 - another process, whose end the kernel tells its parent only
            await trio.sleep(0.05)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_code_computes_and_its_log_is_in_the_history(real, language: str) -> None:
    async with real.connected() as wire:
        run = await wire.result("StartWorkflow", definition=definition(language, SUM[language]), input=[1, 2, 3])
        closed = await wire.result("WaitWorkflow", workflow_id=run["workflow_id"], wait_seconds=60)
        assert (closed["status"], closed["output"]) == ("SUCCEEDED", 6)
        history = await wire.result("GetHistory", workflow_id=run["workflow_id"])
        assert [event["log"] for event in history["events"] if event["type"] == "TaskCompleted"] == ["summing\n"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_canceling_an_execution_kills_its_code(real, language: str) -> None:
    async with real.connected() as wire:
        before = hosts(real.process.pid)
        run = await wire.result("StartWorkflow", definition=definition(language, FOREVER[language]))
        others = await wire.result("StartWorkflow", definition=definition(language, SUM[language]), input=[1, 2])
        closed = await wire.result("WaitWorkflow", workflow_id=others["workflow_id"], wait_seconds=60)
        assert closed["output"] == 3
        during = hosts(real.process.pid)
        await wire.result("CancelWorkflow", workflow_id=run["workflow_id"])
        closed = await wire.result("WaitWorkflow", workflow_id=run["workflow_id"], wait_seconds=60)
        assert closed["status"] == "CANCELED"
        await until(lambda: bool({*before, *during} - {*hosts(real.process.pid)}))
        again = await wire.result("StartWorkflow", definition=definition(language, SUM[language]), input=[4])
        closed = await wire.result("WaitWorkflow", workflow_id=again["workflow_id"], wait_seconds=60)
        assert closed["output"] == 4


async def test_code_ends_with_a_daemon_that_is_killed(start_daemon) -> None:
    daemon = start_daemon("")
    async with daemon.connected() as wire:
        for language in LANGUAGES:
            await wire.result("StartWorkflow", definition=definition(language, FOREVER[language]))
        await until(lambda: len(hosts(daemon.process.pid)) == 3)
        pids = hosts(daemon.process.pid)
        daemon.process.kill()
    await until(lambda: not any(command_of(pid) for pid in pids))
