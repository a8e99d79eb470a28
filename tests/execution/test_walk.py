"""How a run walks its states: input and output, choices, waits, failures, retries, catches."""

from __future__ import annotations

import pytest
from msgspec import Raw

from daemon.execution.commands import Limits, RecordOutcome
from enginekit.messages import events as ev
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus


def task(resource="echo", **more):
    return {"Type": "Task", "Resource": resource, **more}


def test_a_run_of_pure_states_closes_in_one_decision(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {
                "A": {"Type": "Pass", "Result": 7, "ResultPath": "$.seven", "Next": "B"},
                "B": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.seven", "NumericEquals": 7, "Next": "C"}],
                    "Default": "A",
                },
                "C": {"Type": "Succeed"},
            },
        },
        {"x": 1},
    )
    assert run.run.status is ExecutionStatus.SUCCEEDED
    assert run.output == {"x": 1, "seven": 7}
    assert run.types == ["WorkflowStarted", *["NodeEntered", "NodeExited"] * 3, "WorkflowSucceeded"]


def test_a_task_is_scheduled_and_its_outcome_goes_on(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {
                "A": task(Parameters={"n.$": "$.n"}, ResultPath="$.a", Next="B"),
                "B": task(End=True),
            },
        },
        {"n": 1, "big": "x" * 100},
    )
    assert run.types[-1] == "TaskScheduled"
    run.complete("A", [1, 2])
    assert run.types[-5:] == ["TaskStarted", "TaskCompleted", "NodeExited", "NodeEntered", "TaskScheduled"]
    run.complete("B", "done")
    assert run.output == "done"


def test_a_payload_is_stored_once(drive):
    run = drive(
        {"StartAt": "A", "States": {"A": task(Next="B"), "B": task(Next="C"), "C": {"Type": "Pass", "End": True}}},
        {"big": "x" * 10_000},
    )
    run.work(lambda _run, _node, attempt: attempt.input.value)
    assert run.output == {"big": "x" * 10_000}
    assert sum(len(data) for data in run.stored) < 10_000 + 4_000


def test_the_token_and_times_of_the_context_object(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {
                "A": task(
                    Parameters={
                        "name.$": "$$.State.Name",
                        "id.$": "$$.Execution.Name",
                        "entered.$": "$$.State.EnteredTime",
                        "machine.$": "$$.StateMachine.Name",
                        "retries.$": "$$.State.RetryCount",
                    },
                    End=True,
                )
            },
        }
    )
    assert run.task("A")[1].input.value == {
        "name": "A",
        "id": "order-1",
        "entered": "2026-01-01T00:00:00.000Z",
        "machine": "orders",
        "retries": 0,
    }


def test_a_wait_holds_until_its_time(drive):
    run = drive(
        {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 259200, "Next": "D"}, "D": {"Type": "Succeed"}}}
    )
    assert run.types[-1] == "TimerStarted"
    run.advance(259199)
    assert run.run.status is ExecutionStatus.RUNNING
    run.advance(1)
    assert run.types[-5:] == ["TimerFired", "NodeExited", "NodeEntered", "NodeExited", "WorkflowSucceeded"]


def test_retry_backs_off_then_catch_takes_over(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {
                "A": task(
                    Retry=[{"ErrorEquals": ["Boom"], "IntervalSeconds": 2, "BackoffRate": 3, "MaxAttempts": 2}],
                    Catch=[{"ErrorEquals": ["States.ALL"], "ResultPath": "$.why", "Next": "Sorry"}],
                    End=True,
                ),
                "Sorry": {"Type": "Pass", "End": True},
            },
        },
        {"x": 1},
    )
    started = run.now
    run.fail("A", "Boom", "first")
    retry = run.events[-1]
    assert isinstance(retry, ev.TaskRetryScheduled)
    assert (retry.at - started).total_seconds() == 2
    run.advance(2)
    assert run.task("A")[1].attempt == 2
    run.fail("A", "Boom", "second")
    run.advance(5)
    assert not run.run.tasks
    run.advance(1)
    run.fail("A", "Boom", "third")
    assert run.run.status is ExecutionStatus.SUCCEEDED
    assert run.output == {"x": 1, "why": {"Error": "Boom", "Cause": "third"}}


