"""The table of conformance cases: reading it, and running one case through the pure core.

A file has a `section` (of the specification), a `source` (what the expectations are taken from) and `cases`. A case is
written in the shortest of these forms, and stands for one or several runs:

- `rule` with `holds`, `not` and `fails`: a Choice rule about `$.v`, and values of it.
- `path`: a path or intrinsic function, as the value of a `.$` field.
- `query`: a JSONata expression, as the Output of a state.
- `state` (or `states`, or a whole `definition`): with `input`, and `tasks`, which has for each Resource its outcomes in
  order: `output`, or `error` and `cause`.

What it comes to is `gives` (the output), or `error` with `cause`, or for a definition that is refused `faults`.
`cause_source` says where the cause's words are from, one of SOURCES; a case that fails must say it. `error` is the name
that the reference service was seen to give, where its own documentation and the specification have another, too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from daemon.execution.commands import Environment, Limits, Proceed, Pulse, RecordOutcome, Start, TaskDefaults, Wake
from daemon.execution.deadlines import next_wake
from daemon.execution.decide import decide, start
from daemon.execution.state import Run, Task
from daemon.execution.step import Decision
from daemon.language import InvalidDefinition, parse_definition
from enginekit.messages.events import TaskKind, TimeoutKind
from enginekit.messages.json import decode, encode
from enginekit.messages.links import RunRef

FOLDER = Path(__file__).parent
STARTED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
_DEFAULTS = TaskDefaults(
    timeout_seconds=300,
    schedule_to_start_seconds=3600,
    lease_seconds=30,
    returns=2,
    retry_attempts=0,
    retry_interval_seconds=1,
    retry_backoff_rate=2,
    retry_max_delay_seconds=30,
    retry_after_limit_seconds=3600.0,
)


SOURCES = {
    "definition": "the definition's own, or what its task reported; the service passes it on as it is",
    "floci": "captured from the service by the tests of the emulator floci",
    "localstack": "recorded from the service by the tests of the emulator localstack",
    "tiny-asl-machine": "recorded from the service by the tests of the interpreter tiny-asl-machine",
    "reports": "published reports of executions that failed in the service",
    "jsonata": "the message that JSONata's reference implementation has for the code, in the service's sentence",
    "form": "a sentence recorded for another field or function, with the names of this one in it",
    "ours": "no record of the service's words is known, or it has none",
}
"""Where the words of a cause are from."""

RECORDED = frozenset({"definition", "floci", "localstack", "tiny-asl-machine", "reports", "jsonata"})
"""The sources that make a cause the reference service's, word for word."""


class Case(NamedTuple):
    """One run: of what, with what, and what it has to come to (`gives`, `error` and `cause`, `faults`, `seconds`)."""

    name: str
    definition: dict[str, Any]
    input: Any
    tasks: dict[str, list[dict[str, Any]]]
    expected: dict[str, Any]


class Outcome(NamedTuple):
    """What it came to."""

    status: str
    output: Any
    error: str | None
    cause: str | None
    seconds: float


_EXPECTED = ("gives", "error", "cause", "cause_source", "faults", "seconds")


def load() -> Iterator[tuple[Path, Case]]:
    for file in sorted(FOLDER.glob("*.yaml")):
        document = yaml.safe_load(file.read_text())
        for written in document["cases"]:
            for case in expanded(written):
                yield file, case


def expanded(written: dict[str, Any]) -> Iterator[Case]:
    expected = {key: written[key] for key in _EXPECTED if key in written}
    if "error" in expected or "fails" in written:
        assert written.get("cause_source") in SOURCES, f"{written}: needs a cause_source: {', '.join(SOURCES)}"
    tasks = written.get("tasks", {})
    data = written.get("input", {})
    if "rule" in written:
        yield from _rules(written)
    elif "path" in written:
        state = {"Type": "Pass", "Parameters": {"r.$": written["path"]}, "OutputPath": "$.r", "End": True}
        name = written.get("name", f"{written['path']} {json.dumps(data)[:40]}")
        yield Case(name, _machine({"S": state}), data, tasks, expected)
    elif "query" in written:
        state = {"Type": "Pass", "Output": "{% " + written["query"] + " %}", "End": True}
        name = written.get("name", f"{written['query']} {json.dumps(data)[:40]}")
        yield Case(name, {"QueryLanguage": "JSONata", **_machine({"S": state})}, data, tasks, expected)
    else:
        states = written.get("states") or {"S": written.get("state")}
        definition = written.get("definition")
        if definition is None:
            definition = _machine({name: _ended(each) for name, each in states.items()})
        if "language" in written:
            definition = {"QueryLanguage": written["language"], **definition}
        yield Case(written["name"], definition, data, tasks, expected)


