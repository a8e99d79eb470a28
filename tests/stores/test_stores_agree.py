"""Whatever is written, the stores say and refuse the same: each of the others what the memory store does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_builders import NOW, QUEUE, effect, new, numbered, queued, schedule

from daemon.stores.driver import Driver, Reader
from daemon.stores.interface import BatchRefused, Fenced
from daemon.stores.memory import MemoryStore
from daemon.stores.postgres.database import PostgresDriver
from daemon.stores.rows import (
    Batch,
    Closing,
    DefinitionWrite,
    Effect,
    Execution,
    ExecutionFilter,
    LetterFilter,
    LetterRow,
    Purge,
    RunWrite,
    ScheduleWrite,
    Snapshot,
    StoredEffect,
    TaskCursor,
)
from daemon.stores.sqlite.database import open_driver
from daemon.stores.sqlite.reader import SqliteReader
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, RunRef
from enginekit.messages.status import ExecutionStatus
from tests.hypothesis_profiles import examples

OTHER_QUEUE = QueueKey("acme", TaskKind.ACTIVITY, "pack")
UUIDS = [f"01a21ef3-0dbe-7{number:03d}-a46d-d6122265b1f5" for number in range(6)]
RUNS = [
    *(RunRef("acme", f"order-{number % 3}", UUIDS[number]) for number in range(4)),
    RunRef("acme", UUIDS[4], UUIDS[4]),
    RunRef("acme", UUIDS[4], UUIDS[5]),
]
"""One of them is named by its own run_id, and another one, too."""
EVENT_IDS = st.integers(1, 12)
IDS = st.lists(EVENT_IDS, max_size=2)


class Step:
    """A run's share of a batch. Whether it starts the run, and its numbering, are decided when it is played: `wrong`
    decides against what would be right."""

    def __init__(self, write: RunWrite, count: int, wrong: str | None) -> None:
        self.write = write
        self.count = count
        self.wrong = wrong

    def __repr__(self) -> str:
        return f"Step({self.write!r}, count={self.count}, wrong={self.wrong})"

    def play(self, known: Execution | None) -> RunWrite:
        starts = (known is None) is not (self.wrong == "start")
        last = 0 if known is None or starts else known.last_event_id
        count = max(self.count, 1) if starts or self.write.closing is not None else self.count
        write = self.write
        reopened = self.wrong == "reopen"
        if known is not None and known.status.closed and self.wrong is None:
            reopened = self.count > 1
            if not reopened:
                count = 0
                write = msgspec.structs.replace(write, closing=None)
        first = max(last + 1 + {"gap": 1, "repeat": -1}.get(self.wrong or "", 0), 1)
        return msgspec.structs.replace(
            write,
            first_event_id=first,
            events=numbered(write.run, first, count),
            created=write.created if starts else None,
            reopened=reopened,
            epoch=2 if self.wrong == "epoch" else 1,
        )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    run = draw(st.sampled_from(RUNS))
    write = RunWrite(
        shard=draw(st.integers(0, 1)),
        epoch=1,
        run=run,
        first_event_id=1,
        events=[],
        wake_at=draw(st.none() | st.integers(NOW, NOW + 4)),
        created=draw(created()),
        closing=draw(closings()) if draw(st.integers(0, 4)) == 4 else None,
        snapshot=draw(snapshots()) if draw(st.integers(0, 4)) == 4 else None,
        tasks_added=draw(st.lists(tasks(run), max_size=2, unique_by=lambda task: task.task.event_id)),
        tasks_started=draw(IDS),
        tasks_returned=draw(IDS),
        tasks_removed=draw(IDS),
        effects_added=draw(st.lists(effects(), max_size=1)),
        effects_removed=draw(IDS),
    )
    if draw(st.integers(0, 3)) == 3:
        letter = LetterRow(event_id=draw(EVENT_IDS), workflow="order", node="Ship", error="Boom", at=NOW, data=b"{}")
        write = msgspec.structs.replace(write, letters_removed=[letter.event_id], letters_added=[letter])
    wrong = draw(st.sampled_from([None] * 25 + ["start", "gap", "repeat", "epoch", "reopen"]))
    return Step(write, draw(st.sampled_from([0, 1, 1, 2, 4])), wrong)


def created() -> st.SearchStrategy[object]:
    return st.builds(
        lambda workflow, labels, request, started, parent: new(
            workflow=workflow, labels=labels, request_id=request, started_at=started, parent=parent
        ),
        st.sampled_from(["order", "refund", None]),
        st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), max_size=2),
        st.none() | st.none() | st.sampled_from(["r-1", "r-2", "r-3", "r-4", "r-5", "r-6"]),
        st.integers(NOW, NOW + 3),
        st.none() | st.none() | st.sampled_from(UUIDS),
    )


def closings() -> st.SearchStrategy[Closing]:
    ends = [status for status in ExecutionStatus if status.closed]
    return st.builds(
        lambda status, error, at: Closing(status=status, error=error, closed_at=at),
        st.sampled_from(ends),
        st.none() | st.just("Some.Error"),
        st.sampled_from([NOW + 8, NOW + 9, NOW + 10]),
    )


def purges() -> st.SearchStrategy[Purge]:
    """Most of them are to be passed over, some of them to be fenced."""
    return st.builds(
        lambda run, before, epoch: Purge(shard=0, epoch=epoch, run=run, closed_before=before),
        st.sampled_from([*RUNS, RunRef("acme", "another", UUIDS[0]), RunRef("other", RUNS[0].workflow_id, UUIDS[0])]),
        st.sampled_from([NOW + 9, NOW + 10, NOW + 11]),
        st.sampled_from([1] * 15 + [2]),
    )


def snapshots() -> st.SearchStrategy[Snapshot]:
    return st.builds(
        lambda event_id, fingerprint: Snapshot(event_id=event_id, fingerprint=fingerprint, data=b"state"),
        st.integers(0, 3),
        st.sampled_from(["one", "two"]),
    )


def tasks(run: RunRef) -> st.SearchStrategy[QueuedTask]:
    return st.builds(
        lambda event_id, queue, priority, at, destination: queued(
            run, event_id, queue=queue, priority=priority, scheduled_at=at, destination=destination
        ),
        EVENT_IDS,
        st.sampled_from([QUEUE, OTHER_QUEUE]),
        st.integers(-1, 1),
        st.integers(NOW, NOW + 1),
        st.sampled_from([None, "a:80", "b:80"]),
    )


def effects() -> st.SearchStrategy[Effect]:
    return st.builds(effect, EVENT_IDS, st.sampled_from(["child", "parent"]))


def definitions() -> st.SearchStrategy[DefinitionWrite]:
    return st.builds(
        lambda named, hash, text: DefinitionWrite(
            tenant="acme",
            hash=hash,
            text=text,
            name=named[0] if named else None,
            version=named[1] if named else None,
            registered_at=NOW,
        ),
        st.none() | st.tuples(st.sampled_from(["order", "refund"]), st.integers(1, 3)),
        st.sampled_from(["h1", "h2"]),
        st.sampled_from(["one", "two"]),
    )


def schedule_writes() -> st.SearchStrategy[ScheduleWrite]:
    """Most of them do not follow the last one, and all stores have to say so."""
    return st.builds(
        lambda name, revision, next_at, waiting, data: schedule(
            name, revision, next_at=next_at, waiting=waiting, data=data
        ),
        st.sampled_from(["a", "b"]),
        st.sampled_from([1, 1, 2, 2, 3]),
        st.none() | st.integers(NOW, NOW + 4),
        st.booleans(),
        st.none() | st.sampled_from([b"one", b"two"]),
    )


async def commit_both(memory: MemoryStore, other: Driver, batch: Batch) -> None:
    outcomes: list[object] = []
    for in_memory in (True, False):
        try:
            if in_memory:
                await memory.commit(batch)
            else:
                other.writer.commit(batch)
        except Fenced as fenced:
            outcomes.append(fenced.shards)
        except BatchRefused:
            outcomes.append("refused")
        else:
            outcomes.append("written")
    assert outcomes[0] == outcomes[1], batch


async def compare(memory: MemoryStore, reader: Reader) -> None:
    for run in RUNS:
        assert await memory.execution("acme", run.run_id) == reader.execution("acme", run.run_id)
        for fingerprint in ("one", "two", "three"):
            loaded = await memory.load_runs([run], fingerprint, 1000)
            assert loaded == reader.load_runs([run], fingerprint, 1000)
        for after_id in range(4):
            page = await memory.events("acme", run.run_id, after_id, 3, 40)
            assert page == reader.events("acme", run.run_id, after_id, 3, 40)
        for request_id in (None, "r-1", "r-2", "r-3"):
            check = await memory.start_check("acme", run.workflow_id, request_id)
            assert check == reader.start_check("acme", run.workflow_id, request_id)
    for before in (NOW + 9, NOW + 11):
        for after_run, limit, shards in ((None, 9, None), (None, 2, [0]), (UUIDS[1], 2, [0, 1])):
            # An SQLite file has one owner, of all shards.
            wanted_shards = None if isinstance(reader, SqliteReader) else shards
            expired = await memory.expired_runs(before, UUIDS[5], limit, after_run, wanted_shards)
            assert expired == reader.expired_runs(before, UUIDS[5], limit, after_run, shards)
    due = await memory.due_runs(NOW + 4, 10)
    assert due == reader.due_runs(NOW + 4, 10, None)
    for after in due:
        assert await memory.due_runs(NOW + 3, 1, after) == reader.due_runs(NOW + 3, 1, after)
    found: list[StoredEffect] = await memory.effects(10)
    assert found == reader.effects(10, None, None)
    for last in found:
        assert await memory.effects(1, last) == reader.effects(1, last, None)
    assert await memory.queue_backlogs() == reader.queue_backlogs()
    assert await memory.destination_backlogs("acme") == reader.destination_backlogs("acme")
    for queue in (QUEUE, OTHER_QUEUE):
        for without in (["a:80"], ["a:80", "b:80"]):
            some = await memory.waiting_tasks(queue, 20, without=without)
            assert some == reader.waiting_tasks(queue, 20, None, without)
        waiting = await memory.waiting_tasks(queue, 20)
        assert waiting == reader.waiting_tasks(queue, 20, None, [])
        for task in waiting:
            cursor = TaskCursor(
                priority=task.priority,
                scheduled_at=task.scheduled_at,
                run_id=task.task.run.run_id,
                event_id=task.task.event_id,
            )
            assert await memory.waiting_tasks(queue, 2, cursor) == reader.waiting_tasks(queue, 2, cursor, [])
    for status in (None, *ExecutionStatus):
        for label in (None, ("a", "1")):
            for workflow in (None, "order"):
                wanted = ExecutionFilter(
                    tenant="acme", limit=3, status=status, label=label, workflow=workflow, started_after=NOW
                )
                assert await memory.list_executions(wanted) == reader.list_executions(wanted)
    everything = await memory.list_schedules("acme", 5, None, 1000)
    assert everything == reader.list_schedules("acme", 5, None, 1000)
    assert await memory.list_schedules("acme", 5, "a", 1) == reader.list_schedules("acme", 5, "a", 1)
    assert await memory.due_schedules(NOW + 3, 5) == reader.due_schedules(NOW + 3, 5, None)
    assert await memory.waiting_schedules(5) == reader.waiting_schedules(5, None, None)
    for letters in (LetterFilter(tenant="acme", limit=20), LetterFilter(tenant=None, limit=20, before=NOW + 1)):
        assert await memory.dead_letters(letters) == reader.dead_letters(letters)
    assert await memory.list_definitions("acme", 5, None) == reader.list_definitions("acme", 5, None)
    for version in (None, 1, 2, 3):
        assert await memory.definition("acme", "order", version) == reader.definition("acme", "order", version)


History: TypeAlias = list[tuple[list[Step], list[DefinitionWrite], list[ScheduleWrite], list[Purge]]]

HISTORIES = st.lists(
    st.tuples(
        st.lists(steps(), max_size=3, unique_by=lambda step: step.write.run),
        st.lists(definitions(), max_size=1),
        st.just([]) | st.lists(schedule_writes(), max_size=1),
        st.just([]) | st.lists(purges(), max_size=3),
    ),
    min_size=1,
    max_size=10,
)


async def play(history: History, other: Driver) -> None:
    memory = MemoryStore(other.info.shards, b"key")
    assert (await memory.take_shards()).epochs == other.writer.take_shards().epochs
    for shares, named, scheduled, purged in history:
        writes = [step.play(await memory.execution("acme", step.write.run.run_id)) for step in shares]
        await commit_both(memory, other, Batch(runs=writes, definitions=named, schedules=scheduled, purges=purged))
    await compare(memory, other.reader)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=HISTORIES)
def test_the_memory_store_and_the_sqlite_store_agree(history: History) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sqlite = open_driver(Path(folder) / "engine.db", 2, 1.0)
        try:
            trio.run(play, history, sqlite)
        finally:
            sqlite.close()


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(history=HISTORIES)
def test_the_memory_store_and_the_postgresql_store_agree(history: History, empty: Callable[[], PostgresDriver]) -> None:
    trio.run(play, history, empty())
