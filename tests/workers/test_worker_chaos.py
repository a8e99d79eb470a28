"""Workers and the daemon killed, paused and drained at random under work that counts its effects.

`make test` does so a few times, `make chaos` at least twenty. The seed is printed, and `--chaos-seed` repeats its
choices (the moments are those of a real machine, so a repeat is close, not equal).
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from worker_site import Site, logged, open_site

from enginekit.messages import events as ev
from enginekit.messages.json import JSON
from examples.orders.stage import Program, open_engine

CONFIG = "\n[tasks]\nlease_seconds = 1.0\nreturns = 100\n"
EXECUTIONS, FEW_EXECUTIONS = 200, 20
WORKERS = 3
ITEMS = 3
EFFECTS = 2 + ITEMS
"""Of one execution."""
WHOLE_SECONDS = 540.0

EACH = ["kill", "pause", "daemon", "drain"]
OFTEN = [*EACH, "kill", "pause"]

ENDS = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCanceled)

STEP: dict[str, JSON] = {"Type": "Task", "Resource": "activity:step"}
DEFINITION: dict[str, JSON] = {
    "StartAt": "First",
    "States": {
        "First": {**STEP, "Next": "Each"},
        "Each": {
            "Type": "Map",
            "ItemsPath": "$.items",
            "ItemProcessor": {
                "StartAt": "Item",
                "States": {"Item": {"Type": "Task", "Resource": "activity:step:sync", "End": True}},
            },
            "ResultPath": "$.done",
            "Next": "Last",
        },
        "Last": {**STEP, "End": True},
    },
}


class Fate:
    """What befalls whom, by chance."""

    def __init__(self, site: Site, stack: AsyncExitStack, chance: random.Random) -> None:
        self.site = site
        self.stack = stack
        self.chance = chance
        self.workers: list[Program] = []
        self.struck: Counter[str] = Counter()

    async def hire(self) -> None:
        options = ("--concurrency", "6", "--queue", "step", "--queue", "step:sync", "--drain-seconds", "0.2")
        self.workers.append(await self.stack.enter_async_context(self.site.worker(*options)))

    async def strike(self, what: str) -> None:
        self.struck[what] += 1
        if what == "daemon":
            self.site.engine.process.kill()
            await self.site.engine.process.wait()
            opened = open_engine(self.site.folder, CONFIG)
            self.site.engine, _ = await self.stack.enter_async_context(opened)
            return
        worker = self.workers.pop(self.chance.randrange(len(self.workers)))
        if what == "pause":
            worker.process.send_signal(signal.SIGSTOP)
            await trio.sleep(self.chance.uniform(0.5, 2.5))
            worker.process.send_signal(signal.SIGCONT)
            self.workers.append(worker)
            return
        if what == "kill":
            worker.process.kill()
            await worker.process.wait()
        else:
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.process.wait() == 0
            await logged(worker, "stopped")
        await self.hire()


async def test_every_outcome_is_recorded_once(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    chaos_seed: int,
    many_kills: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kills = request.config.getoption("--kills")
    chance = random.Random(chaos_seed)
    executions = EXECUTIONS if many_kills else FEW_EXECUTIONS
    outputs: dict[str, JSON] = {}
    inputs: dict[str, JSON] = {
        f"w{number}": {
            "n": number,
            "seconds": chance.uniform(0.05, 0.3),
            "items": [{"n": index, "seconds": chance.uniform(0.05, 0.3)} for index in range(ITEMS)],
        }
        for number in range(executions)
    }
    with trio.fail_after(WHOLE_SECONDS):
        async with open_site(tmp_path, CONFIG) as site, AsyncExitStack() as stack:
            fate = Fate(site, stack, chance)
            for _ in range(WORKERS):
                await fate.hire()
            limit = trio.CapacityLimiter(15)

            async def one(workflow_id: str) -> None:
                async with limit:
                    started = await site.client.start(
                        DEFINITION, input=inputs[workflow_id], workflow_id=workflow_id, request_id=workflow_id
                    )
                    outputs[workflow_id] = await site.client.result(workflow_id, started.run_id)

            async with trio.open_nursery() as nursery:
                for workflow_id in inputs:
                    nursery.start_soon(one, workflow_id)
                strikes = ["kill", "pause", "daemon", "drain"]
                strikes += [
                    chance.choice(["kill", "kill", "pause", "pause", "daemon", "drain"]) for _ in range(kills - 4)
                ]
                for what in strikes:
                    await trio.sleep(chance.uniform(0.1, 1.0))
                    await fate.strike(what)
            returned = await check_histories(site, list(inputs))
    effects = list((tmp_path / "effects").iterdir())
    assert len(effects) == executions * EFFECTS
    assert outputs == {
        name: {**value, "done": value["items"]} for name, value in inputs.items() if isinstance(value, dict)
    }
    begun = len(site.ledger("begun"))
    assert begun >= len(effects)
    with capsys.disabled():
        struck = ", ".join(f"{count} × {what}" for what, count in sorted(fate.struck.items()))
        print(f"({struck}): {len(effects)} effects of {begun} attempts begun, {returned} returned ", end="")


async def check_histories(site: Site, names: list[str]) -> int:
    """No gaps, and every task ended once. How many were returned."""
    returned = 0
    for name in names:
        events = [event async for event in site.client.history(name)]
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        scheduled = [event.id for event in events if isinstance(event, ev.TaskScheduled)]
        completed = [event.task for event in events if isinstance(event, ev.TaskCompleted)]
        assert sorted(event.task for event in events if isinstance(event, ENDS)) == scheduled
        assert len(completed) == EFFECTS, "nothing failed, and nothing was done by halves"
        returned += sum(isinstance(event, ev.TaskReturned) for event in events)
    return returned
