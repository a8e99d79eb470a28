"""What every store does, run over each of them."""

from __future__ import annotations

import msgspec
import pytest
from store_builders import (
    NOW,
    QUEUE,
    append,
    batch,
    closed,
    effect,
    event,
    loaded_run,
    new,
    number_of,
    numbered,
    queued,
    ref,
    start,
)

from daemon.stores.interface import BatchRefused, Fenced, NoSuchEvent, Store
from daemon.stores.rows import (
    Batch,
    DefinitionWrite,
    DueRun,
    ExecutionFilter,
    LatestRun,
    LetterFilter,
    LetterRow,
    QueueBacklog,
    RunWrite,
    Snapshot,
    StartCheck,
    StoredEffect,
    StoredLetter,
    TaskCursor,
)
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, RunRef
from enginekit.messages.status import ExecutionStatus

RUN = ref(1)


def bare(run_number: int, **fields: object) -> RunWrite:
    """A write without events."""
    write = RunWrite(shard=0, epoch=1, run=ref(run_number), first_event_id=0, events=[], wake_at=None)
    return msgspec.structs.replace(write, **fields)


async def run_ids(store: Store, **wanted: object) -> list[int]:
    everything = ExecutionFilter(tenant="acme", limit=100)
    page = await store.list_executions(msgspec.structs.replace(everything, **wanted))
    return [number_of(execution.run) for execution in page]


# --- the backend ----------------------------------------------------------------------------------------------------


async def test_an_open_store_is_ready_and_says_what_it_is(store: Store) -> None:
    await store.wait_ready()
    assert store.ready
    assert store.restarts == 0
    info = await store.info()
    assert info.kind in ("memory", "sqlite", "postgresql")
    assert info.shards == 4
    assert info.schema_version >= 1


async def test_taking_the_shards_raises_every_epoch_and_keeps_the_key(store: Store) -> None:
    second = await store.take_shards()
    third = await store.take_shards()
    assert second.epochs == {0: 2, 1: 2, 2: 2, 3: 2}
    assert third.epochs == {0: 3, 1: 3, 2: 3, 3: 3}
    assert second.token_key == third.token_key
    assert len(second.token_key) == 32


# --- events ---------------------------------------------------------------------------------------------------------


async def test_a_run_is_read_as_it_was_written(store: Store) -> None:
    created = new(labels={"customer": "c-7", "päd": "ü"}, request_id="request-1")
    await store.commit(batch(start(RUN, created=created, events=2, wake_at=NOW + 5)))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.run, execution.shard, execution.workflow, execution.version) == (RUN, 0, "order", 1)
    assert (execution.definition_hash, execution.labels, execution.request_id) == (
        "a" * 64,
        created.labels,
        "request-1",
    )
    assert (execution.status, execution.error) == (ExecutionStatus.RUNNING, None)
    assert (execution.started_at, execution.closed_at, execution.wake_at) == (NOW, None, NOW + 5)
    assert execution.last_event_id == 2


async def test_events_follow_one_another_and_come_back_in_order(store: Store) -> None:
    await store.commit(batch(start(RUN, events=3)))
    await store.commit(batch(append(RUN, 4, 2, wake_at=NOW)))
    await store.commit(batch(append(RUN, 6)))
    assert await store.events("acme", RUN.run_id, 0, 100, 1_000_000) == numbered(RUN, 1, 6)
    assert await store.events("acme", RUN.run_id, 2, 2, 1_000_000) == numbered(RUN, 3, 2)
    assert await store.events("acme", RUN.run_id, 6, 100, 1_000_000) == []
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.last_event_id, execution.wake_at) == (6, None)


async def test_a_page_of_events_stops_before_its_bytes_but_has_one(store: Store) -> None:
    write = start(RUN)
    events = [event(RUN, number, size=100) for number in range(1, 8)]
    await store.commit(batch(msgspec.structs.replace(write, events=events)))
    assert await store.events("acme", RUN.run_id, 0, 100, 350) == events[:3]
    assert await store.events("acme", RUN.run_id, 0, 100, 300) == events[:3]
    assert await store.events("acme", RUN.run_id, 3, 100, 1) == events[3:4]


async def test_large_and_many_events_are_paged_alike(store: Store) -> None:
    events = [
        event(RUN, number, size=size) for number, size in enumerate([10, 90_000, 10, 30_000, 40_000, 10], start=1)
    ]
    await store.commit(batch(msgspec.structs.replace(start(RUN), events=events)))
    more = [event(RUN, number) for number in range(7, 1007)]
    await store.commit(batch(msgspec.structs.replace(append(RUN, 7), events=more)))
    everything = events + more
    for after in (0, 1, 2, 3, 4, 5, 6, 7, 500, 1005):
        assert await store.events("acme", RUN.run_id, after, 3, 10_000_000) == everything[after : after + 3]
    assert await store.events("acme", RUN.run_id, 0, 2000, 10_000_000) == everything
    assert await store.events_by_id("acme", RUN.run_id, [6, 2, 1006, 2, 1]) == [
        everything[number - 1] for number in (6, 2, 1006, 2, 1)
    ]


