"""What purged runs leave behind goes, step by step, and what anybody still refers to stays: the same in every store."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from store_builders import NOW, append, closed, new, ref, start

from daemon.stores.interface import Store
from daemon.stores.postgres.database import open_driver as open_postgres
from daemon.stores.rows import Batch, DefinitionWrite, Purge, RunWrite, Tidied
from daemon.stores.sqlite import sweeping
from daemon.stores.sqlite.database import open_driver
from enginekit.messages.links import RunRef
from tests.servers.postgres import PostgresServer

SEVERAL_STEPS = 2 * sweeping.STEP_ROWS + 1
"""Texts that no store looks at in one step."""


def text(name: str, *, tenant: str = "acme", workflow: str | None = None) -> DefinitionWrite:
    version = None if workflow is None else 1
    return DefinitionWrite(
        tenant=tenant, hash=name, text=f"text of {name}", name=workflow, version=version, registered_at=NOW
    )


def by(name: str, run: RunRef, *, ended: bool = True) -> RunWrite:
    """A run that was started by an inline definition."""
    created = msgspec.structs.replace(new(workflow=None), definition_hash=name)
    return start(run, created=created, closing=closed() if ended else None)


def purge(*runs: RunRef) -> Batch:
    return Batch(purges=[Purge(shard=0, epoch=1, run=run, closed_before=NOW + 2000) for run in runs])


async def tidy(store: Store) -> list[Tidied]:
    """All steps."""
    steps = [await store.tidy(NOW)]
    while steps[-1].more:
        steps.append(await store.tidy(NOW))
    return steps


async def there(store: Store, *names: str, tenant: str = "acme") -> list[str]:
    return [name for name in names if await store.definition_text(tenant, name) == f"text of {name}"]


async def test_a_text_goes_when_the_last_run_that_has_it_is_gone(store: Store) -> None:
    elsewhere = ref(9, tenant="other")
    await store.commit(
        Batch(
            definitions=[
                *(text(name) for name in ("one", "two", "open", "nobody's")),
                text("named", workflow="order"),
                text("one", tenant="other"),
            ],
            runs=[
                by("one", ref(1)),
                by("one", ref(2)),
                by("two", ref(3)),
                by("open", ref(4), ended=False),
                by("named", ref(5)),
                by("one", elsewhere),
            ],
        )
    )
    await store.commit(purge(ref(1), ref(3), ref(5)))
    assert sum(step.definitions for step in await tidy(store)) == 2
    assert await there(store, "one", "two", "open", "nobody's", "named") == ["one", "open", "named"]
    assert await there(store, "one", tenant="other") == ["one"]
    definition = await store.definition("acme", "order", 1)
    assert definition is not None
    await store.commit(Batch(runs=[append(ref(4), 2, closing=closed())]))
    await store.commit(purge(ref(2), ref(4)))
    assert sum(step.definitions for step in await tidy(store)) == 2
    assert await there(store, "one", "open", "named") == ["named"]
    assert await there(store, "one", tenant="other") == ["one"]
    # There is nothing more, and the next run to have one of them brings it again.
    assert not any(step.definitions for step in await tidy(store))
    await store.commit(Batch(definitions=[text("one")], runs=[by("one", ref(6))]))
    assert sum(step.definitions for step in await tidy(store)) == 0
    assert await there(store, "one") == ["one"]


async def test_a_definition_that_is_registered_later_stays(store: Store) -> None:
    await store.commit(Batch(definitions=[text("one")], runs=[by("one", ref(1))]))
    await store.commit(Batch(definitions=[text("one", workflow="order")]))
    await store.commit(purge(ref(1)))
    await tidy(store)
    assert await there(store, "one") == ["one"]


async def test_what_is_started_between_the_steps_keeps_its_text(store: Store) -> None:
    """By a definition that was nobody's when the first step was made, or that no run had yet been seen to have."""
    some = [f"{number:05}" for number in range(SEVERAL_STEPS)]
    await store.commit(Batch(definitions=[text(name) for name in some], runs=[by(some[0], ref(1))]))
    await store.commit(purge(ref(1)))
    number, steps, removed = 1, 0, 0
    wanted: list[str] = []
    more = True
    while more:
        step = await store.tidy(NOW)
        more, steps, removed = step.more, steps + 1, removed + step.definitions
        for name in (some[number], some[-number]):
            number += 1
            wanted.append(name)
            await store.commit(Batch(definitions=[text(name)], runs=[by(name, ref(number))]))
            assert await there(store, *wanted) == wanted
    assert steps > 2
    assert removed >= len(some) - len(wanted)
    await tidy(store)
    assert await there(store, *some) == sorted(wanted)


