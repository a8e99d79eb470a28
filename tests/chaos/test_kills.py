"""The order example under `kill -9` of the daemon and of its store process, at random moments.

`make test` kills a few times; `make chaos` at least twenty. The seed is printed, and `--chaos-seed` repeats its choices
(the moments are those of a real machine, so a repeat is close, not equal).
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import trio

from daemon.execution import snapshot
from daemon.execution.evolve import replay
from daemon.settings import StoreSettings
from daemon.stores.open import open_store
from daemon.stores.rows import ExecutionFilter
from enginekit.client import open_client
from enginekit.messages import calls
from enginekit.messages import events as ev
from enginekit.messages.events import decode_event
from examples.orders.stage import Program, open_engine, open_shop, shop_report
from examples.orders.verdict import Ending, Order, faults_found, load_definition, load_orders, order_input

ORDERS, FEW_ORDERS = 200, 30
"""How many orders there are under many kills, and under the few of `make test`."""
AT_ONCE = 60
SLOW = 4.0
"""The shop's delays are this much longer, so that the kills hit work."""

WHOLE_SECONDS = 540.0


async def test_nothing_is_lost_or_done_twice(request, tmp_path, chaos_seed, many_kills):
    kills = request.config.getoption("--kills")
    endings: dict[str, str] = {}
    killed: list[str] = []
    orders = load_orders(ORDERS if many_kills else FEW_ORDERS)
    with trio.fail_after(WHOLE_SECONDS):
        async with open_shop(tmp_path, seed=chaos_seed % 1000, slow=SLOW) as (_, shop):
            await _run(tmp_path, orders, shop, kills, random.Random(chaos_seed), endings, killed)
            report = await shop_report(shop)
    assert len(killed) == kills
    assert {"daemon", "store"} <= set(killed)
    assert faults_found(orders, endings, report) == []
    await _check_store(tmp_path / "data", len(orders))


async def _run(
    folder: Path,
    orders: list[Order],
    shop: str,
    kills: int,
    chance: random.Random,
    endings: dict[str, str],
    killed: list[str],
) -> None:
    """All orders, over as many lives of the daemon as it takes."""
    begun = trio.Event()
    async with trio.open_nursery() as nursery:
        # Both kinds of victim are certain to be hit, in an order that chance decides.
        victims = ["daemon", "store"] + [chance.choice(["daemon", "store"]) for _ in range(kills - 2)]
        chance.shuffle(victims)
        while True:
            async with open_engine(folder) as (engine, local):
                if not begun.is_set():
                    begun.set()

                    async def everything() -> None:
                        async with open_client(local.url, local.token, timeout_seconds=WHOLE_SECONDS) as client:
                            await client.call(calls.RegisterWorkflow(name="order", definition=load_definition()))
                            limit = trio.CapacityLimiter(AT_ONCE)

                            async def one(order: Order) -> None:
                                async with limit:
                                    started = await client.start(
                                        "order", input=order_input(order, shop), workflow_id=order.id
                                    )
                                    closed = await client.wait(started.workflow_id, started.run_id)
                                endings[order.id] = (
                                    Ending.FULFILLED.value
                                    if closed.status.value == "SUCCEEDED"
                                    else closed.error or closed.status.value
                                )

                            async with trio.open_nursery() as lanes:
                                for order in orders:
                                    lanes.start_soon(one, order)

                    nursery.start_soon(everything)
                while victims:
                    await trio.sleep(chance.uniform(0.2, 1.6))
                    victim = victims.pop()
                    killed.append(victim)
                    if victim == "store":
                        await _kill_store(engine)
                    else:
                        engine.process.kill()
                        await engine.process.wait()
                        break
                else:
                    while len(endings) < len(orders):
                        assert engine.process.returncode is None, engine.failure("ended by itself")
                        await trio.sleep(0.1)
                    await engine.stop()
                    return


async def _kill_store(engine: Program) -> None:
    """The daemon's only child, as soon as there is one."""
    while not _kill_children(engine.process.pid):
        assert engine.process.returncode is None, engine.failure("ended by itself")
        await trio.sleep(0.02)


def _kill_children(pid: int) -> int:
    """How many there were."""
    killed = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
                killed += 1
    return killed


async def _check_store(folder: Path, executions: int) -> None:
    """Every execution is closed, its events have no gap, and they replay to what the store says of it."""
    store = open_store(StoreSettings(), folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        rows = await store.list_executions(ExecutionFilter(tenant="default", limit=executions + 1))
        assert len(rows) == executions
        for row in rows:
            run_id, last = row.run.run_id, row.last_event_id
            stored = await store.events("default", run_id, 0, last + 10, 2**30)
            events = [(decode_event(data), len(data)) for data in stored]
            assert [event.id for event, _ in events] == list(range(1, last + 1))
            state = replay(events)
            assert state.status is row.status
            assert row.status.closed
            (loaded,) = await store.load_runs([row.run], snapshot.FINGERPRINT, 1)
            assert loaded is not None
            if loaded.snapshot is not None:
                assert snapshot.dump(replay(events[: loaded.snapshot.event_id])) == loaded.snapshot.data
            _check_outcomes([event for event, _ in events])
        assert await store.queue_backlogs() == []
        assert await store.effects(1) == []
        nursery.cancel_scope.cancel()


def _check_outcomes(events: list[ev.AnyEvent]) -> None:
    """Every task that was scheduled ended once."""
    ends = (ev.TaskCompleted, ev.TaskFailed, ev.TaskTimedOut, ev.TaskCanceled)
    scheduled = [event.id for event in events if isinstance(event, ev.TaskScheduled)]
    ended = [event.task for event in events if isinstance(event, ends)]
    assert sorted(ended) == scheduled