@pytest.mark.parametrize("commits", [63, 64, 65, 128])
async def test_events_of_many_commits_are_read_each_once(store: Store, commits: int) -> None:
    await store.commit(batch(start(RUN)))
    for number in range(2, commits + 1):
        await store.commit(batch(append(RUN, number)))
    assert await store.events("acme", RUN.run_id, 0, 1000, 1_000_000) == numbered(RUN, 1, commits)
    assert await store.events("acme", RUN.run_id, max(commits - 64, 0), 1000, 1_000_000) == numbered(
        RUN, max(commits - 63, 1), min(commits, 64)
    )


async def test_an_event_that_is_not_there_is_missed_by_its_number(store: Store) -> None:
    await store.commit(batch(start(RUN, events=2)))
    for missing in (0, 3):
        with pytest.raises(NoSuchEvent, match=f"{RUN.run_id} has no event {missing}"):
            await store.events_by_id("acme", RUN.run_id, [1, missing])
    with pytest.raises(NoSuchEvent):
        await store.events_by_id("other", RUN.run_id, [1])


@pytest.mark.parametrize("first", [1, 2, 4])
async def test_a_gap_or_a_repeat_is_refused_with_all_of_its_batch(store: Store, first: int) -> None:
    await store.commit(batch(start(RUN, events=2), start(ref(2), events=2)))
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(ref(2), 3), append(RUN, first), start(ref(3))))
    assert len(await store.events("acme", RUN.run_id, 0, 10, 1000)) == 2
    assert len(await store.events("acme", ref(2).run_id, 0, 10, 1000)) == 2
    assert await store.execution("acme", ref(3).run_id) is None
    await store.commit(batch(append(RUN, 3), append(ref(2), 3)))


async def test_events_of_an_unknown_run_are_refused(store: Store) -> None:
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(RUN, 2)))
    with pytest.raises(BatchRefused, match="does not exist"):
        await store.commit(batch(bare(1)))
    await store.commit(batch(start(RUN)))
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(ref(1, workflow_id="another"), 2)))
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(ref(1, tenant="other"), 2)))


async def test_a_closed_run_takes_no_more_events_and_is_not_due(store: Store) -> None:
    await store.commit(batch(start(RUN, wake_at=NOW, effects=[effect(1)])))
    await store.commit(batch(append(RUN, 2, wake_at=NOW, closing=closed(ExecutionStatus.FAILED, "Card.Declined"))))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.status, execution.error) == (ExecutionStatus.FAILED, "Card.Declined")
    assert (execution.closed_at, execution.wake_at, execution.last_event_id) == (NOW + 1000, None, 2)
    assert await store.due_runs(NOW + 10, 10) == []
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(RUN, 3)))
    await store.commit(batch(bare(1, effects_removed=[1], wake_at=NOW)))
    assert await store.effects(10) == []
    assert await store.due_runs(NOW + 10, 10) == []


@pytest.mark.parametrize(
    "write",
    [
        msgspec.structs.replace(start(RUN), first_event_id=2),
        msgspec.structs.replace(start(RUN), events=[]),
        start(RUN, closing=closed(ExecutionStatus.RUNNING)),
        msgspec.structs.replace(append(RUN, 2, closing=closed()), events=[]),
        start(RUN, tasks=[queued(ref(2), 1)]),
        start(RUN, tasks=[queued(RUN, 1, queue=QueueKey("other", TaskKind.NODE, "echo"))]),
    ],
)
async def test_what_no_store_could_mean_is_refused(store: Store, write: RunWrite) -> None:
    with pytest.raises(BatchRefused, match=RUN.run_id):
        await store.commit(batch(write))
    assert await store.execution("acme", RUN.run_id) is None


async def test_a_run_is_written_once_in_a_batch(store: Store) -> None:
    await store.commit(batch(start(RUN)))
    with pytest.raises(BatchRefused, match="twice"):
        await store.commit(batch(append(RUN, 2), append(RUN, 3)))


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_a_workflow_id_has_one_open_run(store: Store) -> None:
    first, second = ref(1, workflow_id="order"), ref(2, workflow_id="order")
    await store.commit(batch(start(first)))
    with pytest.raises(BatchRefused, match="open"):
        await store.commit(batch(start(second)))
    with pytest.raises(BatchRefused, match="open"):
        await store.commit(batch(start(ref(4, workflow_id="new")), start(ref(5, workflow_id="new"))))
    await store.commit(batch(start(ref(3, workflow_id="order", tenant="other"))))
    await store.commit(batch(append(first, 2, closing=closed())))
    await store.commit(batch(start(second)))
    assert await store.latest_run("acme", "order") == LatestRun(run_id=second.run_id, status=ExecutionStatus.RUNNING)