def test_a_text_that_is_just_being_written_is_waited_for(postgres_url: str, postgres: PostgresServer) -> None:
    driver = open_postgres(postgres_url, 4, 1.0, 30.0)
    driver.writer.take_shards()
    driver.writer.commit(Batch(definitions=[text("one"), text("two")]))
    database = driver.writer._connection.info.dbname
    with postgres.connect(database) as somebody, somebody.transaction():
        somebody.execute(
            "INSERT INTO engine.definitions (tenant, hash, text) VALUES ('acme', 'one', 'text of one') "
            "ON CONFLICT DO NOTHING"
        )
        somebody.execute(
            "INSERT INTO engine.executions (tenant, run_id, workflow_id, shard, status, started_at, definition_hash, "
            "labels) VALUES ('acme', gen_random_uuid(), 'order', 0, 'RUNNING', 0, 'one', '{}')"
        )
        assert driver.writer.tidy(NOW) == Tidied(), "nobody knows yet whether a run has it"
    assert driver.writer.tidy(NOW) == Tidied(definitions=1)
    assert driver.reader.definition_text("acme", "one") == "text of one"
    assert driver.reader.definition_text("acme", "two") is None
    driver.close()


def names_in(path: Path) -> set[str]:
    driver = open_driver(path, 4, 1.0)
    found = {name for (name,) in driver.reader._connection.execute("SELECT name FROM names")}
    driver.close()
    return found


def test_names_that_stand_in_no_row_go_from_an_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    driver = open_driver(path, 4, 1.0)
    driver.writer.take_shards()
    child = msgspec.structs.replace(new(workflow="child", parent=ref(3).run_id), definition_hash="h2")
    driver.writer.commit(
        Batch(
            runs=[
                by("h1", ref(1, tenant="gone")),
                start(ref(2), created=new(workflow="refund"), closing=closed()),
                by("h1", ref(3), ended=False),
                start(ref(4), created=child),
            ]
        )
    )
    driver.writer.commit(purge(ref(1, tenant="gone"), ref(2)))
    steps = [driver.writer.tidy(NOW)]
    while steps[-1].more:
        # A name that is wanted again while it is looked for.
        if len(steps) == 1:
            driver.writer.commit(Batch(runs=[start(ref(5), created=new(workflow="again"))]))
            driver.writer.commit(Batch(runs=[start(ref(6), created=new(workflow="refund"))]))
        steps.append(driver.writer.tidy(NOW))
    assert sum(step.names for step in steps) == 1
    assert driver.writer.tidy(NOW) == Tidied(), "nothing was purged since"
    driver.close()
    assert names_in(path) == {"acme", "h1", "h2", "child", "again", "refund", "a" * 64}
    # A name that has gone is given a number again, which is what its runs are found by.
    driver = open_driver(path, 4, 1.0)
    driver.writer.commit(Batch(runs=[by("h1", ref(7, tenant="gone"))]))
    found = driver.reader.execution("gone", ref(7).run_id)
    assert found is not None
    assert (found.run, found.definition_hash) == (ref(7, tenant="gone"), "h1")
    driver.close()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_sweep_of_any_number_of_steps_removes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(sweeping, "STEP_ROWS", rows)
    path = tmp_path / "engine.db"
    driver = open_driver(path, 4, 1.0)
    driver.writer.take_shards()
    numbers = range(1, 8)
    writes = [by(f"h{number}", ref(number)) for number in numbers]
    driver.writer.commit(Batch(definitions=[text(f"h{number}") for number in numbers], runs=writes))
    driver.writer.commit(purge(*(ref(number) for number in numbers if number % 2)))
    steps = [driver.writer.tidy(NOW)]
    while steps[-1].more:
        steps.append(driver.writer.tidy(NOW))
    assert sum(step.definitions for step in steps) == sum(step.names for step in steps) == 4
    assert [number for number in numbers if driver.reader.definition_text("acme", f"h{number}")] == [2, 4, 6]
    driver.close()
    assert names_in(path) == {"acme", "h2", "h4", "h6"}
