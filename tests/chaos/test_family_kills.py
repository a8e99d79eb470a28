"""Parents, children, signals and dead letters under `kill -9` of the daemon: one child a task, every end heard once.
What was acknowledged is there after the kill; letters are of what failed and of nothing else."""

from __future__ import annotations

import random
from collections import Counter

import trio

from enginekit.client import Client, open_client
from enginekit.messages import calls, dead_letters
from enginekit.messages import events as ev
from enginekit.messages.events import decode_event
from enginekit.messages.json import JSON, decode, encode
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from examples.orders.stage import open_engine

FAMILIES, FEW_FAMILIES = 40, 15
KILLS, FEW_KILLS = 5, 2
"""The fewer: in `make test`."""
ITEMS = 8
SIGNALS = 3
WHOLE_SECONDS = 540.0

CHILD: JSON = {
    "StartAt": "Rest",
    "States": {
        "Rest": {"Type": "Wait", "Seconds": 0, "Next": "Do"},
        "Do": {"Type": "Task", "Resource": "echo", "Parameters": {"v.$": "$.value"}, "End": True},
    },
}
TAKING: dict[str, JSON] = {
    f"Take{number}": {
        "Type": "Task",
        "Resource": "signal:go",
        "ResultPath": f"$.taken{number}",
        **({"Next": f"Take{number + 1}"} if number + 1 < SIGNALS else {"End": True}),
    }
    for number in range(SIGNALS)
}
EACH: JSON = {
    "Type": "Map",
    "ItemsPath": "$.items",
    "ItemProcessor": {
        "StartAt": "Call",
        "States": {"Call": {"Type": "Task", "Resource": "workflow:child", "End": True}},
    },
    "End": True,
}
FAMILY: JSON = {
    "StartAt": "Both",
    "States": {
        "Both": {
            "Type": "Parallel",
            "Branches": [{"StartAt": "Take0", "States": TAKING}, {"StartAt": "Each", "States": {"Each": EACH}}],
            "End": True,
        }
    },
}
BAD = ITEMS // 2
"""This item's child fails for good, until its parent is redriven with another input for it."""


def items() -> list[JSON]:
    return [{} if number == BAD else {"value": number} for number in range(ITEMS)]


class Ledger:
    """What the daemon has acknowledged."""

    def __init__(self) -> None:
        self.runs: dict[str, str] = {}
        self.signals: set[tuple[str, str]] = set()
        self.redriven: set[tuple[str, str]] = set()


async def one_life(client: Client, ledger: Ledger, families: int) -> None:
    """Ask for all of it, what was acknowledged before and what was not; until everything has succeeded."""
    await client.call(calls.RegisterWorkflow(name="child", definition=encode(CHILD)))
    async with trio.open_nursery() as nursery:
        for number in range(families):
            nursery.start_soon(one_family, client, ledger, f"family-{number}")


async def one_family(client: Client, ledger: Ledger, name: str) -> None:
    started = await client.start(FAMILY, input={"items": items()}, workflow_id=name, request_id=f"start-{name}")
    assert ledger.runs.setdefault(name, started.run_id) == started.run_id
    for number in range(SIGNALS):
        request = f"signal-{number}"
        while (name, request) not in ledger.signals:
            try:
                call = calls.SignalWorkflow(workflow_id=name, name="go", input=encode(number), request_id=request)
                await client.call(call)
                ledger.signals.add((name, request))
            except Refused as refused:
                assert refused.status is ErrorStatus.FAILED_PRECONDITION  # noqa: PT017
                await redrive(client, ledger, name, started.run_id)
    while (await client.wait(name, started.run_id)).status is not ExecutionStatus.SUCCEEDED:
        await redrive(client, ledger, name, started.run_id)


async def redrive(client: Client, ledger: Ledger, name: str, run_id: str) -> None:
    found = (await client.call(dead_letters.ListDeadLetters(workflow_id=name))).dead_letters
    for letter in found:
        request = f"redrive-{letter.id}"
        call = dead_letters.RedriveDeadLetter(id=letter.id, input=encode({"value": BAD}), request_id=request)
        await client.call(call)
        ledger.redriven.add((run_id, request))


async def history(client: Client, name: str, run_id: str) -> list[ev.AnyEvent]:
    found: list[ev.AnyEvent] = []
    while True:
        page = await client.call(calls.GetHistory(workflow_id=name, run_id=run_id, after_id=len(found)))
        found += [decode_event(bytes(event)) for event in page.events]
        if not page.events:
            return found


async def test_families_whose_daemon_is_killed(tmp_path, chaos_seed, many_kills):
    families, kills = (FAMILIES, KILLS) if many_kills else (FEW_FAMILIES, FEW_KILLS)
    chance, ledger, middle = random.Random(chaos_seed), Ledger(), 0
    with trio.fail_after(WHOLE_SECONDS):
        for kill in range(kills + 1):
            async with open_engine(tmp_path) as (engine, local):
                async with open_client(local.url, local.token) as client:
                    if kill < kills:
                        with trio.move_on_after(chance.uniform(0.1, 0.4)) as life:
                            await one_life(client, ledger, families)
                        middle += life.cancelled_caught
                        engine.process.kill()
                        await engine.process.wait()
                        continue
                    await one_life(client, ledger, families)
                    await settled(client, ledger)
                    await check(client, ledger, families)
                await engine.stop()
    assert middle, "no kill came in the middle"


async def settled(client: Client, ledger: Ledger) -> None:
    """Returns when no child runs any more, also of those that nobody waits for."""
    for run_id in ledger.runs.values():
        query = calls.ListWorkflows(parent=run_id, status=ExecutionStatus.RUNNING)
        while (await client.call(query)).executions:  # noqa: ASYNC110 - another process, and no clock of ours in it
            await trio.sleep(0.05)


async def check(client: Client, ledger: Ledger, families: int) -> None:
    failed: set[str] = set()
    for name, run_id in ledger.runs.items():
        closed = await client.wait(name, run_id)
        taken, each = decode(closed.output)
        assert [taken[f"taken{number}"] for number in range(SIGNALS)] == list(range(SIGNALS))
        assert each == [{"v": number} for number in range(ITEMS)]
        events = await history(client, name, run_id)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        redriven = {event.request_id for event in events if isinstance(event, ev.WorkflowRedriven)}
        assert redriven >= {request for run, request in ledger.redriven if run == run_id}
        heard = Counter(event.task for event in events if isinstance(event, ev.ChildWorkflowClosed))
        assert set(heard.values()) == {1}
        begun = {event.run_id: event.task for event in events if isinstance(event, ev.ChildWorkflowStarted)}
        assert len(set(begun.values())) == len(begun)
        listed = (await client.call(calls.ListWorkflows(parent=run_id, page_size=1000))).executions
        assert set(begun) <= {child.run_id for child in listed}
        assert len({child.workflow_id for child in listed}) == len(listed)
        assert all(child.status.closed for child in listed)
        failed |= {child.run_id for child in listed if child.status is ExecutionStatus.FAILED}
    letters = (await client.call(dead_letters.ListDeadLetters(page_size=1000))).dead_letters
    assert sorted(letter.run_id for letter in letters) == sorted(failed)
    assert len(failed) >= families