async def test_a_workflow_id_may_be_a_run_id(store: Store) -> None:
    name = ref(1).run_id
    own = RunRef("acme", name, name)
    named = ref(2, workflow_id=name)
    await store.commit(batch(start(own)))
    assert await store.latest_run("acme", name) == LatestRun(run_id=name, status=ExecutionStatus.RUNNING)
    with pytest.raises(BatchRefused, match="open"):
        await store.commit(batch(start(named)))
    await store.commit(batch(start(ref(3, workflow_id=name, tenant="other")), append(own, 2, closing=closed())))
    await store.commit(batch(start(named)))
    assert await store.latest_run("acme", name) == LatestRun(run_id=named.run_id, status=ExecutionStatus.RUNNING)
    found = await store.execution("acme", name)
    assert found is not None
    assert found.run == own
    with pytest.raises(BatchRefused):
        await store.commit(batch(msgspec.structs.replace(append(own, 3), reopened=True)))
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(RunRef("acme", "another", name), 3)))


async def test_a_run_named_by_its_own_run_id_waits_for_one_that_was_given_that_name(store: Store) -> None:
    name = ref(7).run_id
    own, named = RunRef("acme", name, name), ref(2, workflow_id=name)
    await store.commit(batch(start(named)))
    with pytest.raises(BatchRefused, match="open"):
        await store.commit(batch(start(own)))
    await store.commit(batch(append(named, 2, closing=closed()), start(own)))


async def test_a_run_may_close_and_another_start_in_one_batch_in_any_order(store: Store) -> None:
    first, second, third = (ref(number, workflow_id="order") for number in (1, 2, 3))
    await store.commit(batch(start(first)))
    await store.commit(batch(start(second), append(first, 2, closing=closed())))
    await store.commit(batch(append(second, 2, closing=closed()), start(third)))
    assert await run_ids(store, status=ExecutionStatus.RUNNING) == [3]
    assert await run_ids(store) == [3, 2, 1]


async def test_a_run_that_closes_as_it_starts_is_never_open(store: Store) -> None:
    one, two = ref(1, workflow_id="order"), ref(2, workflow_id="order")
    await store.commit(batch(start(one)))
    await store.commit(batch(start(two, closing=closed(), wake_at=NOW, events=3)))
    execution = await store.execution("acme", two.run_id)
    assert execution is not None
    assert (execution.status, execution.wake_at, execution.last_event_id) == (ExecutionStatus.SUCCEEDED, None, 3)
    with pytest.raises(BatchRefused):
        await store.commit(batch(append(two, 4, closing=closed())))
    with pytest.raises(BatchRefused, match="open"):
        await store.commit(batch(start(ref(3, workflow_id="order"))))


async def test_a_request_id_starts_one_run_also_after_it_has_closed(store: Store) -> None:
    await store.commit(batch(start(RUN, created=new(request_id="r-1"), closing=closed())))
    with pytest.raises(BatchRefused, match="request_id"):
        await store.commit(batch(start(ref(2), created=new(request_id="r-1"))))
    with pytest.raises(BatchRefused, match="request_id"):
        await store.commit(
            batch(start(ref(2), created=new(request_id="r-2")), start(ref(3), created=new(request_id="r-2")))
        )
    await store.commit(batch(start(ref(4, tenant="other"), created=new(request_id="r-1"))))
    check = await store.start_check("acme", "order-9", "r-1")
    assert check == StartCheck(latest=None, requested=RUN)
    check = await store.start_check("acme", "order-1", None)
    assert check == StartCheck(latest=LatestRun(run_id=RUN.run_id, status=ExecutionStatus.SUCCEEDED), requested=None)
    assert await store.start_check("other", "order-1", "r-9") == StartCheck(latest=None, requested=None)


async def test_a_run_id_is_used_once(store: Store) -> None:
    await store.commit(batch(start(RUN)))
    with pytest.raises(BatchRefused):
        await store.commit(batch(start(ref(1, workflow_id="another"))))
    with pytest.raises(BatchRefused):
        await store.commit(batch(start(ref(1, workflow_id="another", tenant="other"))))


async def test_the_latest_run_is_the_one_with_the_greatest_run_id(store: Store) -> None:
    for number in (2, 3, 1):
        await store.commit(batch(start(ref(number, workflow_id="order"), closing=closed())))
    latest = await store.latest_run("acme", "order")
    assert latest is not None
    assert latest.run_id == ref(3).run_id
    assert await store.latest_run("acme", "orde") is None
    assert await store.latest_run("other", "order") is None


# --- the fence ------------------------------------------------------------------------------------------------------


