"""What stands around a state's cause: the frame that names the state, how long it may be, what it must not tell."""

from __future__ import annotations

from daemon.execution.nodes import CAUSE_CHARACTERS
from enginekit.messages.json import JSON

MISSING: dict[str, JSON] = {"Type": "Pass", "Parameters": {"x.$": "$.nope"}, "End": True}


def machine(**states: JSON) -> dict[str, JSON]:
    return {"StartAt": next(iter(states)), "States": states}


def test_a_cause_is_cut_where_the_reference_service_cuts_it(drive):
    run = drive(machine(A=MISSING), {"big": "x" * 200_000})
    start = (
        "An error occurred while executing the state 'A' (entered at the event id #2). The JSONPath '$.nope' specified"
    )
    assert run.run.cause.startswith(start)
    assert len(run.run.cause) == CAUSE_CHARACTERS == 32_768


def test_the_innermost_state_is_named_and_no_other(drive):
    inner = machine(B=MISSING)
    each = machine(M={"Type": "Map", "ItemProcessor": inner, "End": True})
    run = drive(machine(P={"Type": "Parallel", "Branches": [each], "End": True}), [{"a": 1}])
    (entered,) = [event.id for event in run.events if getattr(event, "node", "") == "B" and hasattr(event, "input_ref")]
    assert run.run.cause == (
        f"An error occurred while executing the state 'B' (entered at the event id #{entered}). The JSONPath '$.nope' "
        "specified for the field 'x.$' could not be found in the input '{\"a\":1}'"
    )


def test_a_task_s_token_is_not_told_by_its_cause(drive):
    parameters = {"token.$": "$$.Task.Token", "x.$": "$$.Execution.Nope"}
    ask = {"Type": "Task", "Resource": "echo.waitForTaskToken", "Parameters": parameters, "End": True}
    run = drive(machine(Ask=ask))
    assert "The JSONPath '$.Execution.Nope' specified for the field 'x.$' could not be found" in run.run.cause
    assert '"Execution":{' in run.run.cause
    assert "Task" not in run.run.cause.partition("in the input")[2]
    assert "token-" not in run.run.cause


def test_what_a_later_state_reads_of_a_cause_is_what_the_execution_would_have_failed_with(drive):
    task = {"Type": "Task", "Resource": "activity:a", "Parameters": {"x.$": "$.nope"}}
    caught = {**task, "Catch": [{"ErrorEquals": ["States.Runtime"], "Next": "C"}], "End": True}
    failed = drive(machine(A={**task, "End": True}), {"a": 1}).run
    run = drive(machine(A=caught, C={"Type": "Succeed"}), {"a": 1})
    assert run.output == {"Error": failed.error, "Cause": failed.cause}
