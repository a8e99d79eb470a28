"""Bounds that hold for every run, and the order in which policies are asked."""

from __future__ import annotations

import pytest

from daemon.execution.commands import Limits, StartTask, Wake
from daemon.execution.deadlines import next_wake
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus

PATIENT: JSON = [{"ErrorEquals": ["E"], "MaxAttempts": 99_999, "IntervalSeconds": 1, "BackoffRate": 1}]
TRYING: dict[str, JSON] = {
    "StartAt": "T",
    "States": {"T": {"Type": "Task", "Resource": "echo", "Retry": PATIENT, "End": True}},
}


@pytest.mark.parametrize("limits", [Limits(history_events=100), Limits(history_bytes=10_000)])
def test_a_run_that_only_retries_comes_to_its_limit_too(drive, limits):
    run = drive(TRYING, limits=limits)
    for _ in range(60):
        if run.run.status.closed:
            break
        run.fail("T", "E", "c" * 500)
        run.advance(1)
    assert (run.run.status, run.run.error) == (ExecutionStatus.FAILED, "Engine.HistoryLimit")
    assert run.run.last_event_id < 110


def test_what_is_due_between_two_milliseconds_is_due_at_the_second(drive):
    wait: dict[str, JSON] = {"Type": "Wait", "Timestamp": "2026-01-01T00:00:01.123456Z", "End": True}
    run = drive({"StartAt": "W", "States": {"W": wait}})
    at = next_wake(run.run, run.pulse)
    assert at is not None
    assert at.microsecond == 124_000
    run.advance(2)
    assert run.run.status is ExecutionStatus.SUCCEEDED


def parallel(error: str, *catch: tuple[str, str]) -> dict[str, JSON]:
    """One branch that fails so; each catcher, by its error name, leads to a state with a result."""
    policies: JSON = [{"ErrorEquals": [name], "Next": to} for name, to in catch]
    branch: JSON = {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": error}}}
    ends: dict[str, JSON] = {to: {"Type": "Pass", "Result": to, "End": True} for _, to in catch}
    fan: JSON = {"Type": "Parallel", "Branches": [branch], "Catch": policies, "End": True}
    return {"StartAt": "P", "States": {"P": fan, **ends}}


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("States.Runtime", "States.ALL"),
        ("States.DataLimitExceeded", "States.ALL"),
        ("States.Timeout", "States.TaskFailed"),
    ],
)
def test_a_parallel_s_wildcards_do_not_catch_more_than_those_of_others(drive, error, name):
    run = drive(parallel(error, (name, "Caught")))
    assert (run.run.status, run.run.error) == (ExecutionStatus.FAILED, error)


@pytest.mark.parametrize("error", ["Boom", "States.Runtime", "States.Timeout"])
def test_that_a_branch_failed_is_matched_by_its_name_in_order(drive, error):
    assert drive(parallel(error, ("States.BranchFailed", "First"), ("States.ALL", "Second"))).output == "First"


def test_a_long_cause_is_kept_in_part(drive):
    inner: dict[str, JSON] = {"StartAt": "L", "States": {"L": {"Type": "Fail", "ErrorPath": "$.e", "CausePath": "$.c"}}}
    for level in range(10):
        only = f"P{level}"
        inner = {"StartAt": only, "States": {only: {"Type": "Parallel", "Branches": [inner], "End": True}}}
    run = drive(inner, {"c": "x" * 200_000, "e": "e" * 40_000})
    assert (len(run.run.error or ""), len(run.run.cause or "")) == (256, 32_768)
    assert run.run.history_bytes < 1_200_000


def test_what_was_given_back_and_canceled_in_one_step_is_only_canceled(drive):
    task: dict[str, JSON] = {"Type": "Task", "Resource": "activity:a", "End": True}
    branches: JSON = [
        {"StartAt": "A", "States": {"A": task}},
        {"StartAt": "B", "States": {"B": {**task, "TimeoutSeconds": 30}}},
    ]
    run = drive({"StartAt": "P", "States": {"P": {"Type": "Parallel", "Branches": branches, "End": True}}})
    for path in ("P[0].A", "P[1].B"):
        run.do(StartTask(task=run.task(path)[1].id, worker="w"))
    at = next_wake(run.run, run.pulse)
    assert at is not None
    run.now = at
    decision = run.do(Wake(pulse=run.pulse))
    assert run.run.status is ExecutionStatus.FAILED
    assert decision.returned == []


def nested(levels: str, leaf: JSON) -> dict[str, JSON]:
    """A Map in a Map for each letter."""
    inner: dict[str, JSON] = {"StartAt": "L", "States": {"L": leaf}}
    for name in levels:
        inner = {"StartAt": name, "States": {name: {"Type": "Map", "ItemProcessor": inner, "End": True}}}
    return inner


def test_maps_in_maps_open_a_bounded_number_of_branches_and_all_of_them_end(drive):
    data: JSON = [[[1] * 6] * 6] * 6
    run = drive(nested("CBA", {"Type": "Task", "Resource": "echo", "End": True}), data, Limits(open_branches=30))
    most = 0
    while run.run.tasks:
        most = max(most, len(run.run.branches))
        run.complete(run.run.nodes[next(iter(run.run.tasks.values()))].path, 1)
    assert (run.run.status, run.output) == (ExecutionStatus.SUCCEEDED, data)
    # Beyond the bound a Map opens one branch, if it has none: so each of those open opens one more at most.
    assert 30 < most <= 60