async def test_a_former_owner_writes_nothing(store: Store) -> None:
    await store.commit(batch(start(RUN, epoch=1)))
    await store.take_shards()
    with pytest.raises(Fenced) as caught:
        await store.commit(batch(start(ref(2), epoch=2, shard=3), append(RUN, 2, epoch=1)))
    assert caught.value.shards == [0]
    with pytest.raises(Fenced) as caught:
        await store.commit(batch(start(ref(2), epoch=1, shard=3), append(RUN, 2, epoch=1), start(ref(3), epoch=2)))
    assert caught.value.shards == [0, 3]
    assert await store.execution("acme", ref(2).run_id) is None
    await store.commit(batch(append(RUN, 2, epoch=2)))


@pytest.mark.parametrize(("shard", "epoch"), [(4, 1), (0, 2), (0, 0)])
async def test_a_shard_or_an_epoch_that_does_not_exist_is_fenced(store: Store, shard: int, epoch: int) -> None:
    with pytest.raises(Fenced, match=str(shard)):
        await store.commit(batch(start(RUN, shard=shard, epoch=epoch)))


async def test_a_fenced_batch_is_fenced_whatever_else_is_wrong_with_it(store: Store) -> None:
    with pytest.raises(Fenced):
        await store.commit(batch(append(RUN, 7, epoch=9)))


# --- loading --------------------------------------------------------------------------------------------------------


async def test_a_run_is_loaded_from_its_snapshot_and_the_events_after_it(store: Store) -> None:
    await store.commit(batch(start(RUN, events=3)))
    whole = await loaded_run(store, RUN, "schema-1")
    assert whole is not None
    assert whole.snapshot is None
    assert whole.tail == numbered(RUN, 1, 3)
    snapshot = Snapshot(event_id=5, fingerprint="schema-1", data=b"\x00state\xff")
    await store.commit(batch(msgspec.structs.replace(append(RUN, 4, 2), snapshot=snapshot)))
    await store.commit(batch(append(RUN, 6, 2)))
    loaded = await loaded_run(store, RUN, "schema-1")
    assert loaded is not None
    assert loaded.execution == await store.execution("acme", RUN.run_id)
    assert loaded.snapshot == snapshot
    assert loaded.tail == numbered(RUN, 6, 2)


async def test_a_snapshot_may_end_in_the_middle_of_what_was_written_together(store: Store) -> None:
    snapshot = Snapshot(event_id=2, fingerprint="schema-1", data=b"state")
    await store.commit(batch(msgspec.structs.replace(start(RUN, events=5), snapshot=snapshot)))
    loaded = await loaded_run(store, RUN, "schema-1")
    assert loaded is not None
    assert loaded.tail == numbered(RUN, 3, 3)


async def test_a_snapshot_of_another_schema_is_passed_over_and_a_newer_one_takes_its_place(store: Store) -> None:
    old = Snapshot(event_id=1, fingerprint="schema-1", data=b"old")
    newer = Snapshot(event_id=2, fingerprint="schema-2", data=b"newer")
    await store.commit(batch(msgspec.structs.replace(start(RUN), snapshot=old)))
    await store.commit(batch(msgspec.structs.replace(append(RUN, 2), snapshot=newer)))
    for fingerprint, expected in (("schema-1", None), ("schema-2", newer)):
        loaded = await loaded_run(store, RUN, fingerprint)
        assert loaded is not None
        assert loaded.snapshot == expected
        assert loaded.tail == numbered(RUN, 3 if expected else 1, 0 if expected else 2)


async def test_many_are_loaded_at_once_as_far_as_their_bytes_go(store: Store) -> None:
    runs = [ref(number) for number in range(1, 41)]
    await store.commit(batch(*(start(run, events=3) for run in runs)))
    none = [RunRef("acme", "no such", ref(99).run_id), RunRef("other", runs[0].workflow_id, runs[0].run_id)]
    wanted = [runs[7], none[0], *runs, none[1]]
    whole = await store.load_runs(wanted, "", 10**6)
    assert whole == [await loaded_run(store, run) for run in wanted]
    assert [stored.execution.run for stored in whole if stored is not None] == [runs[7], *runs]
    one = sum(map(len, numbered(runs[7], 1, 3)))
    assert await store.load_runs(wanted, "", one) == whole[:1]
    assert await store.load_runs(wanted, "", one + 1) == whole[:3]
    assert await store.load_runs([], "", 1) == []


# --- tenants --------------------------------------------------------------------------------------------------------


async def test_another_tenant_sees_nothing(store: Store) -> None:
    write = start(RUN, created=new(labels={"a": "b"}, request_id="r"), wake_at=NOW, tasks=[queued(RUN, 1)])
    await store.commit(Batch(runs=[write], definitions=[definition("order", 1)]))
    assert await store.execution("other", RUN.run_id) is None
    assert await store.load_runs([RunRef("other", RUN.workflow_id, RUN.run_id)], "f", 1000) == [None]
    assert await store.events("other", RUN.run_id, 0, 10, 1000) == []
    assert await store.list_executions(ExecutionFilter(tenant="other", limit=10)) == []
    assert await store.list_executions(ExecutionFilter(tenant="other", limit=10, label=("a", "b"))) == []
    assert await store.waiting_tasks(QueueKey("other", TaskKind.NODE, "echo"), 10) == []
    assert await store.definition("other", "order", 1) is None
    assert await store.definition_text("other", "hash-order-1") is None
    assert await store.list_definitions("other", 10, None) == []


