"""What must be so of a store, whatever happened to those who wrote it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import trio

from daemon.execution.evolve import replay
from daemon.settings import StoreSettings
from daemon.stores.open import open_store
from daemon.stores.rows import ExecutionFilter
from enginekit.messages.events import AnyEvent, decode_event

TENANT = "default"


async def histories(url: str, folder: Path, shards: int) -> dict[str, list[AnyEvent]]:
    """All executions' events, by workflow_id. Asserts that each has closed and that its history is gapless, ends once,
    and replays to its row, and that nothing is left to be delivered."""
    store = open_store(StoreSettings(url=url, shards=shards), folder)
    found: dict[str, list[AnyEvent]] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        before: str | None = None
        while page := await store.list_executions(ExecutionFilter(tenant=TENANT, limit=100, before_run_id=before)):
            before = page[-1].run.run_id
            for row in page:
                data = await store.events(TENANT, row.run.run_id, 0, 100_000, 1 << 30)
                events = [decode_event(event) for event in data]
                assert [event.id for event in events] == list(range(1, len(events) + 1))
                run = replay([(event, len(raw)) for event, raw in zip(events, data, strict=True)])
                assert run.status.closed, row.run.workflow_id
                assert (run.status, run.last_event_id) == (row.status, row.last_event_id)
                assert row.run.workflow_id not in found, "one execution a name"
                found[row.run.workflow_id] = events
        assert await store.effects(10) == []
        nursery.cancel_scope.cancel()
    return found


def outcomes(events: list[AnyEvent]) -> Counter[int]:
    """How often each task's outcome was recorded, by the id of its TaskScheduled."""
    ends = ("TaskCompleted", "TaskFailed", "TaskTimedOut", "TaskCanceled")
    return Counter(event.task for event in events if type(event).__name__ in ends)
