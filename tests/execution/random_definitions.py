"""A strategy for valid definitions: every type of state, in both query languages, with and without cycles.

What stands in their expressions is in `random_expressions`. How they are parsed, run and judged is
`test_random_definitions`.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from random_expressions import (
    COMPARISONS,
    CONDITIONS,
    ERRORS,
    FAILURES,
    INTRINSICS,
    LITERALS,
    NUMBERS,
    PATHS,
    QUERIES,
    RESOURCES,
    Document,
    query,
)

KINDS = ("Pass", "Task", "Task", "Choice", "Wait", "Parallel", "Map")
LEAVES = KINDS[:5]


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
        number = self.machines
        own = (f"v{number}", f"w{number}") if self.chance() else ()
        names = [f"S{self.states + index}" for index in range(self.draw(st.integers(1, 4)))]
        self.states += len(names)
        states: Document = {}
        for index, name in enumerate(names):
            last = index == len(names) - 1
            around = tuple(names) if self.cycles else tuple(names[index + 1 :])
            kind = self.one(KINDS if depth else LEAVES)
            if last and not (self.cycles and self.chance()):
                kind = self.one(("Pass", "Succeed", "Fail", "Task", "Wait"))
                flow: Document = {} if kind in ("Succeed", "Fail") else {"End": True}
            else:
                flow = {"Next": self.one(around) if last else names[index + 1]}
            states[name] = self.state(kind, jsonata, flow, around, own, outer, depth)
        if own:
            # Whatever refers to them finds them assigned, since this state is the first.
            states = {f"A{number}": self.assigning(own, jsonata, names[0]), **states}
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
            made |= writer.fields(kind)
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
        if kind not in ("Succeed", "Fail") and own and self.chance():
            made["Assign"] = writer.assign()
        return made

    def policies(self, make: Callable[[], Document]) -> list[Document]:
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


class Writer(ABC):
    """The fields of one state that depend on the query language. `own` variables can be assigned, all can be read."""

    def __init__(self, author: Author, own: tuple[str, ...], outer: tuple[str, ...]) -> None:
        self.author = author
        self.own = own
        self.variables = (*outer, *own)
        self.one = author.one
        self.chance = author.chance

    @abstractmethod
    def assign(self) -> Document: ...

    @abstractmethod
    def field(self) -> tuple[str, Any]:
        """What ends a field's name, and what stands in it."""

    @abstractmethod
    def catcher(self, following: str) -> Document: ...

    @abstractmethod
    def choice(self, following: str, around: tuple[str, ...]) -> Document: ...

    @abstractmethod
    def fields(self, kind: str) -> Document:
        """What the other types of state have, without what every one of them has."""

    def template(self) -> Document:
        """An object in which some values are computed, some of them deep."""
        made: Document = {}
        for name in ("n", "items", "deep"):
            suffix, value = self.field()
            made[f"{name}{suffix}"] = value
        if self.chance(3):
            made["inner"] = {"list": [self.one(LITERALS), {f"x{suffix}": value}]}
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

    def fields(self, kind: str) -> Document:
        make = {
            "Pass": self.passing, "Task": self.task, "Wait": self.wait, "Succeed": self.flow, "Fail": self.fail,
            "Parallel": self.parallel, "Map": self.map,
        }[kind]  # fmt: skip
        return make()

    def passing(self) -> Document:
        return self.work("Parameters") | ({"Result": self.one(LITERALS)} if self.chance() else {})

    def fail(self) -> Document:
        made: Document = {}
        if self.chance():
            made |= self.one(({"Error": self.one(FAILURES)}, {"ErrorPath": "$.s"}, {"ErrorPath": "States.UUID()"}))
        if self.chance():
            made |= self.one(
                ({"Cause": "because"}, {"CausePath": "$.nowhere"}, {"CausePath": "States.JsonToString($)"})
            )
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
        rules = [
            self.rule(2) | {"Next": self.one((following, *around))} for _ in range(self.author.draw(st.integers(1, 2)))
        ]
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
        return (
            {"Next": following}
            | assign
            | self.output("$states.errorOutput", "$states.errorOutput.Error", "$states.input")
        )

    def fields(self, kind: str) -> Document:
        make = {
            "Pass": self.output, "Task": self.task, "Wait": self.wait, "Succeed": self.output, "Fail": self.fail,
            "Parallel": self.parallel, "Map": self.map,
        }[kind]  # fmt: skip
        return make()

    def fail(self) -> Document:
        made: Document = {}
        if self.chance():
            made["Error"] = self.one(("Boom", query("$states.input.s"), query("'Ba' & 'ng'")))
        if self.chance():
            made["Cause"] = self.one(("because", query("$string($states.input)"), query("$states.input.n")))
        return made

    def wait(self) -> Document:
        return self.output() | self.one((
            {"Seconds": 0}, {"Seconds": 90}, {"Seconds": query(self.one(NUMBERS))},
            {"Timestamp": "2026-01-01T01:00:00Z"}, {"Timestamp": query("$states.context.Execution.Input.when")},
            {"Timestamp": query("$states.input.when")},
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
        return self.output("$states.result", "$states.result[0]") | (
            {"Arguments": self.template()} if self.chance() else {}
        )

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


@st.composite
def definitions(draw: st.DrawFn, *, cycles: bool = False) -> Document:
    """A valid definition; without `cycles` every way leads forward, and so to an end."""
    made = Author(draw, cycles).definition()
    # What is drawn shares its parts with the tables above, and mutations change it.
    copied: Document = json.loads(json.dumps(made))
    return copied