# --- due runs -------------------------------------------------------------------------------------------------------


async def test_due_runs_come_in_order_and_in_pages(store: Store) -> None:
    times = {1: NOW + 30, 2: NOW + 10, 3: NOW + 20, 4: NOW + 10, 5: NOW + 40, 6: None, 7: NOW - 5}
    await store.commit(batch(*(start(ref(number), wake_at=at) for number, at in times.items())))
    expected = [DueRun(run=ref(number), wake_at=at) for at, number in sorted((a, n) for n, a in times.items() if a)]
    assert await store.due_runs(NOW + 40, 100) == expected[:-1]
    assert await store.due_runs(NOW + 41, 100) == expected
    paged: list[DueRun] = []
    while page := await store.due_runs(NOW + 41, 2, paged[-1] if paged else None):
        assert len(page) <= 2
        paged += page
    assert paged == expected


async def test_moving_a_wake_up_leaves_one(store: Store) -> None:
    await store.commit(batch(start(RUN, wake_at=NOW)))
    await store.commit(batch(bare(1, wake_at=NOW + 5)))
    assert await store.due_runs(NOW + 10, 10) == [DueRun(run=RUN, wake_at=NOW + 5)]
    await store.commit(batch(append(RUN, 2, wake_at=NOW + 7)))
    assert await store.due_runs(NOW + 10, 10) == [DueRun(run=RUN, wake_at=NOW + 7)]
    await store.commit(batch(bare(1)))
    assert await store.due_runs(NOW + 10, 10) == []


# --- tasks ----------------------------------------------------------------------------------------------------------


async def test_waiting_tasks_come_in_their_queues_order_and_in_pages(store: Store) -> None:
    one, two = ref(1), ref(2)
    tasks = [
        queued(one, 5, priority=1, scheduled_at=NOW + 9),
        queued(one, 2, scheduled_at=NOW, destination="shop:80"),
        queued(two, 1, scheduled_at=NOW),
        queued(one, 4, scheduled_at=NOW + 1),
        queued(one, 10, scheduled_at=NOW + 1),
        queued(one, 3, priority=-1, scheduled_at=NOW - 9),
    ]
    other = queued(one, 6, queue=QueueKey("acme", TaskKind.ACTIVITY, "echo"))
    await store.commit(
        batch(
            start(one, tasks=[task for task in [*tasks, other] if task.task.run == one][::-1]),
            start(two, tasks=[tasks[2]]),
        )
    )
    assert await store.waiting_tasks(QUEUE, 100) == [tasks[0], tasks[1], tasks[2], tasks[3], tasks[4], tasks[5]]
    paged: list[QueuedTask] = []
    cursor: TaskCursor | None = None
    while page := await store.waiting_tasks(QUEUE, 2, cursor):
        paged += page
        last = page[-1]
        cursor = TaskCursor(
            priority=last.priority,
            scheduled_at=last.scheduled_at,
            run_id=last.task.run.run_id,
            event_id=last.task.event_id,
        )
    assert paged == tasks
    assert await store.waiting_tasks(other.queue, 10) == [other]


async def test_destinations_are_passed_over_and_counted(store: Store) -> None:
    names = ["dead:80", None, "dead:80", 'it\'s "well":80', "sick:80", "dead:80", 'it\'s "well":80']
    tasks = [queued(RUN, n, scheduled_at=NOW + n, destination=name) for n, name in enumerate(names, 1)]
    foreign = queued(ref(2, tenant="other"), 1, queue=QueueKey("other", TaskKind.NODE, "echo"), destination="dead:80")
    pack = queued(RUN, 8, queue=QueueKey("acme", TaskKind.ACTIVITY, "pack"))
    await store.commit(batch(start(RUN, tasks=[*tasks, pack]), start(ref(2, tenant="other"), tasks=[foreign])))
    assert await store.waiting_tasks(QUEUE, 10, without=["nobody:80"]) == tasks
    assert await store.waiting_tasks(QUEUE, 10, without=["dead:80", "sick:80"]) == [tasks[1], tasks[3], tasks[6]]
    first = await store.waiting_tasks(QUEUE, 1, without=["dead:80"])
    assert first == [tasks[1]], "what is passed over takes no place in the page"
    behind = TaskCursor(priority=0, scheduled_at=NOW + 2, run_id=RUN.run_id, event_id=2)
    assert await store.waiting_tasks(QUEUE, 2, behind, without=["dead:80"]) == [tasks[3], tasks[4]]
    assert await store.waiting_tasks(QUEUE, 10, without=['it\'s "well":80']) == [*tasks[:3], tasks[4], tasks[5]]
    await store.commit(batch(bare(1, tasks_started=[1])))
    assert [(each.queue, each.destination, each.depth) for each in await store.destination_backlogs("acme")] == [
        (pack.queue, None, 1),
        (QUEUE, None, 1),
        (QUEUE, "dead:80", 2),
        (QUEUE, 'it\'s "well":80', 2),
        (QUEUE, "sick:80", 1),
    ]