def test_an_uncaught_failure_fails_the_run(drive):
    run = drive({"StartAt": "A", "States": {"A": task(End=True)}})
    run.fail("A", "Boom", "because")
    assert (run.run.status, run.run.error, run.run.cause) == (ExecutionStatus.FAILED, "Boom", "because")
    assert run.types[-4:] == ["TaskFailed", "NodeFailed", "TaskDeadLettered", "WorkflowFailed"]


def test_a_fault_in_evaluation_names_the_state_and_path(drive):
    run = drive({"StartAt": "A", "States": {"A": task(Parameters={"v.$": "$.missing"}, End=True)}}, {"x": 1})
    assert run.run.status is ExecutionStatus.FAILED
    assert run.run.error == "States.Runtime"
    assert "$.missing" in run.run.cause


def test_the_default_retry_takes_transient_faults_of_our_own_resources_only(drive):
    own = drive({"StartAt": "A", "States": {"A": task("http", End=True)}})
    own.fail("A", "States.Http.StatusCode.503")
    assert own.types[-1] == "TaskRetryScheduled"
    reference = drive({"StartAt": "A", "States": {"A": task("arn:aws:states:::http:invoke", End=True)}})
    reference.fail("A", "States.Http.StatusCode.503")
    assert reference.run.status is ExecutionStatus.FAILED


@pytest.mark.parametrize(("method", "retried"), [("POST", False), ("GET", True), ("put", True)])
def test_after_a_request_may_have_been_processed_only_harmless_methods_are_repeated(drive, method, retried):
    run = drive({"StartAt": "A", "States": {"A": task("http", Parameters={"Method": method}, End=True)}})
    run.fail("A", "States.Http.StatusCode.504")
    assert (run.run.status is ExecutionStatus.RUNNING) is retried


def test_an_execution_times_out_as_a_whole(drive):
    run = drive({"StartAt": "A", "TimeoutSeconds": 60, "States": {"A": task(End=True)}})
    run.advance(60)
    assert run.run.status is ExecutionStatus.TIMED_OUT
    assert run.types[-2:] == ["TaskCanceled", "WorkflowTimedOut"]


def test_an_output_over_the_limit_fails_by_name(drive):
    run = drive({"StartAt": "A", "States": {"A": task(End=True)}})
    run.complete("A", "x" * 300_000)
    assert run.run.error == "States.DataLimitExceeded"


def test_paths_of_waits_and_ends_shape_what_they_pass_on(drive):
    run = drive(
        {
            "StartAt": "W",
            "States": {
                "W": {"Type": "Wait", "Seconds": 5, "InputPath": "$.order", "Next": "D"},
                "D": {"Type": "Succeed", "InputPath": "$.lines", "OutputPath": "$[0]"},
            },
        },
        {"order": {"lines": ["a", "b"]}},
    )
    run.advance(5)
    assert run.output == "a"


def test_when_the_daemon_s_worker_began_is_recorded_with_its_end(drive):
    run = drive({"StartAt": "A", "States": {"A": task(End=True)}})
    run.advance(10)
    began = run.now
    run.advance(5)
    run.do(RecordOutcome(task=run.task("A")[1].id, worker="w", output=Raw(b"1"), ran_seconds=5.0))
    started = next(event for event in run.events if isinstance(event, ev.TaskStarted))
    assert (started.began_at, started.time) == (began, run.now)


def test_a_step_ends_when_its_expressions_have_looked_at_much(drive):
    look = {"Type": "Pass", "Parameters": {"n.$": "States.ArrayLength($..*)", "list.$": "$.list"}}
    states: dict[str, JSON] = {f"S{number}": {**look, "Next": f"S{number + 1}"} for number in range(20)}
    definition: dict[str, JSON] = {"StartAt": "S0", "States": {**states, "S20": {"Type": "Succeed"}}}
    data: JSON = {"list": list(range(3_000))}
    whole, pieces = drive(definition, data), drive(definition, data, Limits(step_values=10_000))
    assert whole.steps < 5
    assert pieces.steps > 15
    assert pieces.output == whole.output
