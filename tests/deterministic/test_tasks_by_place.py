"""How many tasks are where, as /metrics shows it: the same where queues are one Matching's, several', or shared."""

from __future__ import annotations

import pytest
import trio
from simulation import Simulation
from split_daemon import Split, split

from daemon.queues.interface import Places
from daemon.settings import MatchingSettings, Settings, TaskSettings
from enginekit.messages import calls

SETTINGS = Settings(matching=MatchingSettings(partitions=4), tasks=TaskSettings(lease_seconds=600.0))
AT_DESK = {"StartAt": "W", "States": {"W": {"Type": "Task", "Resource": "activity:desk", "End": True}}}
STARTED = 5


async def start(daemon: Simulation) -> None:
    """Five tasks, of which a worker has got two."""
    for number in range(STARTED):
        await daemon.start(AT_DESK, workflow_id=f"order-{number}")
    poll = calls.PollTask(queue="desk", worker_id="clerk", max_tasks=2, wait_seconds=5)
    assert len((await daemon.call(poll, calls.PollTaskResult)).tasks) == 2
    await trio.sleep(1)


def test_of_a_matching_that_is_alone(simulate):
    async def scenario(daemon: Simulation) -> None:
        def shown(state: str) -> float | None:
            labels = {"partition": "0", "state": state}
            return daemon.metrics.registry.get_sample_value("engine_queue_tasks", labels)

        assert [shown(state) for state in ("ready", "leased", "delayed")] == [0, 0, 0]
        await start(daemon)
        assert [shown(state) for state in ("ready", "leased", "delayed")] == [3, 0, 0]

    simulate(scenario)


@pytest.mark.parametrize("shared", [False, True])
def test_of_several(monkeypatch, tmp_path, shared):
    monkeypatch.setattr(Split, "shared_queues", shared)

    async def scenario(daemon: Split) -> None:
        one, other = await daemon.matching(), await daemon.matching()
        await start(daemon)
        await trio.sleep(2 * SETTINGS.matching.scan_seconds)
        told = [process.service.places() for process in (one, other)]
        assert sorted([*told[0], *told[1]]) == sorted([0, 1, 2, 3] * (2 if shared else 1))
        everywhere = told[0] | told[1]
        assert sorted(places.ready for places in everywhere.values()) == [0, 0, 0, 3]
        assert {(places.leased, places.delayed) for places in everywhere.values()} == {(0, 0)}
        if shared:
            assert told[0] == told[1]
            assert Places(ready=3, leased=0, delayed=0) in told[0].values()

    split(scenario, tmp_path, SETTINGS, {})