async def test_backlogs_count_what_waits(store: Store) -> None:
    activity = QueueKey("acme", TaskKind.ACTIVITY, "pack")
    elsewhere = QueueKey("other", TaskKind.NODE, "echo")
    foreign = ref(3, tenant="other")
    await store.commit(
        batch(
            start(RUN, tasks=[queued(RUN, 1, scheduled_at=NOW + 2), queued(RUN, 2, queue=activity)]),
            start(ref(2), tasks=[queued(ref(2), 1, priority=3, scheduled_at=NOW + 4)]),
            start(foreign, tasks=[queued(foreign, 1, queue=elsewhere)]),
        )
    )
    assert await store.queue_backlogs() == [
        QueueBacklog(queue=activity, depth=1, oldest=NOW),
        QueueBacklog(queue=QUEUE, depth=2, oldest=NOW + 2),
        QueueBacklog(queue=elsewhere, depth=1, oldest=NOW),
    ]
    await store.commit(batch(bare(1, tasks_started=[2], tasks_removed=[1])))
    assert await store.queue_backlogs() == [
        QueueBacklog(queue=QUEUE, depth=1, oldest=NOW + 4),
        QueueBacklog(queue=elsewhere, depth=1, oldest=NOW),
    ]


async def test_a_started_task_does_not_wait_until_it_is_returned(store: Store) -> None:
    await store.commit(batch(start(RUN, tasks=[queued(RUN, 1)])))
    await store.commit(batch(msgspec.structs.replace(append(RUN, 2), tasks_started=[1])))
    assert await store.waiting_tasks(QUEUE, 10) == []
    await store.commit(batch(bare(1, tasks_started=[1])))
    assert await store.waiting_tasks(QUEUE, 10) == []
    await store.commit(batch(msgspec.structs.replace(append(RUN, 3), tasks_returned=[1])))
    assert await store.waiting_tasks(QUEUE, 10) == [queued(RUN, 1)]
    await store.commit(batch(bare(1, tasks_returned=[1])))
    assert await store.waiting_tasks(QUEUE, 10) == [queued(RUN, 1)]
    await store.commit(batch(msgspec.structs.replace(append(RUN, 4), tasks_started=[1])))
    await store.commit(batch(msgspec.structs.replace(append(RUN, 5), tasks_removed=[1])))
    await store.commit(batch(bare(1, tasks_returned=[1])))
    assert await store.waiting_tasks(QUEUE, 10) == []


async def test_tasks_that_are_not_there_are_passed_over(store: Store) -> None:
    await store.commit(batch(start(RUN)))
    await store.commit(batch(bare(1, tasks_started=[4], tasks_returned=[5], tasks_removed=[6], effects_removed=[7])))
    assert await store.queue_backlogs() == []


async def test_a_task_is_added_once(store: Store) -> None:
    await store.commit(batch(start(RUN, tasks=[queued(RUN, 1)])))
    for tasks in ([queued(RUN, 1)], [queued(RUN, 2), queued(RUN, 2)]):
        with pytest.raises(BatchRefused, match="task"):
            await store.commit(batch(msgspec.structs.replace(append(RUN, 2), tasks_added=tasks)))
    await store.commit(batch(msgspec.structs.replace(append(RUN, 2), tasks_added=[queued(RUN, 2)], tasks_removed=[2])))
    assert await store.waiting_tasks(QUEUE, 10) == [queued(RUN, 1)]


# --- effects --------------------------------------------------------------------------------------------------------


async def test_effects_stay_until_they_are_removed(store: Store) -> None:
    one, two = ref(1), ref(2, tenant="other")
    await store.commit(
        batch(start(two, effects=[effect(1)]), start(one, effects=[effect(10), effect(9, kind="parent")]))
    )
    expected = [
        StoredEffect(run=one, effect=effect(9, kind="parent")),
        StoredEffect(run=one, effect=effect(10)),
        StoredEffect(run=two, effect=effect(1)),
    ]
    assert await store.effects(10) == expected
    paged: list[StoredEffect] = []
    while page := await store.effects(1, paged[-1] if paged else None):
        paged += page
    assert paged == expected
    with pytest.raises(BatchRefused, match="effect"):
        await store.commit(batch(msgspec.structs.replace(append(one, 2), effects_added=[effect(9)])))
    await store.commit(batch(bare(1, effects_removed=[9])))
    assert await store.effects(10) == expected[1:]


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_executions_are_listed_newest_first_in_pages(store: Store) -> None:
    for number in (3, 1, 5, 2, 4):
        await store.commit(batch(start(ref(number))))
    await store.commit(batch(start(ref(6, tenant="other"))))
    assert await run_ids(store) == [5, 4, 3, 2, 1]
    assert await run_ids(store, limit=2) == [5, 4]
    assert await run_ids(store, limit=2, before_run_id=ref(4).run_id) == [3, 2]
    assert await run_ids(store, limit=2, before_run_id=ref(1).run_id) == []


