"""Reading an execution back costs a snapshot and a bounded tail, however long its history is."""

from __future__ import annotations

import trio

from daemon.execution import snapshot
from daemon.journal.batch import SNAPSHOT_BYTES
from daemon.settings import HistorySettings, Settings
from enginekit.messages import calls
from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus

LOOP = {
    "StartAt": "A",
    "States": {
        "A": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "Next": "B"},
        "B": {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericLessThan": 3000, "Next": "A"}], "Default": "C"},
        "C": {"Type": "Wait", "Seconds": 3600, "Next": "D"},
        "D": {"Type": "Task", "Resource": "echo", "End": True},
    },
}
BATCH_BYTES = 500 * 400
"""More than one bounded step of this workflow writes."""


def test_a_long_history_is_read_back_by_its_snapshot_and_a_bounded_tail(simulate):
    async def scenario(daemon):
        started = await daemon.start(LOOP, {"n": 0})
        await trio.sleep(60)
        view = await daemon.call(calls.DescribeWorkflow(workflow_id=started.workflow_id), calls.DescribeWorkflowResult)
        ref = RunRef("acme", started.workflow_id, started.run_id)
        (stored,) = await daemon.memory.load_runs([ref], snapshot.FINGERPRINT, 1)
        whole = await daemon.memory.events("acme", started.run_id, 0, 100_000, 2**30)
        closed = await daemon.closed(started)
        return view, stored, whole, closed

    # Nothing is kept in memory, so that the run is read back for every step after the Wait.
    settings = Settings(history=HistorySettings(cache_bytes=0))
    view, stored, whole, closed = simulate(scenario, settings=settings)
    assert [node.path for node in view.nodes] == ["C"]
    assert sum(map(len, whole)) > 1_000_000
    assert stored.snapshot is not None
    bound = max(SNAPSHOT_BYTES, len(stored.snapshot.data)) + BATCH_BYTES
    assert sum(map(len, stored.tail)) <= bound
    assert stored.snapshot.event_id + len(stored.tail) == view.history_length
    assert closed.status is ExecutionStatus.SUCCEEDED
    assert closed.history_length == view.history_length + 8


def test_a_snapshot_of_another_shape_is_ignored(simulate, monkeypatch):
    async def scenario(daemon):
        started = await daemon.start(LOOP, {"n": 2000})
        await trio.sleep(60)
        # As if a newer engine, whose state has other fields, had been started on the same store.
        monkeypatch.setattr(snapshot, "FINGERPRINT", "another shape")
        return await daemon.closed(started)

    closed = simulate(scenario, settings=Settings(history=HistorySettings(cache_bytes=0)))
    assert closed.status is ExecutionStatus.SUCCEEDED