def _rules(written: dict[str, Any]) -> Iterator[Case]:
    rule = written["rule"]
    about = {} if {"And", "Or", "Not", "Condition"} & rule.keys() else {"Variable": "$.v"}
    choice = {"Type": "Choice", "Choices": [{**about, **rule, "Next": "Yes"}], "Default": "No"}
    ends = {"Yes": {"Type": "Pass", "Result": True, "End": True}, "No": {"Type": "Pass", "Result": False, "End": True}}
    definition = _machine({"S": choice, **ends})
    for verdict, expected in (("holds", {"gives": True}), ("not", {"gives": False}), ("fails", None)):
        for value in written.get(verdict, ()):
            data = value if isinstance(value, dict) and written.get("whole") else {"v": value}
            name = f"{json.dumps(rule)} {verdict} {json.dumps(value)}"
            wanted = expected or {
                "error": "States.Runtime",
                "cause": written["cause"],
                "cause_source": written["cause_source"],
            }
            yield Case(name, definition, data, {}, wanted)


def _machine(states: dict[str, Any]) -> dict[str, Any]:
    return {"StartAt": next(iter(states)), "States": states}


def _ended(state: dict[str, Any]) -> dict[str, Any]:
    """With `End` where it says nothing of what comes next."""
    if state["Type"] in ("Choice", "Succeed", "Fail") or "Next" in state or "End" in state:
        return state
    return {**state, "End": True}


def faults_of(case: Case) -> list[str] | None:
    """What is wrong with its definition, None where nothing is."""
    try:
        parse_definition(json.dumps(case.definition))
    except InvalidDefinition as invalid:
        return [str(fault) for fault in invalid.faults]
    return None


def run(case: Case) -> Outcome:
    """Run it to its end. Time passes only where the run waits for it."""
    environment = _Clock(case.definition)
    run, decision = start(
        Start(
            run=RunRef("acme", "order-1", "run-1"),
            workflow="orders",
            version=1,
            definition_hash="abc",
            input=encode(case.input),
            labels={},
            request_id=None,
            timeout_seconds=None,
        ),
        environment.now_is(),
    )
    answers = {resource: iter(outcomes) for resource, outcomes in case.tasks.items()}
    while not run.status.closed:
        if decision.unfinished:
            decision = decide(run, Proceed(), environment.now_is())
        elif (waiting := _waiting(run)) is not None:
            decision = _answer(run, waiting, answers, environment)
        else:
            at = next_wake(run, environment.pulse)
            assert at is not None, "it waits for nothing"
            environment.now = max(environment.now, at)
            decision = decide(run, Wake(pulse=environment.pulse), environment.now_is())
    return Outcome(
        run.status.value,
        None if run.output is None else decode(run.output.raw),
        run.error,
        run.cause,
        (environment.now - STARTED).total_seconds(),
    )


def _waiting(run: Run) -> Task | None:
    """A task that has not been run."""
    tasks = (run.nodes[entry].task for entry in run.tasks.values())
    return next((task for task in tasks if task is not None and task.submitted_at is None), None)


def _answer(run: Run, task: Task, answers: dict[str, Iterator[dict[str, Any]]], environment: _Clock) -> Decision:
    resource = f"activity:{task.queue}" if task.kind is TaskKind.ACTIVITY else task.resource
    answer = next(answers[resource], None) if resource in answers else {"echo": True}
    assert answer is not None, f"{resource} is run more often than there are answers"
    environment.now += timedelta(seconds=answer.get("after", 0))
    error = answer.get("error")
    if error is not None:
        outcome = RecordOutcome(task=task.id, worker="w", error=error, cause=answer.get("cause", ""))
    elif "timeout" in answer:
        kind = TimeoutKind(answer["timeout"])
        outcome = RecordOutcome(task=task.id, worker="w", timed_out=kind, ran_seconds=5.0)
    else:
        output = decode(task.input.raw) if "echo" in answer else answer["output"]
        outcome = RecordOutcome(task=task.id, worker="w", output=encode(output))
    return decide(run, outcome, environment.now_is())


class _Clock:
    """Time and chance, in the case's hands."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = parse_definition(json.dumps(definition))
        self.now = STARTED
        self.pulse = Pulse(since=STARTED)
        self._chance = random.Random(1)

    def now_is(self) -> Environment:
        return Environment(
            definition=self.definition,
            now=self.now,
            by="tester",
            random=self._chance.random,
            uuid=lambda: "5f0c6a3e-1f54-4c1e-8a3c-000000000000",
            run_id=lambda: f"child-{self._chance.getrandbits(64):016x}",
            token=lambda event_id, returns: f"token-{event_id}-{returns}",
            limits=Limits(),
            defaults=_DEFAULTS,
        )
