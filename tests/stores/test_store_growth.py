"""What the SQLite store does for one question, or one batch, is the same however many executions there are.

Counted in steps of SQLite's own machine: a plan may name an index and still walk through all rows of a tenant.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_builders import NOW, append, batch, new, queued, ref, start

from daemon.stores.rows import Execution, ExecutionFilter, LetterFilter
from daemon.stores.sqlite.database import SqliteDriver, open_driver
from enginekit.messages.status import ExecutionStatus

FEW, MANY = 50, 2000
MORE_STEPS = 60
"""A tree that is a level deeper, a page's last rows: but not a step for each of the rows that came."""
RUN = ref(1)
LAST = ref(MANY).run_id
"""After all of them: what a page begins before."""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[SqliteDriver]:
    opened = open_driver(tmp_path / "engine.db", 4, 1.0)
    opened.writer.take_shards()
    yield opened
    opened.close()


def fill(driver: SqliteDriver, first: int, last: int) -> None:
    """Executions that wait, each with a label and a task."""
    writes = []
    for number in range(first, last):
        created = new(labels={"region": "eu"}, request_id=f"request-{number}")
        run = ref(number)
        writes.append(start(run, created=created, wake_at=NOW + number, tasks=[queued(run, 1)]))
    driver.writer.commit(batch(*writes))


def steps(connection: sqlite3.Connection, do: Callable[[], object]) -> int:
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(step, 1)
    do()
    connection.set_progress_handler(None, 1)
    return count


def executions(driver: SqliteDriver, **wanted: object) -> Callable[[], list[Execution]]:
    return lambda: driver.reader.list_executions(ExecutionFilter(tenant="acme", limit=10, **wanted))


def test_no_question_costs_more_because_there_are_more_executions(driver: SqliteDriver) -> None:
    reader = driver.reader
    questions: dict[str, Callable[[], object]] = {
        "start_check of a new one": lambda: reader.start_check("acme", "none of them", "nor asked for"),
        "start_check of a known one": lambda: reader.start_check("acme", RUN.workflow_id, "request-1"),
        "execution": lambda: reader.execution("acme", RUN.run_id),
        "load_runs": lambda: reader.load_runs([RUN], "fingerprint", 1000),
        "events": lambda: reader.events("acme", RUN.run_id, 0, 10, 1000),
        "events_by_id": lambda: reader.events_by_id("acme", RUN.run_id, [1]),
        "due_runs": lambda: reader.due_runs(NOW, 10, None),
        "effects": lambda: reader.effects(10, None, None),
        "waiting_tasks": lambda: reader.waiting_tasks(queued(RUN, 1).queue, 10, None, []),
        "map_results": lambda: reader.map_results("acme", RUN.run_id, 1, "SUCCEEDED", 0, 1000),
        "executions": executions(driver),
        "executions of a workflow": executions(driver, workflow="none of them"),
        "executions of a status": executions(driver, status=ExecutionStatus.FAILED),
        "executions of a label": executions(driver, label=("region", "none of them")),
        "children": executions(driver, parent="none of them"),
        "executions before one": executions(driver, before_run_id=LAST),
        "of a workflow before one": executions(driver, before_run_id=LAST, workflow="order"),
        "of a status before one": executions(driver, before_run_id=LAST, status=ExecutionStatus.RUNNING),
        "of a label before one": executions(driver, before_run_id=LAST, label=("region", "eu")),
        "of a label, a workflow and a status before one": executions(
            driver, before_run_id=LAST, label=("region", "eu"), workflow="order", status=ExecutionStatus.RUNNING
        ),
        "dead_letters": lambda: reader.dead_letters(LetterFilter(tenant="acme", limit=10)),
        "dead_letter": lambda: reader.dead_letter("acme", RUN.run_id, 1),
    }

    def of_each() -> dict[str, int]:
        return {name: steps(reader._connection, ask) for name, ask in questions.items()}

    fill(driver, 1, FEW)
    few = of_each()
    assert all(few.values())
    before = [ask() for name, ask in questions.items() if name.endswith("before one")]
    assert [len(page) for page in before if isinstance(page, list)] == [10] * 5
    fill(driver, FEW, MANY)
    many = of_each()
    assert {name: (few[name], many[name]) for name in questions if many[name] > few[name] + MORE_STEPS} == {}


def test_no_batch_costs_more_because_there_are_more_executions(driver: SqliteDriver) -> None:
    def of_a_batch(number: int) -> int:
        return steps(
            driver.writer._connection,
            lambda: driver.writer.commit(batch(start(ref(number)), append(ref(number - 1), 2))),
        )

    fill(driver, 1, FEW)
    few = of_a_batch(FEW)
    fill(driver, FEW + 1, MANY)
    assert of_a_batch(MANY) <= few + MORE_STEPS
