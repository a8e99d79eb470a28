"""Tasks that are run and then wait for their token: `.waitForTaskToken`."""

from __future__ import annotations

import pytest

from daemon.execution.commands import CompleteTask, FailTask, ReturnTask, StartTask
from daemon.execution.deadlines import node_deadline
from daemon.execution.tokens import CALLBACK
from daemon.execution.view import describe
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import ExecutionStatus, Refused


def asking(resource: str = "echo.waitForTaskToken", **more: JSON) -> dict[str, JSON]:
    ask = {"Type": "Task", "Resource": resource, "Parameters": {"token.$": "$$.Task.Token"}, "End": True, **more}
    return {"StartAt": "Ask", "States": {"Ask": ask}}


def answer(run, value: JSON, returns: int = CALLBACK) -> None:
    run.do(CompleteTask(task=run.task("Ask")[1].id, returns=returns, output=encode(value)))


def test_the_state_ends_with_what_comes_by_the_token(drive):
    run = drive(asking())
    task_id = run.task("Ask")[1].id
    assert run.task("Ask")[1].input.value == {"token": f"token-{task_id}--1"}
    run.complete("Ask", "mail sent")
    assert describe(run.run, run.pulse).nodes[0].state == "awaiting_token"
    assert run.run.status is ExecutionStatus.RUNNING
    answer(run, {"approved": True})
    assert run.output == {"approved": True}
    assert run.types[-5:] == ["TaskStarted", "TaskSubmitted", "TaskCompleted", "NodeExited", "WorkflowSucceeded"]


def test_the_token_may_come_before_the_task_was_run(drive):
    run = drive(asking())
    task_id = run.task("Ask")[1].id
    decision_before = len(run.stored)
    answer(run, "early")
    assert run.output == "early"
    assert "TaskSubmitted" not in run.types[decision_before:]
    with pytest.raises(Refused) as again:
        run.do(CompleteTask(task=task_id, returns=CALLBACK, output=encode(1)))
    assert again.value.data == {"reason": "ALREADY_RECORDED"}


def test_a_worker_whose_task_was_answered_meanwhile_is_told(drive):
    run = drive(asking("activity:desk.waitForTaskToken"))
    task_id = run.task("Ask")[1].id
    run.do(StartTask(task=task_id, worker="w"))
    decision = run.do(CompleteTask(task=task_id, returns=CALLBACK, output=encode("yes")))
    assert (decision.removed, decision.canceled) == ([task_id], [task_id])


def test_a_worker_s_own_token_only_says_that_it_was_run(drive):
    run = drive(asking("activity:desk.waitForTaskToken"))
    task_id = run.task("Ask")[1].id
    run.do(StartTask(task=task_id, worker="w"))
    answer(run, "sent", returns=0)
    assert run.run.status is ExecutionStatus.RUNNING
    with pytest.raises(Refused) as again:
        answer(run, "sent", returns=0)
    assert again.value.data == {"reason": "ALREADY_RECORDED"}
    with pytest.raises(Refused, match="completes or fails"):
        run.do(ReturnTask(task=task_id, returns=CALLBACK, reason="no"))
    answer(run, "approved")
    assert run.output == "approved"


def test_it_can_fail_by_its_token_and_be_tried_again_with_another(drive):
    run = drive(asking(Retry=[{"ErrorEquals": ["Denied"], "MaxAttempts": 1}]))
    first = run.task("Ask")[1].id
    run.complete("Ask", None)
    run.do(FailTask(task=first, returns=CALLBACK, error="Denied", cause="not today"))
    run.advance(1)
    second = run.task("Ask")[1].id
    assert second != first
    run.complete("Ask", None)
    with pytest.raises(Refused):
        run.do(CompleteTask(task=first, returns=CALLBACK, output=encode(1)))
    answer(run, 2)
    assert run.output == 2


def test_a_repeated_report_of_the_daemon_s_worker_changes_nothing(drive):
    run = drive(asking())
    run.complete("Ask", "sent")
    before = len(run.stored)
    run.complete("Ask", "sent")
    assert len(run.stored) == before


def test_nobody_answers_within_the_timeout(drive):
    run = drive(asking(TimeoutSeconds=3600))
    run.complete("Ask", "sent")
    run.advance(3599)
    assert run.run.status is ExecutionStatus.RUNNING
    run.advance(1)
    assert (run.run.status, run.run.error) == (ExecutionStatus.FAILED, "States.Timeout")


def test_without_a_timeout_it_waits_for_years_whatever_the_default_is(drive):
    run = drive(asking())
    run.complete("Ask", "sent")
    run.advance(86_400 * 365)
    answer(run, "late")
    assert run.output == "late"


def test_it_must_be_heard_of_where_heartbeats_are_asked_for(drive):
    run = drive(asking(HeartbeatSeconds=60))
    run.complete("Ask", "sent")
    run.advance(50)
    node, task = run.task("Ask")
    run.pulse.beats[task.id] = run.now
    deadline = node_deadline(node, run.pulse)
    assert deadline is not None
    assert (deadline[0] - run.now).total_seconds() == 60
    run.advance(61)
    assert run.run.error == "States.HeartbeatTimeout"


def test_the_result_of_a_lambda_is_not_wrapped_then(drive):
    run = drive(
        asking(
            "arn:aws:states:::lambda:invoke.waitForTaskToken",
            Parameters={"FunctionName": "ask", "Payload": {"token.$": "$$.Task.Token"}},
        )
    )
    task_id = run.task("Ask")[1].id
    run.do(StartTask(task=task_id, worker="w"))
    answer(run, "sent", returns=0)
    answer(run, {"ok": 1})
    assert run.output == {"ok": 1}


def test_other_tasks_have_no_token_in_their_context(drive):
    run = drive(asking("echo"))
    assert run.run.status is ExecutionStatus.FAILED
    assert "The JSONPath '$.Task.Token' specified for the field" in (run.run.cause or "")