async def test_a_list_is_filtered_by_everything_asked_for(store: Store) -> None:
    await store.commit(
        batch(
            start(ref(1), created=new(labels={"region": "eu", "size": "l"}, started_at=NOW + 1)),
            start(ref(2), created=new(workflow="refund", labels={"region": "eu"}, started_at=NOW + 2)),
            start(ref(3), created=new(workflow=None, labels={"region": "us"}, started_at=NOW + 3), closing=closed()),
            start(
                ref(4), created=new(labels={"size": "eu"}, started_at=NOW + 4), closing=closed(ExecutionStatus.FAILED)
            ),
        )
    )
    assert await run_ids(store, status=ExecutionStatus.RUNNING) == [2, 1]
    assert await run_ids(store, status=ExecutionStatus.FAILED) == [4]
    assert await run_ids(store, workflow="order") == [4, 1]
    assert await run_ids(store, label=("region", "eu")) == [2, 1]
    assert await run_ids(store, label=("region", "eu"), before_run_id=ref(2).run_id) == [1]
    assert await run_ids(store, label=("region", "nowhere")) == []
    assert await run_ids(store, started_after=NOW + 2) == [4, 3]
    assert await run_ids(store, started_before=NOW + 3) == [2, 1]
    assert await run_ids(store, status=ExecutionStatus.RUNNING, workflow="refund", label=("region", "eu")) == [2]
    assert await run_ids(store, status=ExecutionStatus.FAILED, workflow="refund") == []


# --- definitions ----------------------------------------------------------------------------------------------------


def definition(name: str | None, version: int | None, *, text: str = "{}", tenant: str = "acme") -> DefinitionWrite:
    return DefinitionWrite(
        tenant=tenant,
        hash=f"hash-{name}-{version}",
        text=text,
        name=name,
        version=version,
        registered_at=NOW + (version or 0),
    )


async def test_definitions_are_found_by_version_and_the_newest_without_one(store: Store) -> None:
    await store.commit(Batch(definitions=[definition("order", 1, text="one"), definition("order", 2, text="two")]))
    await store.commit(Batch(definitions=[definition("order", 10, text="ten")]))
    for version, text in ((1, "one"), (2, "two"), (10, "ten"), (None, "ten")):
        found = await store.definition("acme", "order", version)
        assert found is not None
        assert (found.name, found.version, found.text) == ("order", version or 10, text)
        assert found.hash == f"hash-order-{found.version}"
        assert found.registered_at == NOW + found.version
    assert await store.definition("acme", "order", 3) is None
    assert await store.definition("acme", "refund", None) is None


async def test_a_text_is_kept_once_and_may_be_without_a_name(store: Store) -> None:
    inline = definition(None, None, text="inline")
    await store.commit(Batch(definitions=[inline], runs=[start(RUN)]))
    await store.commit(Batch(definitions=[msgspec.structs.replace(inline, text="not this one")]))
    assert await store.definition_text("acme", inline.hash) == "inline"
    assert await store.definition_text("acme", "hash") is None
    await store.commit(Batch(definitions=[msgspec.structs.replace(inline, name="order", version=1)]))
    found = await store.definition("acme", "order", None)
    assert found is not None
    assert found.text == "inline"
    assert await store.list_definitions("acme", 10, None) != []


async def test_a_version_is_registered_once(store: Store) -> None:
    await store.commit(Batch(definitions=[definition("order", 1)]))
    with pytest.raises(BatchRefused, match="version"):
        await store.commit(Batch(definitions=[definition("order", 1)], runs=[start(RUN)]))
    with pytest.raises(BatchRefused, match="version"):
        await store.commit(Batch(definitions=[definition("order", 2), definition("order", 2)]))
    with pytest.raises(BatchRefused, match="together"):
        await store.commit(Batch(definitions=[definition("order", None)]))
    assert await store.execution("acme", RUN.run_id) is None


