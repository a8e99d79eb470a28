"""Strategies for definitions: valid ones of every type of state in both query languages, and mutations of them.

Only definitions live here. How they are parsed, run and judged is `test_random_definitions`.
"""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

from hypothesis import strategies as st

Document: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str | int, ...]

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

# --- expressions -------------------------------------------------------------------------------------------------

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
    "$states.context.Execution.Input.deep.list^(>n).s", "{'n': $states.input.n, 'all': [1..3]}", "$states.input.nowhere",
    "$reduce([1..5], function($a, $b) { $a + $b })", "$merge([$states.context.Execution.Input, {'n': 5}])",
    "$string($states.input)", "$uuid()", "$random() < 1", "$now()", "$millis() > 0", "$partition([1..5], 2)",
    "$range(1, 9, 3)", "$hash('a', 'SHA-1')", "$parse('{\"n\": 1}')", "$split('a b', ' ')", "$uppercase('é')",
    "($f := function($n) { $n < 2 ? 1 : $n * $f($n - 1) }; $f(5))", "$states.input.s ~> $length", "1 / 0", "$error('no')",
    "$sort($states.context.Execution.Input.items, function($a, $b) { $a < $b })", "$type($states.input) = 'object'",
    "$states.context.Execution.Input.deep.list{s: n}", "$match('aXb', /[A-Z]/).index", "'a' in ['a', 'b'] and true",
    "$states.input ~> |deep|{'x': 1}, 'list'|",
)  # fmt: skip
NUMBERS = ("$states.context.Execution.Input.n", "$count($states.context.Execution.Input.items)", "1 + 1", "$states.input.n")
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
ERRORS = ("Boom", "Bang", "States.TaskFailed", "States.Timeout", "States.HeartbeatTimeout", "States.Runtime")
KINDS = ("Pass", "Task", "Task", "Choice", "Wait", "Parallel", "Map")
LEAVES = KINDS[:5]


def query(text: str) -> str:
    """As it stands in a field."""
    return f"{{% {text} %}}"


# --- valid definitions -------------------------------------------------------------------------------------------


