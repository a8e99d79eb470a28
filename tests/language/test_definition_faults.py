"""What the validator finds: every fault at once, each with its path and a plain sentence."""

from __future__ import annotations

import pytest
from language_machines import MAP_PROCESSOR, faults, machine, parsed

from daemon.language import Fault, InvalidDefinition, Map, Parallel, StateKind, Task
from enginekit.messages.json import JSON

END: JSON = {"Type": "Succeed"}
TYPES = frozenset({"http", "echo", "ai:openai"})


def of(sort: str, **fields: JSON) -> list[str]:
    """The faults of a machine whose one state X is of this type."""
    written: dict[str, JSON] = {"Type": sort, **fields}
    if sort in ("Pass", "Task", "Wait", "Parallel", "Map") and "Next" not in fields and "End" not in fields:
        written["End"] = True
    return faults(machine({"X": written}), TYPES)


def test_every_fault_is_found_at_once() -> None:
    definition: JSON = {
        "StartAt": "Reserve",
        "Coment": "x",
        "TimeoutSeconds": 0,
        "Version": "2.0",
        "States": {
            "Reserve": {
                "Type": "Task",
                "Resource": "htp",
                "Next": "Shp",
                "Retry": [{"ErrorEquals": [], "MaxAttempts": -1}],
            },
            "Ship": {"Type": "Pas", "End": True},
            "Wait": {"Type": "Wait", "Seconds": 1, "Timestamp": "x", "Choices": []},
        },
    }
    assert faults(definition, TYPES) == [
        'Version: only version "1.0" of the language is known, not "2.0"',
        "TimeoutSeconds: must be from 1 to 99,999,999, not 0",
        'Coment: a definition has no such field; did you mean "Comment"?',
        'States.Reserve.Next: no state named "Shp"; did you mean "Ship"?',
        'States.Reserve.Resource: no node type "htp" is installed; did you mean "http"?',
        "States.Reserve.Retry[0].MaxAttempts: must be from 0 to 99,999,999, not -1",
        "States.Reserve.Retry[0].ErrorEquals: must be an array of error names, with one at least",
        'States.Ship.Type: no type of state is "Pas"; did you mean "Pass"?',
        "States.Wait.Choices: a Wait state has no such field (it belongs to Choice)",
        'States.Wait: needs Next, the state to go to, or "End": true',
        "States.Wait: a Wait state has one of Seconds, SecondsPath, Timestamp and TimestampPath, and here are Seconds "
        "and Timestamp",
        'States.Wait.Timestamp: "x" is not a timestamp like 2016-03-14T01:59:00Z',
    ]


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({}, ["needs StartAt", "needs States"]),
        ({"StartAt": "A", "States": {}}, ["States: must have one state at least"]),
        ({"StartAt": 1, "States": []},
         ["StartAt: must be a string, not a number", "States: must be an object, not an array"]),
        ({"StartAt": "B", "States": {"A": END}}, ['StartAt: no state named "B"']),
        ({"StartAt": "a", "States": {"A": END}}, ['StartAt: no state named "a"; did you mean "A"?']),
        ({"StartAt": "A", "States": {"A": 1}}, ["States.A: must be an object, not a number"]),
        ({"StartAt": "A", "States": {"A": {}}},
         ["States.A: needs a Type: Pass, Task, Choice, Wait, Succeed, Fail, Parallel, Map"]),
        ({"StartAt": "A", "States": {"A": {"Type": 1}}}, ["States.A.Type: must be a string, not a number"]),
        ({"StartAt": "", "States": {"": END}}, ["States.: a state needs a name"]),
        ({"StartAt": "A" * 81, "States": {"A" * 81: END}},
         [f"States.{'A' * 81}: the name of a state has 80 characters at most, and this one has 81"]),
        ({"StartAt": "A", "States": {"A": END, "B": END}}, ["States.B: nothing leads to this state"]),
        ({"StartAt": "A", "Comment": 1, "States": {"A": {"Type": "Succeed", "Comment": []}}},
         ["Comment: must be a string, not a number", "States.A.Comment: must be a string, not an array"]),
        ({"StartAt": "A", "QueryLanguage": "JSONata",
          "States": {"A": {"Type": "Succeed", "QueryLanguage": "JSONPath"}}},
         ["States.A.QueryLanguage: must be JSONata here, since the definition is; only the other way round mixes"]),
        ({"StartAt": "A", "QueryLanguage": "XPath", "States": {"A": {"Type": "Succeed", "QueryLanguage": "JSONata"}}},
         ['QueryLanguage: must be "JSONPath" or "JSONata", not "XPath"; did you mean "JSONPath"?']),
    ],
)  # fmt: skip
def test_faults_of_a_machine(definition: JSON, wanted: list[str]) -> None:
    assert faults(definition) == wanted


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (of("Pass", Next="X", End=True), ["States.X.Next: stands beside End; a state has one of them"]),
        (of("Pass", End=False), ['States.X: needs Next, the state to go to, or "End": true']),
        (of("Pass", End="yes"),
         ["States.X.End: must be true or false, not a string",
          'States.X: needs Next, the state to go to, or "End": true']),
        (of("Pass", Next=1), ["States.X.Next: must be a string, not a number"]),
        (of("Succeed", End=True),
         ["States.X.End: a Succeed state has no such field (it belongs to Pass, Task, Wait, Parallel, Map)"]),
        (of("Pass", Parametrs={}), ['States.X.Parametrs: a Pass state has no such field; did you mean "Parameters"?']),
        (of("Pass", Assign=[]), ["States.X.Assign: must be an object, not an array"]),
        (of("Task", Resource="echo", Arguments={}),
         ["States.X.Arguments: belongs to JSONata, and this state is JSONPath: use Parameters"]),
        (of("Pass", Parameters=[1]), ["States.X.Parameters: must be an object, not an array"]),
        (of("Pass", Parameters={"a.$": 1}),
         ["States.X.Parameters.a.$: must be a path or an intrinsic function in a string, not a number"]),
        (of("Pass", Parameters={"a": 1, "a.$": "$.b"}),
         ['States.X.Parameters.a.$: "a" and "a.$" are both there; only one of them can be the field']),
        (of("Pass", Parameters={"a": [{"b.$": "$.["}]}),
         ['States.X.Parameters.a[0].b.$: "$.[" is not a path: expected a quoted name, a number, a slice, * or a '
          "?(filter) in brackets, found the end (character 4)"]),
        (of("Pass", InputPath="x"),
         ['States.X.InputPath: "x" is not a path: a path begins with "$", not with "x" (character 1)']),
        (of("Pass", InputPath=1), ["States.X.InputPath: must be a string, not a number"]),
        (of("Pass", InputPath="States.UUID()"),
         ['States.X.InputPath: "States.UUID()" is not a path: a path begins with "$", not with "S" (character 1)']),
        (of("Pass", ResultPath="$.a[*]"),
         ['States.X.ResultPath: "$.a[*]" must be a reference path: names and single indices, without * .. , '
          ": ? or functions"]),
        (of("Pass", ResultPath="$$.a"), ["States.X.ResultPath: a result is put into the input ($), not into $$"]),
        (of("Pass", ResultPath="$.a[-1]"),
         ["States.X.ResultPath: a result cannot be put at a place counted from the end"]),
        (of("Task"), ["States.X: needs a Resource, which names what runs the task"]),
        (of("Task", Resource=1), ["States.X.Resource: must be a string, not a number"]),
        (of("Task", Resource="a b"),
         ['States.X.Resource: "a b" is neither an ARN nor a name like "http", "activity:NAME" or "ai:openai"']),
        (of("Task", Resource="openai"),
         ['States.X.Resource: no node type "openai" is installed; did you mean "ai:openai"?']),
        (of("Task", Resource="activity:anything"), []),
        (of("Task", Resource="workflow:child", ParentClosePolicy="ABANDON"), []),
        (of("Task", Resource="workflow:child", ParentClosePolicy="Abandon", TaskQueue="q"),
         ["States.X.TaskQueue: has no meaning here: no worker runs this task",
          'States.X.ParentClosePolicy: must be one of CANCEL, TERMINATE, ABANDON; did you mean "ABANDON"?']),
        (of("Task", Resource="signal:go"), []),
        (of("Task", Resource="signal:go", HeartbeatSeconds=5, ParentClosePolicy="CANCEL"),
         ["States.X.HeartbeatSeconds: has no meaning here: nobody sends heartbeats for this task; use TimeoutSeconds",
          "States.X.ParentClosePolicy: goes with a child execution that is waited for"]),
        (of("Task", Resource="signal:"),
         ['States.X.Resource: "signal:" needs a name after "signal:" (letters, digits and _ . : / -)']),
        (of("Task", Resource="arn:aws:states:::states:startExecution.sync"),
         ["States.X.Parameters: startExecution needs StateMachineArn, the workflow to start"]),
        (of("Task", Resource="arn:aws:states:::states:startExecution", Parameters={"StateMachineArn": 1, "Nmae": "x"}),
         ['States.X.Parameters.Nmae: startExecution has no such field; did you mean "Name"?',
          "States.X.Parameters.StateMachineArn: does not name a workflow"]),
        (of("Task", Resource="arn:aws:states:::states:startExecution.sync.waitForTaskToken"),
         ['States.X.Resource: "arn:aws:states:::states:startExecution.sync.waitForTaskToken" waits for the execution; '
          "it cannot wait for a task token as well"]),
        (of("Task", Resource="arn:aws:states:::lambda:invoke"),
         ["States.X.Parameters: lambda:invoke needs FunctionName, the function to run"]),
        (of("Task", Resource="arn:aws:states:::lambda:invoke", Parameters={"FunctionName": "a b"}),
         ["States.X.Parameters.FunctionName: does not name a Lambda function"]),
        (of("Task", Resource="echo", TimeoutSeconds=10, HeartbeatSeconds=10),
         ["States.X.HeartbeatSeconds: must be less than TimeoutSeconds (10)"]),
        (of("Task", Resource="echo", TimeoutSeconds=1.5),
         ["States.X.TimeoutSeconds: must be a whole number, not 1.5"]),
        (of("Task", Resource="echo", TimeoutSeconds=True),
         ["States.X.TimeoutSeconds: must be a whole number, not a boolean"]),
        (of("Task", Resource="echo", TimeoutSeconds=10**400),
         ["States.X.TimeoutSeconds: must be from 1 to 99,999,999, not a huge number"]),
        (of("Task", Resource="echo", TimeoutSeconds=10, TimeoutSecondsPath="$.t"),
         ["States.X.TimeoutSecondsPath: stands beside TimeoutSeconds; only one of them can be"]),
        (of("Task", Resource="echo", HeartbeatSecondsPath="$.t[0,1]"),
         ['States.X.HeartbeatSecondsPath: "$.t[0,1]" must be a reference path: names and single indices, without * .. '
          ", : ? or functions"]),
        (of("Task", Resource="echo", Priority="high"), ["States.X.Priority: must be a whole number, not a string"]),
        (of("Task", Resource="echo", TaskQueue=""),
         ["States.X.TaskQueue: the name of a task queue has from 1 to 255 characters"]),
        (of("Task", Resource="echo", Retry={}), ["States.X.Retry: must be an array, not an object"]),
        (of("Task", Resource="echo", Retry=[1]), ["States.X.Retry[0]: must be an object, not a number"]),
        (of("Task", Resource="echo", Retry=[{}]),
         ["States.X.Retry[0]: needs ErrorEquals, the names of the errors it is for"]),
        (of("Task", Resource="echo", Retry=[{"ErrorEquals": [1, "E"], "BackoffRate": 0.5, "IntervalSeconds": 0}]),
         ["States.X.Retry[0].IntervalSeconds: must be from 1 to 99,999,999, not 0",
          "States.X.Retry[0].BackoffRate: must be from 1 to 1,000,000, not 0.5",
          "States.X.Retry[0].ErrorEquals[0]: must be a string, not a number"]),
        (of("Task", Resource="echo", Retry=[{"ErrorEquals": ["States.ALL", "E"]}, {"ErrorEquals": ["F"]}]),
         ["States.X.Retry[0].ErrorEquals: States.ALL must stand alone",
          "States.X.Retry[0].ErrorEquals: States.ALL must stand in the last entry, since nothing after it is ever "
          "used"]),
        (of("Task", Resource="echo", Retry=[{"ErrorEquals": ["E"], "MaxDelaySeconds": 2, "IntervalSeconds": 3}]),
         ["States.X.Retry[0].MaxDelaySeconds: must not be less than IntervalSeconds (3)"]),
        (of("Task", Resource="echo", Retry=[{"ErrorEquals": ["E"], "JitterStrategy": "HALF", "MaxAttemps": 1}]),
         ['States.X.Retry[0].MaxAttemps: a retrier has no such field; did you mean "MaxAttempts"?',
          'States.X.Retry[0].JitterStrategy: must be "FULL" or "NONE", not "HALF"']),
        (of("Task", Resource="echo", Catch=[{"ErrorEquals": ["E"]}]),
         ["States.X.Catch[0]: needs Next, the state to go to"]),
        (of("Task", Resource="echo", Catch=[{"ErrorEquals": ["E"], "Next": "Y", "ResultPath": "$..a"}]),
         ['States.X.Catch[0].Next: no state named "Y"',
          'States.X.Catch[0].ResultPath: "$..a" must be a reference path: names and single indices, without * .. , '
          ": ? or functions"]),
        (of("Choice"), ["States.X: needs Choices, its rules"]),
        (of("Choice", Choices=[]), ["States.X.Choices: must not be empty"]),
        (of("Choice", Choices=[{"Variable": "$.a", "IsNull": True}], Default="Y"),
         ["States.X.Choices[0]: needs Next, the state to go to", 'States.X.Default: no state named "Y"']),
        (of("Choice", Choices=[{"Variable": "$.a", "IsNull": True, "Next": "X"}], End=True),
         ["States.X.End: a Choice state has no such field (it belongs to Pass, Task, Wait, Parallel, Map)"]),
        (of("Wait"),
         ["States.X: a Wait state has one of Seconds, SecondsPath, Timestamp and TimestampPath, and there is none"]),
        (of("Wait", Seconds=-1), ["States.X.Seconds: must be from 0 to 99,999,999, not -1"]),
        (of("Wait", Timestamp="2016-03-14t01:59:00z"),
         ['States.X.Timestamp: "2016-03-14t01:59:00z" is not a timestamp like 2016-03-14T01:59:00Z']),
        (of("Fail", Error="E", ErrorPath="$.e"), ["States.X.ErrorPath: stands beside Error; only one of them can be"]),
        (of("Fail", CausePath="because"),
         ['States.X.CausePath: "because" is neither a path (beginning with "$") nor an intrinsic function']),
        (of("Parallel"), ["States.X: needs Branches"]),
        (of("Parallel", Branches=[]), ["States.X.Branches: must not be empty"]),
        (of("Parallel", Branches=[{"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "X"}}}]),
         ['States.X.Branches[0].States.A.Next: no state named "X"']),
        (of("Parallel", Branches=[{"StartAt": "A", "States": {"A": END}, "TimeoutSeconds": 1}, {}]),
         ["States.X.Branches[0].TimeoutSeconds: a branch has no such field", "States.X.Branches[1]: needs StartAt",
          "States.X.Branches[1]: needs States"]),
        (of("Parallel", Branches=[{"StartAt": "X", "States": {"X": END}}]),
         ["States.X.Branches[0].States.X: there is another state of this name at States.X; names must be unique"]),
        (of("Map"), ["States.X: needs ItemProcessor, the machine that runs for every item"]),
        (of("Map", ItemProcessor=MAP_PROCESSOR, Iterator=MAP_PROCESSOR, ItemSelector={}, Parameters={}),
         ["States.X.Iterator: is the older name of ItemProcessor; only one of them can be",
          "States.X.Parameters: is the older name of ItemSelector; only one of them can be"]),
        (of("Map", Iterator={"StartAt": "A", "States": {"A": {"Type": "Fail", "Next": "B"}}}),
         ["States.X.Iterator.States.A.Next: a Fail state has no such field (it belongs to Pass, Task, Wait, Parallel, "
          "Map)"]),
        (of("Map", ItemProcessor={"StartAt": "A", "States": {"A": END}, "ProcessorConfig": {"Mode": "x"}}),
         ['States.X.ItemProcessor.ProcessorConfig.Mode: must be "INLINE" or "DISTRIBUTED", not "x"']),
        (of("Map", ItemProcessor=MAP_PROCESSOR, MaxConcurrency=-1, ItemsPath="$.a[*]", ToleratedFailurePercentage=101),
         ["States.X.ToleratedFailurePercentage: belongs to distributed Map states: give ItemProcessor a "
          'ProcessorConfig with Mode "DISTRIBUTED"',
          'States.X.ItemsPath: "$.a[*]" must be a reference path: names and single indices, without * .. , : ? or '
          "functions",
          "States.X.MaxConcurrency: must be from 0 to 2,147,483,647, not -1"]),
    ],
)  # fmt: skip
def test_faults_of_a_state(found: list[str], wanted: list[str]) -> None:
    assert found == wanted


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        (machine({"A": {"Type": "Pass", "Next": "A"}}), [Fault("States.A", "no way leads from this state to an end")]),
        (
            machine({"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": True}}),
            [Fault("States.A.Resource",
                   'this integration is not built in: its tasks wait in task queue "sqs:sendMessage" for a worker')],
        ),
        (
            machine({"A": {"Type": "Task", "Resource": "echo", "Credentials": {}, "End": True,
                           "Retry": [{"ErrorEquals": ["States.Timout"]}]}}),
            [Fault("States.A.Credentials", "has no meaning here and is not used"),
             Fault("States.A.Retry[0].ErrorEquals[0]",
                   'no error is named "States.Timout"; did you mean "States.Timeout"?')],
        ),
        (machine({"A": {"Type": "Pass", "End": True}}), []),
    ],
)  # fmt: skip
def test_warnings(definition: JSON, wanted: list[Fault]) -> None:
    assert list(parsed(definition).warnings) == wanted


