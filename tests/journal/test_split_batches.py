"""A batch that the store refuses is written in parts, each of which is whole by itself."""

from __future__ import annotations

from daemon.journal.committer import _split
from daemon.stores.rows import Batch, DefinitionWrite, NewExecution, RunWrite
from enginekit.messages.links import RunRef


def started(number: int) -> RunWrite:
    run = RunRef("acme", f"order-{number}", f"0193-{number}")
    new = NewExecution(workflow=None, version=None, definition_hash="h", labels={}, request_id=None, started_at=1)
    return RunWrite(shard=0, epoch=1, run=run, first_event_id=1, events=[b"{}"], wake_at=None, created=new)


INLINE = DefinitionWrite(tenant="acme", hash="h", text="an inline one", registered_at=1)
REGISTERED = DefinitionWrite(tenant="acme", hash="r", text="another", name="order", version=1, registered_at=1)


def parts(batch: Batch) -> list[Batch]:
    """As the committer would have to write them, were all of them refused."""
    split = _split(batch)
    if len(split) == 1:
        return split
    return [each for part in split for each in (parts(part) if part.runs else [part])]


def test_each_run_comes_with_the_text_of_its_definition_and_a_registration_is_made_once() -> None:
    runs = [started(number) for number in range(5)]
    found = parts(Batch(runs=runs, definitions=[INLINE, REGISTERED]))
    assert [part.runs for part in found if part.runs] == [[run] for run in runs]
    assert all(INLINE in part.definitions for part in found if part.runs)
    assert [REGISTERED in part.definitions for part in found].count(True) == 1
