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
    path("$..* over a wide document", "$..*", WIDE),
    path("$..*..* over a deep document", "$..*..*", DEEP),
    path("$..[?(@..n)]", "$..[?(@..n)]", WIDE),
    path("a filter that compares with a filter", "$.list[?(@.n in $.list[*].n)]", WIDE),
    path("States.ArrayRange of a billion", "States.ArrayRange(0, 1000000000, 1)"),
    path("States.Format that doubles, nested", doubled(8), WIDE),
    Attack("States.Format that doubles, forty states", chained(40), {"text": "ab"}),
    path("States.ArrayUnique", "States.ArrayUnique($.list)", WIDE),
    Attack("thirty costly states", repeated("$..*"), WIDE),
    Attack("a distributed Map, a costly ItemSelector", spread(), {"items": list(range(30_000)), "wide": [1] * 2_000}),
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
