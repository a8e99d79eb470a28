"""Several deadlines of a run in one wake-up: what one of them begins, another may end."""

from __future__ import annotations

from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus


def test_a_task_is_asked_about_and_canceled_by_its_sibling_s_failure_at_once(simulate):
    slow: JSON = {
        "Type": "Task",
        "Resource": "test:flaky",
        "Parameters": {"failures": 0, "seconds": 30},
        "ScheduleToStartSeconds": 5,
        "End": True,
    }
    branches: JSON = [
        {"StartAt": "T", "States": {"T": slow}},
        {
            "StartAt": "W",
            "States": {"W": {"Type": "Wait", "Seconds": 5, "Next": "F"}, "F": {"Type": "Fail", "Error": "Boom"}},
        },
    ]
    fan: JSON = {"Type": "Parallel", "Branches": branches, "End": True}

    async def scenario(daemon) -> None:
        started = await daemon.start({"StartAt": "P", "States": {"P": fan}})
        seen = await daemon.closed(started)
        assert (seen.status, seen.error) == (ExecutionStatus.FAILED, "Boom")
        assert [view.restarts for view in daemon.supervisor.views()] == [0] * 5

    simulate(scenario)
