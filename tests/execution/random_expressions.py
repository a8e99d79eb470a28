"""What random definitions are made of: the input, expressions in both query languages, resources, error names.

Most of it finds something in INPUT; some of it fails, as expressions do.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]

FAILURES = ("Boom", "Bang", "Http.ConnectTimeout")
"""What tasks and Fail states fail with here."""

INPUT: Document = {
    "items": [1, 2, 3],
    "n": 2,
    "s": "some text",
    "flag": True,
    "when": "2026-01-01T00:05:00Z",
    "none": None,
    "deep": {"list": [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}], "é": [[1], [2, 3]]},
}

PATHS = (
    "$", "$.n", "$.s", "$.items", "$.items[0]", "$.items[-1]", "$.items[1:]", "$.items[0,1]", "$..n", "$.*",
    "$.deep.list[?(@.n > 1)]", "$.deep.list[*].s", "$.items.length()", "$.items.sum()", "$.deep['é'][1]",
    "$.nowhere", "$$", "$$.Execution.Input", "$$.Execution.Input.n", "$$.Execution.Input.items",
    "$$.Execution.Input.deep.list", "$$.State.Name", "$$.Execution.Input..list[?(@.s == 'a' || @.n >= 2)].n",
)  # fmt: skip
INTRINSICS = (
    "States.Format('{} and {}', $$.Execution.Input.s, $$.State.Name)",
    "States.Format('{}', $.n)",
    "States.StringToJson('[1, {\"n\": 2}]')",
    "States.JsonToString($)",
    "States.Array(1, 'a', true, null, $$.Execution.Input.n)",
    "States.ArrayPartition($$.Execution.Input.items, 2)",
    "States.ArrayContains($.items, 2)",
    "States.ArrayRange(1, 9, 3)",
    "States.ArrayGetItem($.items, 1)",
    "States.ArrayLength(States.ArrayUnique($$.Execution.Input.items))",
    "States.Base64Decode(States.Base64Encode($$.Execution.Input.s))",
    "States.Hash($, 'SHA-256')",
    "States.JsonMerge($$.Execution.Input, $, false)",
    "States.MathRandom(1, 10)",
    "States.MathAdd($.n, -1)",
    "States.StringSplit($$.Execution.Input.s, ' ')",
    "States.UUID()",
)
QUERIES = (
    "$states.input", "$states.input.n", "$states.input.items[0]", "$states.context.Execution.Input",
    "$states.context.Execution.Input.items", "$states.context.State.Name", "$states.context.Execution.Input.deep.**.n",
    "$count($states.context.Execution.Input.items)", "$sum($states.context.Execution.Input.items) * 2 - 1",
    "[$map($states.context.Execution.Input.items, function($x, $i) { $x * $i })]",
    "[$states.context.Execution.Input.deep.list[n > 1].s]", "$exists($states.input.nowhere) ? 'yes' : 'no'",
    "$states.context.Execution.Input.deep.list^(>n).s", "{'n': $states.input.n, 'all': [1..3]}",
    "$states.input.nowhere",
    "$reduce([1..5], function($a, $b) { $a + $b })", "$merge([$states.context.Execution.Input, {'n': 5}])",
    "$string($states.input)", "$uuid()", "$random() < 1", "$now()", "$millis() > 0", "$partition([1..5], 2)",
    "$range(1, 9, 3)", "$hash('a', 'SHA-1')", "$parse('{\"n\": 1}')", "$split('a b', ' ')", "$uppercase('é')",
    "($f := function($n) { $n < 2 ? 1 : $n * $f($n - 1) }; $f(5))", "$states.input.s ~> $length", "1 / 0",
    "$error('no')",
    "$sort($states.context.Execution.Input.items, function($a, $b) { $a < $b })", "$type($states.input) = 'object'",
    "$states.context.Execution.Input.deep.list{s: n}", "$match('aXb', /[A-Z]/).index", "'a' in ['a', 'b'] and true",
    "$states.input ~> |deep|{'x': 1}, 'list'|",
)  # fmt: skip
NUMBERS = (
    "$states.context.Execution.Input.n",
    "$count($states.context.Execution.Input.items)",
    "1 + 1",
    "$states.input.n",
)
CONDITIONS = (
    "true", "$states.context.Execution.Input.flag", "$states.input.n > 1", "$count($states.input.items) = 3",
    "$exists($states.input.s) and $states.input.s = 'some text'", "$random() < 0.5", "$states.input.n",
)  # fmt: skip
COMPARISONS: tuple[Document, ...] = (
    {"Variable": "$.n", "NumericEquals": 2},
    {"Variable": "$.n", "NumericLessThanPath": "$$.Execution.Input.n"},
    {"Variable": "$.s", "StringMatches": "some*"},
    {"Variable": "$.s", "StringGreaterThanEquals": "b"},
    {"Variable": "$$.Execution.Input.flag", "BooleanEquals": True},
    {"Variable": "$.when", "TimestampLessThan": "2026-06-01T00:00:00Z"},
    {"Variable": "$$.Execution.Input.when", "TimestampEqualsPath": "$.when"},
    {"Variable": "$.nowhere", "IsPresent": False},
    {"Variable": "$.none", "IsNull": True},
    {"Variable": "$.items", "IsString": True},
    {"Variable": "$.n", "IsNumeric": True},
)
RESOURCES = (
    "echo", "echo", "activity:work", "arn:aws:lambda:us-east-1:123456789012:function:work",
    "arn:aws:states:us-east-1:123456789012:activity:work", "activity:desk.waitForTaskToken",
    "arn:aws:states:::lambda:invoke", "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
)  # fmt: skip
LITERALS: tuple[Any, ...] = (1, 0, -2.5, "text", "é", None, True, [], {}, [1, [2]], {"n": 1, "items": [1, 2]})
ERRORS = (
    "Boom",
    "Bang",
    "States.TaskFailed",
    "States.Timeout",
    "States.HeartbeatTimeout",
    "States.Runtime",
    "States.NoChoiceMatched",
    "States.IntrinsicFailure",
    "States.ResultPathMatchFailure",
)


def query(text: str) -> str:
    """As it stands in a field."""
    return f"{{% {text} %}}"