class Author:
    """Writes one definition. States have names of their own, and each machine variables of its own."""

    def __init__(self, draw: st.DrawFn, cycles: bool) -> None:
        self.draw = draw
        self.cycles = cycles
        self.states = 0
        self.machines = 0

    def one(self, values: tuple[Any, ...]) -> Any:
        return self.draw(st.sampled_from(values))

    def chance(self, one_in: int = 2) -> bool:
        """Shrinks to False."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def definition(self) -> Document:
        jsonata = self.chance(3)
        made = self.machine(jsonata, (), 2)
        if jsonata:
            made["QueryLanguage"] = "JSONata"
        elif self.chance():
            made["QueryLanguage"] = "JSONPath"
        if self.chance(4):
            made["TimeoutSeconds"] = self.draw(st.integers(1, 5000))
        if self.chance(4):
            made["Version"] = "1.0"
        return made

    def machine(self, jsonata: bool, outer: tuple[str, ...], depth: int) -> Document:
        """A chain of states, with choices and catchers between them; `outer` are the variables seen from outside."""
        self.machines += 1
        own = (f"v{self.machines}", f"w{self.machines}") if self.chance() else ()
        names = [f"S{self.states + number}" for number in range(self.draw(st.integers(1, 4)))]
        self.states += len(names)
        states: Document = {}
        for number, name in enumerate(names):
            last = number == len(names) - 1
            around = tuple(names) if self.cycles else tuple(names[number + 1 :])
            kind = self.one(KINDS if depth else LEAVES)
            if last and not (self.cycles and self.chance()):
                kind = self.one(("Pass", "Succeed", "Fail", "Task", "Wait"))
                flow: Document = {} if kind in ("Succeed", "Fail") else {"End": True}
            else:
                flow = {"Next": self.one(around) if last else names[number + 1]}
            states[name] = self.state(kind, jsonata, flow, around, own, outer, depth)
        if own:
            # Whatever refers to them finds them assigned, since this state is the first.
            states = {f"A{self.machines}": self.assigning(own, jsonata, names[0]), **states}
        return {"StartAt": next(iter(states)), "States": states}

    def assigning(self, own: tuple[str, ...], jsonata: bool, following: str) -> Document:
        given: Document = {own[0]: self.one(LITERALS)}
        if jsonata:
            given[own[1]] = query("$states.context.Execution.Input.n")
        else:
            given[f"{own[1]}.$"] = "$$.Execution.Input.n"
        return {"Type": "Pass", "Assign": given, "Next": following}

    def state(
        self,
        kind: str,
        jsonata: bool,
        flow: Document,
        around: tuple[str, ...],
        own: tuple[str, ...],
        outer: tuple[str, ...],
        depth: int,
    ) -> Document:
        made: Document = {"Type": kind}
        if not jsonata and self.chance(3):
            jsonata = True
            made["QueryLanguage"] = "JSONata"
        writer = (QueryWriter if jsonata else PathWriter)(self, own, outer)
        if kind == "Choice":
            made |= writer.choice(flow["Next"], around)
        else:
            made |= flow
            made |= getattr(writer, kind.lower())()
        if kind == "Parallel":
            branches = range(self.draw(st.integers(1, 2)))
            made["Branches"] = [self.machine(jsonata, (*outer, *own), depth - 1) for _ in branches]
        elif kind == "Map":
            made[self.one(("ItemProcessor", "ItemProcessor", "Iterator"))] = {
                **({"ProcessorConfig": {"Mode": "INLINE"}} if self.chance() else {}),
                **self.machine(jsonata, (*outer, *own), depth - 1),
            }
        if kind in ("Task", "Parallel", "Map"):
            if self.chance():
                made["Retry"] = self.policies(self.retrier)
            if around and self.chance():
                made["Catch"] = self.policies(lambda: writer.catcher(self.one(around)))
        if kind not in ("Succeed", "Fail", "Choice") and own and self.chance():
            made["Assign"] = writer.assign()
        return made

    def policies(self, make: Any) -> list[Document]:
        """One or two; States.ALL stands alone and last."""
        made = [{"ErrorEquals": [self.one(ERRORS)], **make()} for _ in range(self.draw(st.integers(1, 2)))]
        if self.chance():
            made[-1]["ErrorEquals"] = ["States.ALL"]
        return made

    def retrier(self) -> Document:
        made: Document = {"MaxAttempts": self.draw(st.integers(0, 2)), "IntervalSeconds": self.draw(st.integers(1, 60))}
        if self.chance():
            made["BackoffRate"] = self.one((1, 1.5, 2.0))
        if self.chance(4):
            made |= {"MaxDelaySeconds": 60, "JitterStrategy": self.one(("FULL", "NONE"))}
        return made


class Writer:
    """The fields of one state that depend on the query language. `own` variables can be assigned, all can be read."""

    def __init__(self, author: Author, own: tuple[str, ...], outer: tuple[str, ...]) -> None:
        self.author = author
        self.own = own
        self.variables = (*outer, *own)
        self.one = author.one
        self.chance = author.chance

    def assign(self) -> Document:
        raise NotImplementedError

    def field(self) -> tuple[str, Any]:
        """What ends a field's name, and what stands in it."""
        raise NotImplementedError

    def template(self) -> Document:
        """An object in which some values are computed, some of them deep."""
        made: Document = {}
        for name in ("n", "items", "deep"):
            suffix, value = self.field()
            made[f"{name}{suffix}"] = value
        if self.chance(3):
            made["inner"] = {"list": [self.one(LITERALS), dict([("x" + suffix, value)])]}
        return made

    def times(self) -> Document:
        """A Task's."""
        made: Document = {}
        if self.chance(3):
            made["TimeoutSeconds"] = self.author.draw(st.integers(100, 3000))
        if self.chance(4):
            made["HeartbeatSeconds"] = self.author.draw(st.integers(1, 99))
        if self.chance(8):
            made |= {"ScheduleToStartSeconds": 500, "Priority": -3, "TaskQueue": "elsewhere"}
        return made


