"""Child executions as the core sees them: asked for, started, closed, given up."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from daemon.execution.children import DEPTH
from daemon.execution.commands import Cancel, ChildClosed, ChildFault, ChildNotStarted, ChildStarted
from enginekit.messages import events as ev
from enginekit.messages.events import ParentTask, Usage
from enginekit.messages.json import NULL, encode
from enginekit.messages.status import ExecutionStatus

ARN = "arn:aws:states:eu-west-1:123456789012:stateMachine:ship"
START = "arn:aws:states:::states:startExecution"


def task(resource="workflow:ship", **more):
    return {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": resource, "End": True, **more}}}


def machine(**more):
    return {"Parameters": {"StateMachineArn": ARN, "Input": {"n.$": "$.n"}, **more}}


def due(run):
    """The task whose child is to be seen to, and by which policy."""
    return run.decisions[-1].children_due


def began(run, number=None):
    run.do(ChildStarted(task=number or run.task("A")[1].id, workflow_id="child", run_id="r-1", started_at=run.now))


def ended(
    run,
    status=ExecutionStatus.SUCCEEDED,
    output=None,
    error=None,
    cause=None,
    documented=None,
    usage=None,
    number=None,
):
    run.do(
        ChildClosed(
            task=number or run.task("A")[1].id,
            workflow_id="child",
            run_id="r-1",
            workflow="ship",
            status=status,
            input=encode({"n": 1}),
            output=NULL if output is None else encode(output),
            error=error,
            cause=cause,
            documented=documented,
            usage=usage,
            started_at=run.now,
            closed_at=run.now + timedelta(seconds=1),
        )
    )


def test_a_childs_output_is_the_tasks_result(drive):
    run = drive(task(Parameters={"n.$": "$.n"}), {"n": 1, "m": 2})
    number = run.task("A")[1].id
    assert due(run) == {number: "CANCEL"}
    assert (run.offered, run.task("A")[1].child_start.workflow) == ([], "ship")
    began(run)
    ended(run, output={"shipped": True}, usage=Usage(requests=2))
    assert run.output == {"shipped": True}
    assert run.run.usage == Usage(requests=2)
    assert run.types[2:7] == [
        "TaskScheduled",
        "ChildWorkflowStarted",
        "ChildWorkflowClosed",
        "TaskCompleted",
        "NodeExited",
    ]


def test_an_end_that_comes_before_the_word_of_the_start(drive):
    run = drive(task())
    number = run.task("A")[1].id
    ended(run, output=1)
    began(run, number)
    assert run.output == 1
    assert run.types.count("ChildWorkflowStarted") == 1


@pytest.mark.parametrize(
    ("status", "error", "seen"),
    [
        (ExecutionStatus.FAILED, "Acme.Broken", "Acme.Broken"),
        (ExecutionStatus.TIMED_OUT, "States.Timeout", "States.Timeout"),
        (ExecutionStatus.CANCELED, None, "Engine.ChildCanceled"),
        (ExecutionStatus.TERMINATED, None, "Engine.ChildTerminated"),
    ],
)
def test_a_parent_sees_its_childs_failure_as_an_error(drive, status, error, seen):
    run = drive(task())
    began(run)
    ended(run, status, error=error, cause="why")
    assert (run.run.status, run.run.error) == (ExecutionStatus.FAILED, seen)
    assert "why" in run.run.cause
    assert '"child" (run r-1)' in run.run.cause


def test_a_failed_child_is_retried_with_another_and_caught(drive):
    catch = [{"ErrorEquals": ["States.TaskFailed"], "Next": "Z"}]
    retry = [{"ErrorEquals": ["Acme.Broken"], "MaxAttempts": 1}]
    definition = task(Retry=retry, Catch=catch)
    definition["States"]["Z"] = {"Type": "Pass", "End": True}
    run = drive(definition)
    first = run.task("A")[1].id
    ended(run, ExecutionStatus.FAILED, error="Acme.Broken")
    run.advance(2)
    second = run.task("A")[1].id
    assert first != second
    assert due(run) == {second: "CANCEL"}
    ended(run, ExecutionStatus.FAILED, error="Acme.Broken", number=first)
    assert run.task("A")[1].id == second
    ended(run, ExecutionStatus.FAILED, error="Acme.Broken")
    assert run.output["Error"] == "Acme.Broken"


@pytest.mark.parametrize("name", ["States.NoChoiceMatched", "States.Runtime"])
def test_a_childs_failure_keeps_its_name_in_the_specification_for_its_parent(drive, name):
    definition = task(Retry=[{"ErrorEquals": [name], "MaxAttempts": 1}], Catch=[{"ErrorEquals": [name], "Next": "Z"}])
    definition["States"]["Z"] = {"Type": "Pass", "End": True}
    run = drive(definition)
    ended(run, ExecutionStatus.FAILED, error="States.Runtime", documented="States.NoChoiceMatched")
    run.advance(2)
    ended(run, ExecutionStatus.FAILED, error="States.Runtime", documented="States.NoChoiceMatched")
    assert run.output["Error"] == "States.Runtime"
    assert run.types.count("TaskRetryScheduled") == 1


def test_a_parent_that_fails_by_its_child_passes_that_name_on(drive):
    definition = task(Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Z"}])
    definition["States"]["Z"] = {"Type": "Pass", "End": True}
    run = drive(definition)
    ended(run, ExecutionStatus.FAILED, error="States.Runtime", documented="States.NoChoiceMatched")
    assert (run.run.error, run.run.documented) == ("States.Runtime", "States.NoChoiceMatched")


@pytest.mark.parametrize("policy", ["CANCEL", "TERMINATE", "ABANDON"])
def test_a_child_that_nobody_waits_for_any_more_is_seen_to_by_policy(drive, policy):
    run = drive(task(ParentClosePolicy=policy))
    number = run.task("A")[1].id
    began(run)
    run.do(Cancel(reason="", request_id=None))
    assert due(run) == {number: policy}
    assert run.types[-3:] == ["WorkflowCancelRequested", "TaskCanceled", "WorkflowCanceled"]
    ended(run, output=1, number=number)
    assert run.run.status is ExecutionStatus.CANCELED


def test_a_child_that_takes_too_long_is_a_timeout_and_is_ended(drive):
    run = drive(task(TimeoutSeconds=60))
    number = run.task("A")[1].id
    began(run)
    run.advance(60)
    assert (run.run.error, due(run)) == ("States.Timeout", {number: "CANCEL"})


@pytest.mark.parametrize(
    ("resource", "more", "fault", "error"),
    [
        ("workflow:ship", {}, ChildFault.NO_SUCH_WORKFLOW, "Engine.NoSuchWorkflow"),
        ("workflow:ship", {}, ChildFault.NAME_IN_USE, "Engine.WorkflowIdInUse"),
        (START, machine(), ChildFault.NO_SUCH_WORKFLOW, "StepFunctions.StateMachineDoesNotExistException"),
        (f"{START}.sync", machine(), ChildFault.NAME_IN_USE, "StepFunctions.ExecutionAlreadyExistsException"),
    ],
)
def test_a_child_that_cannot_be_started_fails_the_task(drive, resource, more, fault, error):
    run = drive(task(resource, **more), {"n": 1})
    run.do(ChildNotStarted(task=run.task("A")[1].id, fault=fault, cause="no workflow"))
    assert (run.run.error, run.run.cause) == (error, "no workflow")


def test_start_execution_goes_on_as_soon_as_it_has_started(drive):
    run = drive(task(START, **machine(Name="mine")), {"n": 1})
    asked = run.task("A")[1].child_start
    assert (asked.workflow, asked.workflow_id, asked.waited, asked.policy) == ("ship", "mine", False, "ABANDON")
    assert run.task("A")[1].input.value == {"n": 1}
    began(run)
    assert run.output == {"ExecutionArn": "r-1", "StartDate": 1767225600000}


@pytest.mark.parametrize(("suffix", "output"), [(".sync", '{"shipped":true}'), (".sync:2", {"shipped": True})])
def test_start_execution_sync_tells_of_the_execution(drive, suffix, output):
    run = drive(task(START + suffix, **machine()), {"n": 1})
    began(run)
    ended(run, output={"shipped": True})
    assert run.output == {
        "ExecutionArn": "r-1",
        "Input": '{"n":1}',
        "InputDetails": {"Included": True},
        "Name": "child",
        "Output": output,
        "OutputDetails": {"Included": True},
        "StartDate": 1767225600000,
        "StateMachineArn": "ship",
        "Status": "SUCCEEDED",
        "StopDate": 1767225601000,
    }


def test_start_execution_sync_fails_as_the_reference_service_does(drive):
    run = drive(task(f"{START}.sync:2", **machine()), {"n": 1})
    ended(run, ExecutionStatus.CANCELED, cause="stopped")
    assert run.run.error == "States.TaskFailed"
    told = json.loads(run.run.cause)
    assert (told["Status"], told["Cause"]) == ("ABORTED", "stopped")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"StateMachineArn.$": "$.arn"}, "StepFunctions.InvalidArnException"),
        ({"StateMachineArn": ARN, "Name.$": "$.arn"}, "StepFunctions.InvalidNameException"),
        ({"StateMachineArn": ARN, "Input.$": "$.text"}, "StepFunctions.InvalidExecutionInputException"),
    ],
)
def test_arguments_that_are_only_known_when_it_runs(drive, given, error):
    run = drive(task(START, Parameters=given), {"arn": "no such\n", "text": "{"})
    assert run.run.error == error


def test_an_input_that_is_a_text_of_json(drive):
    run = drive(task(START, Parameters={"StateMachineArn": ARN, "Input.$": "$.text"}), {"text": '{"a": 1}'})
    assert run.task("A")[1].input.value == {"a": 1}


def test_children_of_children_end_somewhere(drive):
    above = ParentTask(workflow_id="w", run_id="r", task=3, depth=DEPTH)
    run = drive(task(), parent_task=above)
    assert run.run.error == "Engine.ChildDepth"
    run = drive(task(), parent_task=ParentTask(workflow_id="w", run_id="r", task=3, depth=DEPTH - 1))
    assert run.run.status is ExecutionStatus.RUNNING


def test_a_task_that_ends_by_its_token_starts_the_execution_and_waits(drive):
    given = {"StateMachineArn": ARN, "Input": {"token.$": "$$.Task.Token"}}
    run = drive(task(f"{START}.waitForTaskToken", Parameters=given))
    began(run)
    assert isinstance(run.events[-1], ev.TaskSubmitted)
