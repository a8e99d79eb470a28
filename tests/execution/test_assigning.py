"""Variables of a run: assigned with the event that leaves a node, seen below, gone with their branch."""

from __future__ import annotations

from daemon.execution.commands import Limits
from enginekit.messages import events as ev
from enginekit.messages.json import JSON, decode
from enginekit.messages.status import ExecutionStatus

END: dict[str, JSON] = {"Type": "Pass", "End": True}


def chain(*states: dict[str, JSON]) -> dict[str, JSON]:
    """States named A, B, C … one after the other."""
    names = [chr(ord("A") + number) for number in range(len(states))]
    made: dict[str, JSON] = {}
    for number, each in enumerate(states):
        last = number + 1 == len(states)
        made[names[number]] = {**each, **({"End": True} if last else {"Next": names[number + 1]})}
    return {"StartAt": "A", "States": made}


def test_what_is_assigned_is_seen_by_later_states_and_recorded(drive):
    run = drive(
        chain(
            {"Type": "Pass", "Assign": {"id.$": "$.id", "n": 1}},
            {"Type": "Pass", "Assign": {"n.$": "States.MathAdd($n, 1)", "old.$": "$n"}},
            {"Type": "Pass", "Parameters": {"id.$": "$id", "n.$": "$n", "old.$": "$old"}},
        ),
        {"id": "o-1"},
    )
    assert run.output == {"id": "o-1", "n": 2, "old": 1}
    assigned = [decode(event.assigned) for event in run.events if isinstance(event, ev.NodeExited) and event.assigned]
    assert assigned == [{"id": "o-1", "n": 1}, {"n": 2, "old": 1}]


def test_branches_and_iterations_see_what_is_outside_and_keep_their_own(drive):
    inner: dict[str, JSON] = {
        "StartAt": "Own",
        "States": {
            "Own": {"Type": "Pass", "Assign": {"own.$": "$"}, "Next": "Sum"},
            "Sum": {"Type": "Pass", "Parameters": {"sum.$": "States.MathAdd($own, $base)"}, "End": True},
        },
    }
    run = drive(
        {
            "StartAt": "Base",
            "States": {
                "Base": {"Type": "Pass", "Assign": {"base": 100}, "Next": "Each"},
                "Each": {"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": inner, "End": True},
            },
        },
        {"items": [1, 2, 3]},
    )
    assert run.output == [{"sum": 101}, {"sum": 102}, {"sum": 103}]


def test_a_parallel_assigns_from_its_results(drive):
    run = drive(
        chain(
            {
                "Type": "Parallel",
                "Branches": [
                    {"StartAt": "L", "States": {"L": {**END, "Result": "l"}}},
                    {"StartAt": "R", "States": {"R": {**END, "Result": "r"}}},
                ],
                "Assign": {"right.$": "$[1]"},
                "ResultPath": None,
            },
            {"Type": "Pass", "Parameters": {"right.$": "$right", "in.$": "$.in"}},
        ),
        {"in": 1},
    )
    assert run.output == {"right": "r", "in": 1}


def test_a_failed_attempt_assigns_nothing_and_a_catcher_its_own(drive):
    run = drive(
        {
            "StartAt": "Try",
            "States": {
                "Try": {
                    "Type": "Task",
                    "Resource": "echo",
                    "Assign": {"seen": "result"},
                    "Retry": [{"ErrorEquals": ["Once"], "MaxAttempts": 1}],
                    "Catch": [
                        {"ErrorEquals": ["Boom"], "Assign": {"seen.$": "$.Error", "why.$": "$.Cause"}, "Next": "After"}
                    ],
                    "Next": "After",
                },
                "After": {**END, "Parameters": {"seen.$": "$seen", "why.$": "$why"}},
            },
        },
    )
    run.fail("Try", "Once")
    run.advance(1)
    assert run.run.branches[""].variables == {}
    run.fail("Try", "Boom", "it broke")
    assert run.output == {"seen": "Boom", "why": "it broke"}


def test_an_error_in_assign_is_the_states_error(drive):
    run = drive(
        {
            "StartAt": "Try",
            "States": {
                "Try": {
                    "Type": "Task",
                    "Resource": "echo",
                    "Assign": {"x.$": "$.nowhere"},
                    "Catch": [{"ErrorEquals": ["States.Runtime"], "Next": "After", "ResultPath": "$.e"}],
                    "Next": "After",
                },
                "After": END,
            },
        },
    )
    run.complete("Try", {"here": 1})
    assert run.run.status is ExecutionStatus.SUCCEEDED
    output = run.output
    assert isinstance(output, dict)
    assert output["e"] == {
        "Error": "States.Runtime",
        "Cause": "An error occurred while executing the state 'Try' (entered at the event id #2). The JSONPath "
        "'$.nowhere' specified for the field 'x.$' could not be found in the input '{\"here\":1}'",
    }


def test_all_variables_together_are_bounded(drive):
    states: list[dict[str, JSON]] = [{"Type": "Pass", "Assign": {f"v{number}.$": "$.big"}} for number in range(4)]
    run = drive(chain(*states), {"big": "x" * 300}, Limits(variable_bytes=1000))
    assert (run.run.status, run.run.error) == (ExecutionStatus.FAILED, "States.DataLimitExceeded")
    assert run.run.cause == (
        "An error occurred while executing the state 'D' (entered at the event id #8). The execution's variables have "
        "1,215 bytes in all; at most 1,000 are allowed."
    )


def test_a_variable_assigned_again_counts_once(drive):
    states: list[dict[str, JSON]] = [{"Type": "Pass", "Assign": {"v.$": "$.big"}} for _ in range(6)]
    run = drive(chain(*states), {"big": "x" * 300}, Limits(variable_bytes=1000))
    assert run.run.status is ExecutionStatus.SUCCEEDED