class PathWriter(Writer):
    """JSONPath."""

    def expression(self) -> str:
        sort = self.author.draw(st.integers(0, 2 if self.variables else 1))
        return f"${self.one(self.variables)}" if sort == 2 else self.one((PATHS, INTRINSICS)[sort])

    def field(self) -> tuple[str, Any]:
        return (".$", self.expression()) if self.chance() else ("", self.one(LITERALS))

    def assign(self) -> Document:
        suffix, value = self.field()
        return {f"{self.one(self.own)}{suffix}": value}

    def flow(self) -> Document:
        made: Document = {}
        if self.chance(5):
            made["InputPath"] = self.one(("$", None, "$$.Execution.Input", "$.deep"))
        if self.chance(5):
            made["OutputPath"] = self.one(("$", None, "$.n", "$$.Execution.Input", "$.nowhere"))
        return made

    def place(self) -> Document:
        return {"ResultPath": self.one(("$", None, "$.r", "$.deep.new.place", "$.items[0]"))} if self.chance() else {}

    def work(self, *templates: str) -> Document:
        made = {name: self.template() for name in templates if self.chance()}
        return made | self.flow() | self.place()

    def catcher(self, following: str) -> Document:
        assign = {"Assign": self.assign()} if self.own and self.chance(3) else {}
        return {"Next": following} | assign | self.place()

    def succeed(self) -> Document:
        return self.flow()

    def fail(self) -> Document:
        made: Document = {}
        if self.chance():
            made |= self.one(({"Error": self.one(FAILURES)}, {"ErrorPath": "$.s"}, {"ErrorPath": "States.UUID()"}))
        if self.chance():
            made |= self.one(({"Cause": "because"}, {"CausePath": "$.nowhere"}, {"CausePath": "States.JsonToString($)"}))
        return made

    def wait(self) -> Document:
        return self.flow() | self.one((
            {"Seconds": 0}, {"Seconds": 90}, {"SecondsPath": "$.n"}, {"SecondsPath": "$$.Execution.Input.n"},
            {"Timestamp": "2026-01-01T01:00:00Z"}, {"TimestampPath": "$$.Execution.Input.when"},
        ))  # fmt: skip

    def task(self) -> Document:
        made = self.work("Parameters", "ResultSelector") | self.times() | {"Resource": self.one(RESOURCES)}
        if made["Resource"].endswith("lambda:invoke"):
            made["Parameters"] = {"FunctionName": "work", "Payload": self.template()}
        elif self.chance(3) and made["Resource"].endswith("Token"):
            made["Parameters"] = {"token.$": "$$.Task.Token"}
        if "TimeoutSeconds" not in made and self.chance(6):
            made["TimeoutSecondsPath"] = "$$.Execution.Input.n"
        return made

    def parallel(self) -> Document:
        return self.work("Parameters", "ResultSelector")

    def map(self) -> Document:
        made = self.work("ResultSelector")
        made |= self.one(({"ItemsPath": "$$.Execution.Input.items"}, {"ItemsPath": "$.items"}, {}))
        if self.chance():
            made["ItemSelector"] = self.template() | {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value"}
        return made | self.one(({}, {"MaxConcurrency": 1}, {"MaxConcurrencyPath": "$$.Execution.Input.n"}))

    def choice(self, following: str, around: tuple[str, ...]) -> Document:
        rules = [self.rule(2) | {"Next": self.one((following, *around))} for _ in range(self.author.draw(st.integers(1, 2)))]
        for rule in rules:
            if self.own and self.chance(3):
                rule["Assign"] = self.assign()
        if self.chance(4):
            rules[0]["Next"] = following
            return {"Choices": rules} | self.flow()
        return {"Choices": rules, "Default": following} | self.flow()

    def rule(self, depth: int) -> Document:
        if not depth or self.chance():
            return copy.deepcopy(self.one(COMPARISONS))
        joined = self.one(("And", "Or", "Not"))
        return {joined: self.rule(depth - 1) if joined == "Not" else [self.rule(depth - 1), self.rule(depth - 1)]}


setattr(PathWriter, "pass", lambda self: self.work("Parameters") | ({"Result": self.one(LITERALS)} if self.chance() else {}))


class QueryWriter(Writer):
    """JSONata."""

    def expression(self) -> str:
        text = f"${self.one(self.variables)}" if self.variables and self.chance(3) else self.one(QUERIES)
        return query(self.one((text, text, f"[{text}]", f"$string({text}) & '!'", f"{{'n': {text}}}")))

    def field(self) -> tuple[str, Any]:
        return "", self.expression() if self.chance() else self.one(LITERALS)

    def assign(self) -> Document:
        return {self.one(self.own): self.field()[1]}

    def output(self, *more: str) -> Document:
        if not self.chance():
            return {}
        return {"Output": query(self.one(more)) if more and self.chance() else self.template()}

    def catcher(self, following: str) -> Document:
        assign = {"Assign": self.assign()} if self.own and self.chance(3) else {}
        return {"Next": following} | assign | self.output("$states.errorOutput", "$states.errorOutput.Error", "$states.input")

    def succeed(self) -> Document:
        return self.output()

    def fail(self) -> Document:
        made: Document = {}
        if self.chance():
            made["Error"] = self.one(("Boom", query("$states.input.s"), query("'Ba' & 'ng'")))
        if self.chance():
            made["Cause"] = self.one(("because", query("$string($states.input)"), query("$states.input.n")))
        return made

    def wait(self) -> Document:
        return self.output() | self.one((
            {"Seconds": 0}, {"Seconds": 90}, {"Seconds": query(self.one(NUMBERS))}, {"Timestamp": "2026-01-01T01:00:00Z"},
            {"Timestamp": query("$states.context.Execution.Input.when")}, {"Timestamp": query("$states.input.when")},
        ))  # fmt: skip

    def task(self) -> Document:
        made = self.output("$states.result", "$states.result.n", "[$states.result]") | self.times()
        made["Resource"] = self.one(RESOURCES)
        if self.chance():
            made["Arguments"] = self.one((self.template(), self.expression()))
        if made["Resource"].endswith("lambda:invoke"):
            made["Arguments"] = {"FunctionName": self.one(("work", query("'wo' & 'rk'"))), "Payload": self.template()}
        elif self.chance(3) and made["Resource"].endswith("Token"):
            made["Arguments"] = {"token": query("$states.context.Task.Token")}
        if "TimeoutSeconds" not in made and "HeartbeatSeconds" not in made and self.chance(6):
            made["TimeoutSeconds"] = query(self.one(NUMBERS))
        return made

    def parallel(self) -> Document:
        return self.output("$states.result", "$states.result[0]") | ({"Arguments": self.template()} if self.chance() else {})

    def map(self) -> Document:
        made = self.output("$states.result", "$count($states.result)")
        items = ([1, 2], query("$states.context.Execution.Input.items"), query("[1..2]"), query("$states.input.items"))
        made |= {"Items": self.one(items)} if self.chance(3) else {"Items": items[1]}
        if self.chance():
            item = {"i": query("$states.context.Map.Item.Index"), "v": query("$states.context.Map.Item.Value")}
            made["ItemSelector"] = self.template() | item
        return made | self.one(({}, {"MaxConcurrency": 1}, {"MaxConcurrency": query(self.one(NUMBERS))}))

    def choice(self, following: str, around: tuple[str, ...]) -> Document:
        rules: list[Document] = []
        for _ in range(self.author.draw(st.integers(1, 2))):
            condition = query(self.one(CONDITIONS)) if not self.chance(5) else self.chance()
            rules.append({"Condition": condition, "Next": self.one((following, *around))} | self.output())
            if self.own and self.chance(3):
                rules[-1]["Assign"] = self.assign()
        if self.chance(4):
            rules[0]["Next"] = following
            return {"Choices": rules} | self.output()
        return {"Choices": rules, "Default": following} | self.output()


setattr(QueryWriter, "pass", QueryWriter.output)


@st.composite
def definitions(draw: st.DrawFn, *, cycles: bool = False) -> Document:
    """A valid definition; without `cycles` every way leads forward, and so to an end."""
    return Author(draw, cycles).definition()


# --- mutations ---------------------------------------------------------------------------------------------------

SPARE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**30, 1e300, 100_000_000, "", "$", "$.", "$.a[", "$$", "Nowhere", "S0", "{%%}", "{% %}",
    "{% ( %}", "{% $nobody %}", "{% $states.result %}", "States.ALL", "States.Array(", "States.Nothing()", [], [[]],
    [None], {}, {"a.$": 1}, {"a.$": "$.a"}, [{}], "x" * 300, "JSONata", "JSONPath", "DISTRIBUTED", "Fail", "Map",
    "2026-13-01T00:00:00Z", "$.a[?(@.b =~ /x/)]", "\u0000", "é",
)  # fmt: skip
BREAKS = ("(", ")", "[", "]", "{", "}", "'", '"', "$", ".", "%", "\\", ",", "?", "@", "*", "~>", ":=", "/", "0", " ", "é")