async def test_definitions_are_listed_by_name_with_their_newest_version(store: Store) -> None:
    names = [("ship", 1), ("order", 1), ("order", 2), ("a.b", 7), ("order", 3), ("Z", 1)]
    await store.commit(Batch(definitions=[definition(*named) for named in names]))
    await store.commit(Batch(definitions=[definition("other", 1, tenant="other")]))
    listed = await store.list_definitions("acme", 10, None)
    assert [(entry.name, entry.version, entry.registered_at) for entry in listed] == [
        ("Z", 1, NOW + 1),
        ("a.b", 7, NOW + 7),
        ("order", 3, NOW + 3),
        ("ship", 1, NOW + 1),
    ]
    assert await store.list_definitions("acme", 2, "Z") == listed[1:3]


# --- runs that are opened again, and dead letters ---------------------------------------------------------------------


def letter(number: int = 3, *, at: int = NOW, node: str = "Ship", error: str = "Boom") -> LetterRow:
    return LetterRow(event_id=number, workflow="order", node=node, error=error, at=at, data=b"{}")


def reopened(number: int, first: int, count: int = 1, **fields: object) -> RunWrite:
    write = msgspec.structs.replace(append(ref(number), first, count), reopened=True)
    return msgspec.structs.replace(write, **fields)


async def failed(store: Store, number: int, **fields: object) -> None:
    write = start(ref(number), events=3, closing=closed(ExecutionStatus.FAILED, "Boom"))
    await store.commit(batch(msgspec.structs.replace(write, **fields)))


async def test_a_run_that_has_closed_is_opened_again_and_goes_on(store: Store) -> None:
    await failed(store, 1)
    await store.commit(batch(reopened(1, 4, 2, wake_at=NOW + 5)))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.status, execution.error, execution.closed_at) == (ExecutionStatus.RUNNING, None, None)
    assert (execution.last_event_id, execution.wake_at) == (5, NOW + 5)
    assert await store.due_runs(NOW + 6, 10) == [DueRun(run=RUN, wake_at=NOW + 5)]
    assert await run_ids(store, status=ExecutionStatus.RUNNING) == [1]
    assert await store.events("acme", RUN.run_id, 0, 10, 10**6) == numbered(RUN, 1, 5)
    await store.commit(batch(append(RUN, 6, closing=closed())))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.status, execution.last_event_id) == (ExecutionStatus.SUCCEEDED, 6)


async def test_a_run_may_be_opened_and_closed_in_one_write(store: Store) -> None:
    await failed(store, 1)
    await store.commit(batch(reopened(1, 4, 2, closing=closed(ExecutionStatus.FAILED, "Bang"))))
    execution = await store.execution("acme", RUN.run_id)
    assert execution is not None
    assert (execution.status, execution.error, execution.last_event_id) == (ExecutionStatus.FAILED, "Bang", 5)
    await store.commit(batch(start(ref(2, workflow_id=RUN.workflow_id))))


async def test_a_run_is_not_opened_again_where_it_cannot_be(store: Store) -> None:
    await failed(store, 1)
    await store.commit(batch(start(ref(2))))
    await store.commit(batch(start(ref(3, workflow_id=RUN.workflow_id))))
    for write in (reopened(1, 4), reopened(2, 2), reopened(1, 3), reopened(1, 5), reopened(1, 4, events=[])):
        with pytest.raises(BatchRefused):
            await store.commit(batch(write))
    await store.commit(batch(append(ref(3, workflow_id=RUN.workflow_id), 2, closing=closed()), reopened(1, 4)))
    assert await run_ids(store, status=ExecutionStatus.RUNNING) == [2, 1]


async def test_dead_letters_are_kept_until_they_are_removed(store: Store) -> None:
    for number in (1, 2, 3):
        row = letter(at=NOW + number % 3, node=f"Node{number}", error="Boom" if number < 3 else "Bang")
        await failed(store, number, letters_added=[row])
    await store.commit(batch(start(ref(9, tenant="other"), events=3, closing=closed())))

    async def listed(**wanted: object) -> list[int]:
        everything = LetterFilter(tenant="acme", limit=10)
        found = await store.dead_letters(msgspec.structs.replace(everything, **wanted))
        return [number_of(each.run) for each in found]

    assert await listed() == [2, 1, 3]
    assert await listed(limit=2) == [2, 1]
    assert await listed(behind=(NOW + 1, RUN.run_id)) == [3]
    assert await listed(error="Boom", node="Node1") == [1]
    assert await listed(workflow_id="order-3") == [3]
    assert await listed(workflow="other") == []
    assert await listed(tenant="other") == []
    assert await listed(tenant=None, before=NOW + 2) == [3, 1]
    assert await listed(after=NOW + 1) == [2]
    found = await store.dead_letter("acme", RUN.run_id, 3)
    assert found == StoredLetter(run=RUN, letter=letter(at=NOW + 1, node="Node1"))
    assert await store.dead_letter("other", RUN.run_id, 3) is None
    assert await store.dead_letter("acme", RUN.run_id, 4) is None
    await store.commit(batch(bare(1, letters_removed=[3, 7]), reopened(2, 4, letters_removed=[3])))
    assert await listed() == [3]
