"""Map and Parallel: order, concurrency, failing siblings, retries of the whole, depth."""

from __future__ import annotations

from daemon.execution.commands import Limits
from enginekit.messages import events as ev
from enginekit.messages.status import ExecutionStatus

ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}


def mapping(**more):
    return {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": ECHO, "End": True, **more}}}


def test_results_stand_in_the_order_of_the_items(drive):
    run = drive(mapping(ItemsPath="$.items"), {"items": [1, 2, 3]})
    for index in (2, 0, 1):
        run.complete(f"M[{index}].E", index * 10)
    assert run.output == [0, 10, 20]


def test_max_concurrency_bounds_what_runs_at_once(drive):
    run = drive(mapping(MaxConcurrency=2), list(range(7)))
    assert len(run.run.tasks) == 2
    run.complete("M[1].E", 1)
    assert sorted(node.path for node in run.run.nodes.values() if node.task) == ["M[0].E", "M[2].E"]
    run.work(lambda _run, _node, attempt: attempt.input.value)
    assert run.output == list(range(7))


def test_no_items_is_an_empty_list(drive):
    run = drive(mapping(), [])
    assert run.output == []


def test_an_item_selector_sees_the_item_and_its_index(drive):
    run = drive(
        mapping(
            ItemsPath="$.items",
            ItemSelector={"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value", "all.$": "$.tag"},
        ),
        {"items": ["a", "b"], "tag": "t"},
    )
    run.work(lambda _run, _node, attempt: attempt.input.value)
    assert run.output == [{"i": 0, "v": "a", "all": "t"}, {"i": 1, "v": "b", "all": "t"}]


def test_a_failing_item_stops_its_siblings(drive):
    run = drive(mapping(), [1, 2, 3])
    run.fail("M[1].E", "Boom")
    assert run.run.status is ExecutionStatus.FAILED
    assert run.run.error == "Boom"
    assert run.types.count("TaskCanceled") == 2
    assert run.run.tasks == {}


def test_a_map_is_retried_as_a_whole(drive):
    run = drive(mapping(Retry=[{"ErrorEquals": ["Boom"], "MaxAttempts": 1, "IntervalSeconds": 1}]), [1, 2])
    run.complete("M[0].E", "kept")
    run.fail("M[1].E", "Boom")
    assert run.types[-1] == "TaskRetryScheduled"
    run.advance(1)
    run.work(lambda _run, _node, attempt: attempt.input.value)
    assert run.output == [1, 2]


def test_a_parallel_gives_its_input_to_every_branch(drive):
    run = drive(
        {
            "StartAt": "P",
            "States": {
                "P": {
                    "Type": "Parallel",
                    "Branches": [ECHO, {"StartAt": "S", "States": {"S": {"Type": "Pass", "Result": 1, "End": True}}}],
                    "End": True,
                }
            },
        },
        {"x": 1},
    )
    run.complete("P[0].E", {"x": 1})
    assert run.output == [{"x": 1}, 1]


def test_a_branch_that_fails_is_caught_by_its_error_or_by_branch_failed(drive):
    for caught in ("Boom", "States.BranchFailed", "States.ALL"):
        run = drive(
            {
                "StartAt": "P",
                "States": {
                    "P": {
                        "Type": "Parallel",
                        "Branches": [
                            ECHO,
                            {"StartAt": "F", "States": {"F": {"Type": "Fail", "Error": "Boom", "Cause": "c"}}},
                        ],
                        "Catch": [{"ErrorEquals": [caught], "Next": "Sorry"}],
                        "End": True,
                    },
                    "Sorry": {"Type": "Pass", "End": True},
                },
            }
        )
        assert run.output == {"Error": "Boom", "Cause": "c"}
        assert "TaskScheduled" not in run.types or "TaskCanceled" in run.types


def test_maps_nest_and_paths_say_where(drive):
    inner = {"StartAt": "In", "States": {"In": {"Type": "Map", "ItemProcessor": ECHO, "End": True}}}
    run = drive(
        {"StartAt": "Out", "States": {"Out": {"Type": "Map", "ItemProcessor": inner, "End": True}}}, [[1], [2, 3]]
    )
    assert {node.path for node in run.run.nodes.values() if node.task} == {
        "Out[0].In[0].E",
        "Out[1].In[0].E",
        "Out[1].In[1].E",
    }
    run.work(lambda _run, _node, attempt: attempt.input.value)
    assert run.output == [[1], [2, 3]]


def test_one_decision_is_bounded_however_many_items_there_are(drive):
    passing = {"StartAt": "E", "States": {"E": {"Type": "Pass", "End": True}}}
    run = drive(
        {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": passing, "End": True}}},
        list(range(1000)),
        Limits(step_transitions=50, step_events=100),
    )
    assert run.output == list(range(1000))
    assert run.steps >= 40


def test_a_state_that_points_at_itself_ends_at_the_history_limit(drive):
    run = drive(
        {
            "StartAt": "A",
            "States": {
                "A": {"Type": "Pass", "Next": "B"},
                "B": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.x", "IsPresent": True, "Next": "End"}],
                    "Default": "A",
                },
                "End": {"Type": "Succeed"},
            },
        },
        {},
        Limits(history_events=1000),
    )
    assert run.run.error == "Engine.HistoryLimit"
    assert len(run.stored) < 1600
    assert isinstance(run.events[-1], ev.WorkflowFailed)