def places(value: Any, path: Place = ()) -> list[Place]:
    """Every place in a document but the document itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[Place] = [] if not path else [path]
    for key, item in inner:
        found += places(item, (*path, key))
    return found


def at(document: Any, place: Place) -> Any:
    for key in place:
        document = document[key]
    return document


@st.composite
def mutations(draw: st.DrawFn, *, most: int = 3) -> Document:
    """A valid definition in which something was deleted, renamed, retyped, swapped, broken or put out of range."""
    document: Document = draw(definitions(cycles=draw(st.booleans())))
    for _ in range(draw(st.integers(1, most))):
        known = places(document)
        if not known:
            break
        place = draw(st.sampled_from(known))
        _mutate(draw, document, place, known)
    return document


def _mutate(draw: st.DrawFn, document: Document, place: Place, known: list[Place]) -> None:
    holder, key = at(document, place[:-1]), place[-1]
    value = holder[key]
    how = draw(st.sampled_from(("delete", "rename", "retype", "swap", "break", "number")))
    if how == "delete":
        del holder[key]
    elif how == "rename":
        if isinstance(holder, dict):
            name = draw(st.sampled_from((f"{key}x", str(key)[:-1], str(key).swapcase(), f"{key}.$", "", "States", "End")))
            holder[name] = holder.pop(key)
        else:
            holder.insert(0, copy.deepcopy(value))
    elif how == "swap":
        alike = [each for each in known if type(at(document, each)) is type(value) and not isinstance(value, dict | list)]
        if alike:
            other = draw(st.sampled_from(alike))
            there = at(document, other[:-1])
            holder[key], there[other[-1]] = there[other[-1]], holder[key]
    elif how == "break" and isinstance(value, str):
        cut = draw(st.integers(0, len(value)))
        piece = draw(st.sampled_from(BREAKS))
        holder[key] = draw(st.sampled_from((value[:cut] + piece + value[cut:], value[:cut], value[:cut] + value[cut + 1 :])))
    elif how == "number" and isinstance(value, int | float):
        holder[key] = draw(st.sampled_from((-value, value + 0.5, value * 10**12, -1, 0, 2**63, 1e308, str(value))))
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(SPARE)))
