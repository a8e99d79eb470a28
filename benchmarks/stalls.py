"""What do expressions made to hold the daemon up do to its loop? `make stalls`.

Each attack is a definition that is started as any other. Meanwhile a task of the same loop wakes up every millisecond:
the longest it was kept waiting is the stall. Prints how each attack ended and its stall; asserts nothing.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio

from daemon.api.auth import Principal
from daemon.assembly import Daemon
from daemon.clock import WallClock
from daemon.settings import Settings
from daemon.stores.memory import MemoryStore
from enginekit.messages import calls
from enginekit.messages.json import JSON, encode
from enginekit.messages.status import Refused

CALLER = Principal(tenant="t", subject="stalls", scopes=frozenset({"read", "write"}), expires_at=None)

WIDE: JSON = {"list": [{"n": number, "tags": [number, number]} for number in range(7_000)], "text": "a" * 20_000}
DEEP: JSON = None
for _ in range(60):
    DEEP = {"below": DEEP, **{f"beside{number}": [1, 2, 3] for number in range(8)}}


class Attack(NamedTuple):
    name: str
    definition: dict[str, JSON]
    data: JSON = None


def jsonata(name: str, expression: str, data: JSON = None) -> Attack:
    state: JSON = {"Type": "Pass", "QueryLanguage": "JSONata", "Output": f"{{% {expression} %}}", "End": True}
    return Attack(name, {"StartAt": "A", "States": {"A": state}}, data)


def path(name: str, text: str, data: JSON = None) -> Attack:
    state: JSON = {"Type": "Pass", "Parameters": {"found.$": text}, "End": True}
    return Attack(name, {"StartAt": "A", "States": {"A": state}}, data)


def doubled(times: int) -> str:
    """A call of States.Format whose text doubles as often as the nesting allows."""
    text = "$.text"
    for _ in range(times):
        text = f"States.Format('{{}}{{}}', {text}, {text})"
    return text


def chained(times: int) -> dict[str, JSON]:
    """Doubling a text from state to state."""
    states: dict[str, JSON] = {
        f"S{number}": {
            "Type": "Pass",
            "Parameters": {"text.$": "States.Format('{}{}', $.text, $.text)"},
            "Next": f"S{number + 1}",
        }
        for number in range(times)
    }
    return {"StartAt": "S0", "States": {**states, f"S{times}": {"Type": "Succeed"}}}


def repeated(expression: JSON) -> dict[str, JSON]:
    """The same costly state over and over: what one state may cost must not add up within a step."""
    states: dict[str, JSON] = {
        f"S{number}": {
            "Type": "Pass",
            "Parameters": {"found.$": expression},
            "ResultPath": None,
            "Next": f"S{number + 1}",
        }
        for number in range(30)
    }
    return {"StartAt": "S0", "States": {**states, "S30": {"Type": "Succeed"}}}


def large_definition() -> dict[str, JSON]:
    """Close to 1 MiB of states."""
    template: JSON = {f"f{number}.$": f"$.a.b{number}" for number in range(20)}
    states: dict[str, JSON] = {
        f"S{number}": {"Type": "Pass", "Parameters": template, "Next": f"S{number + 1}"} for number in range(1_700)
    }
    return {"StartAt": "S0", "States": {**states, "S1700": {"Type": "Succeed"}}}


def spread() -> dict[str, JSON]:
    """Few runs of many items each, every item with an expression of its own."""
    processor: JSON = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED"},
        "StartAt": "P",
        "States": {"P": {"Type": "Pass", "Result": 1, "End": True}},
    }
    state: dict[str, JSON] = {
        "Type": "Map",
        "ItemsPath": "$.items",
        "ItemSelector": {"n.$": "States.ArrayLength($.wide[*])", "v.$": "States.Format('{}', $$.Map.Item.Value)"},
        "ItemBatcher": {"MaxItemsPerBatch": 5_000},
        "ItemProcessor": processor,
        "End": True,
    }
    return {"StartAt": "M", "States": {"M": state}}


def everywhere(expression: str) -> dict[str, JSON]:
    """A state each of whose fields costs about as much as an evaluation may."""
    query = f"{{% {expression} %}}"
    state: dict[str, JSON] = {
        "Type": "Task",
        "Resource": "echo",
        "Arguments": query,
        "TimeoutSeconds": query,
        "HeartbeatSeconds": query,
        "Output": query,
        "Assign": {"a": query},
        "End": True,
    }
    return {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}}


def rules() -> dict[str, JSON]:
    """A Choice of many rules, none of which holds."""
    rule: JSON = {"Variable": "$..n", "IsNull": True}
    choices: list[JSON] = [{"And": [{"Not": rule}] * 200 + [rule], "Next": "B"} for _ in range(20)]
    choice: JSON = {"Type": "Choice", "Choices": choices, "Default": "B"}
    return {"StartAt": "A", "States": {"A": choice, "B": {"Type": "Succeed"}}}


def patterns() -> dict[str, JSON]:
    """As many large regular expressions as there is room for."""
    made: JSON = {f"k{number}": f"{{% $contains('a', /\\pL{{2}}{number}/) %}}" for number in range(100)}
    state: JSON = {"Type": "Pass", "Output": made, "End": True}
    return {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}}


def near_misses() -> dict[str, JSON]:
    """Names that take long to compare."""
    states: dict[str, JSON] = {
        f"{'state' * 14}{number}": {"Type": "Pass", "Next": f"{'state' * 14}{number}x"} for number in range(4_000)
    }
    return {"StartAt": next(iter(states)), "States": states}


def long_expression() -> dict[str, JSON]:
    """One expression as long as it may be."""
    state: JSON = {"Type": "Pass", "Output": f"{{% [{','.join(['1'] * 32_000)}] %}}", "End": True}
    return {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}}


NESTED = "$reduce([1..40], function($t, $n) { [[$t], [$t]] }, 0)"
"""Two to the forty zeros, in arrays that share their parts."""
TWINS = "$reduce([1..40], function($t, $n) { {'a': $t, 'b': $t} }, 1)"

ATTACKS = [
    jsonata("tail recursion without end", "($f := function($n) { $f($n + 1) }; $f(1))"),
    jsonata("recursion without end", "($f := function($n) { 1 + $f($n + 1) }; $f(1))"),
    jsonata("$sum([1..9999999])", "$sum([1..9999999])"),
    jsonata('$pad("a", 300000000)', '$pad("a", 300000000)'),
    jsonata("the same inside $eval", '$eval("$pad(\\"a\\", 300000000)")'),
    jsonata("backtracking", "$match($states.input.text, /(a+)+$/)", {"text": "a" * 50_000 + "b"}),
    jsonata("backtracking in $replace", "$replace($states.input.text, /(a|aa)+$/, 'x')", {"text": "a" * 50_000 + "b"}),
    jsonata("nested $map", "$map([1..2000], function($a) { $map([1..2000], function($b) { $a * $b }) })"),
    jsonata("a text doubled forty times", "$reduce([1..40], function($t, $n) { $t & $t }, 'ab')"),
    jsonata("sorting with a function", "$sort([1..200000], function($a, $b) { $a < $b })"),
    jsonata("** over a wide document", "$states.input.**.n", WIDE),
    jsonata("** over a deep document", "$states.input.**", DEEP),
    jsonata("a cross product", "$states.input.list@$a.list@$b[$a.n = $b.n]", WIDE),
    jsonata("grouping", "$states.input.list{$string(n): $sum(tags)}", WIDE),
    jsonata("the truth of a shared value", f"$boolean({NESTED})"),
    jsonata("the text of a shared value", f"$string({TWINS})"),
    jsonata("a pattern of a thousand parts", "$contains($states.input.t, /(a{0,50}){0,20}b/)", {"t": "a" * 200_000}),
    jsonata("a pattern that looks ahead to the end", "$match($states.input.t, /a.*b|a/)", {"t": "a" * 200_000}),
    jsonata("$formatNumber in a $map", "$map([1..100000], function($i) { $formatNumber($i, '#,##0.00') })"),
    jsonata("order by", "$states.input^(>$)", list(range(40_000))),
    jsonata("a transform", "$states.input ~> |list|{'z': n + 1}|", WIDE),
    jsonata("$distinct of objects", "$distinct($states.input.list)", WIDE),
    path("$..* over a wide document", "$..*", WIDE),
    path("$..*..* over a deep document", "$..*..*", DEEP),
    path("$..[?(@..n)]", "$..[?(@..n)]", WIDE),
    path("a filter that compares with a filter", "$.list[?(@.n in $.list[*].n)]", WIDE),
    path("States.ArrayRange of a billion", "States.ArrayRange(0, 1000000000, 1)"),
    path("States.Format that doubles, nested", doubled(8), WIDE),
    Attack("States.Format that doubles, forty states", chained(40), {"text": "ab"}),
    path("States.ArrayUnique", "States.ArrayUnique($.list)", WIDE),
    path("nine hundred sums", f"States.Array({','.join(['$.sum()'] * 900)})", [0] * 60_000),
    path("forty texts of a document", f"States.Array({','.join(['States.JsonToString($)'] * 40)})", WIDE),
    path("States.StringSplit", "States.StringSplit($, 'a')", "ab" * 100_000),
    path("States.JsonMerge", "States.JsonMerge($, $, false)", {f"k{number}": number for number in range(18_000)}),
    path("a filter of three comparisons", "$[?(@ == 1 || @ == 2 || @ == 3)]", [0] * 60_000),
    path("a filter with a pattern", "$[?(@ =~ /(x+x+)+y/)]", ["x" * 100] * 2_000),
    Attack("a Choice of twenty times two hundred rules", rules(), WIDE),
    Attack("a state whose every field costs", everywhere("$count([1..240000]) + 1000"), None),
    Attack("a hundred large regular expressions", patterns()),
    Attack("names that are hard to compare", near_misses()),
    Attack("an expression of 64 KiB", long_expression()),
    Attack("thirty costly states", repeated("$..*"), WIDE),
    Attack("a distributed Map, a costly ItemSelector", spread(), {"items": list(range(10_000)), "wide": [1] * 2_000}),
    Attack("a definition of 1 MiB", large_definition(), {"a": {f"b{number}": number for number in range(20)}}),
]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Settings(), Path(folder), WallClock(), store=MemoryStore(4, b"k" * 32), listen=False)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.run)
            print(f"{'attack':44} {'ms':>7}  ended")
            for attack in ATTACKS:
                stall, ended = await measure(daemon, attack)
                print(f"{attack.name:44} {stall * 1000:7.1f}  {ended[:110]}", flush=True)
            daemon.stop()


async def measure(daemon: Daemon, attack: Attack) -> tuple[float, str]:
    """The longest stall in seconds, and how the attack ended."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.perf_counter()
            await trio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before - 0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(0.05)
        longest = 0.0
        ended = await run(daemon, attack)
        nursery.cancel_scope.cancel()
    return longest, ended


async def run(daemon: Daemon, attack: Attack) -> str:
    start = calls.StartWorkflow(definition=encode(attack.definition), input=encode(attack.data))
    try:
        answer = await daemon.gateway.call(CALLER, "StartWorkflow", msgspec.json.encode(start))
        started = msgspec.json.decode(answer, type=calls.StartWorkflowResult)
        wait = calls.WaitWorkflow(workflow_id=started.workflow_id, run_id=started.run_id, wait_seconds=60)
        answer = await daemon.gateway.call(CALLER, "WaitWorkflow", msgspec.json.encode(wait))
    except Refused as refused:
        return f"refused: {refused.message.splitlines()[-1]}"
    seen = msgspec.json.decode(answer, type=calls.DescribeWorkflowResult)
    return f"{seen.status.value} {seen.error or ''} {seen.cause or ''}"


if __name__ == "__main__":
    trio.run(main)