def test_a_fault_says_where_and_what() -> None:
    with pytest.raises(InvalidDefinition) as raised:
        parsed(machine({"Ship": {"Type": "Pass", "Next": "Shp"}}))
    assert raised.value.faults == (Fault("States.Ship.Next", 'no state named "Shp"; did you mean "Ship"?'),)
    assert str(raised.value) == 'States.Ship.Next: no state named "Shp"; did you mean "Ship"?'


def test_no_end_of_faults() -> None:
    states: dict[str, JSON] = {f"S{number}": {"Type": "Pass", "Next": f"T{number}"} for number in range(3_000)}
    found = faults(machine(states))
    assert len(found) == 1_001
    assert found[-1] == "and 2,000 more faults"


def test_a_valid_definition_in_full() -> None:
    definition = parsed(
        machine(
            {
                "Charge": {
                    "Type": "Task", "Resource": "http", "Priority": 5, "TaskQueue": "money", "Next": "Both",
                    "Retry": [{"ErrorEquals": ["Http.503"], "JitterStrategy": "FULL", "MaxDelaySeconds": 60}],
                    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Release", "ResultPath": "$.error"}],
                },
                "Release": {"Type": "Fail", "Error": "Declined"},
                "Both": {"Type": "Parallel", "Branches": [
                    {"StartAt": "Mail", "States": {"Mail": {"Type": "Pass", "End": True}}},
                    {"StartAt": "Text", "States": {"Text": {"Type": "Succeed"}}},
                ], "Next": "Lines"},
                "Lines": {"Type": "Map", "ItemsPath": "$", "Iterator": MAP_PROCESSOR, "End": True},
            },
            Comment="an order", Version="1.0", TimeoutSeconds=600, QueryLanguage="JSONPath",
        ),
        TYPES,
    )  # fmt: skip
    assert (definition.start_at, definition.comment, definition.version) == ("Charge", "an order", "1.0")
    assert definition.timeout_seconds == 600
    assert [state.kind for state in definition.states.values()] == [
        StateKind.TASK, StateKind.FAIL, StateKind.PARALLEL, StateKind.MAP,
    ]  # fmt: skip
    charge, both, lines = definition.states["Charge"], definition.states["Both"], definition.states["Lines"]
    assert isinstance(charge, Task)
    assert isinstance(both, Parallel)
    assert isinstance(lines, Map)
    assert (charge.name, charge.next, charge.end, charge.priority, charge.task_queue) == (
        "Charge", "Both", False, 5, "money",
    )  # fmt: skip
    assert (charge.retry[0].jitter, charge.retry[0].max_delay_seconds, charge.catch[0].next) == (True, 60, "Release")
    assert [branch.start_at for branch in both.branches] == ["Mail", "Text"]
    assert (lines.processor.start_at, lines.end, lines.next) == ("Each", True, None)
    assert definition.warnings == ()


def test_deep_machines_are_read_and_deeper_ones_refused() -> None:
    def nested(depth: int) -> dict[str, JSON]:
        states: dict[str, JSON] = {f"S{depth}": {"Type": "Succeed"}}
        for number in range(depth):
            branch: JSON = {"StartAt": next(iter(states)), "States": states}
            states = {f"P{number}": {"Type": "Parallel", "Branches": [branch], "End": True}}
        return machine(states)

    assert faults(nested(20)) == []
    assert faults(nested(60))[0].endswith("nested more than 100 levels deep")
