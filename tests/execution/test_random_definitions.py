"""For random definitions, whatever becomes of their tasks: what is valid runs to a defined end, what is broken is
refused with faults or runs to a defined end, too. `Drive` replays every run after each of its decisions."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_definitions import definitions
from random_expressions import FAILURES, INPUT, Document, query
from random_mutations import mutations

from daemon.execution.commands import (
    CompleteTask,
    FailTask,
    Limits,
    RecordOutcome,
    ReturnTask,
    StartTask,
)
from daemon.execution.deadlines import next_wake
from daemon.execution.nodes import HISTORY_LIMIT
from daemon.execution.tokens import CALLBACK
from daemon.language import Definition, InvalidDefinition, parse_definition
from daemon.language.errors import RESERVED
from daemon.language.source import load
from daemon.language.values import same
from enginekit.messages.events import TimeoutKind
from enginekit.messages.json import encode
from enginekit.messages.status import ExecutionStatus, Refused
from tests.hypothesis_profiles import examples

ENDLESS = Limits(step_transitions=7, step_events=20, history_events=60, payload_bytes=20_000)
"""For definitions that may go round in circles: small, since every decision replays the whole history."""
FINITE = Limits(step_transitions=7, step_events=20, payload_bytes=20_000)

OUTPUTS: tuple[Any, ...] = (None, 0, "text", [], [1, 2], {"n": 3}, {"items": [4], "s": "é", "n": 1}, INPUT, "x" * 9_000)

SETTINGS = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def play(drive: Any, definition: Document, seed: int, limits: Limits) -> Any:
    """Run it. Tasks are taken, given back, ended, answered by their tokens or forgotten, as chance has it."""
    run = drive(definition, INPUT, limits, seed)
    chance = random.Random(seed)
    for _ in range(3000):
        if run.run.status.closed:
            return run
        if run.run.tasks and chance.random() < 0.85:
            act(run, chance, chance.choice(sorted(run.run.tasks)))
        else:
            run.advance(chance.choice([1, 30, 1000, 100_000_000]))
    raise AssertionError(f"the run does not end: {run.types[-30:]}")


def act(run: Any, chance: random.Random, task: int) -> None:
    """Something happens to a task. What comes too late or too early is refused, and that is all."""
    output = encode(chance.choice(OUTPUTS))
    error = chance.choice(FAILURES)
    attempt = run.run.nodes[run.run.tasks[task]].task
    command = chance.choice([
        RecordOutcome(task=task, worker="w", output=output),
        RecordOutcome(task=task, worker="w", output=output),
        RecordOutcome(task=task, worker="w", error=error, cause="by chance"),
        RecordOutcome(task=task, worker="w", timed_out=TimeoutKind.START_TO_CLOSE, ran_seconds=1.5),
        StartTask(task=task, worker="w"),
        CompleteTask(task=task, returns=attempt.returns, output=output),
        CompleteTask(task=task, returns=CALLBACK, output=output),
        FailTask(task=task, returns=chance.choice([attempt.returns, CALLBACK]), error=error, cause=""),
        ReturnTask(task=task, returns=attempt.returns, reason="stopping"),
    ])  # fmt: skip
    before = len(run.stored)
    try:
        run.do(command)
    except Refused:
        assert len(run.stored) == before


def check_end(run: Any, *, endless: bool) -> None:
    """It is over in a way that has a name, and nothing of it is left."""
    ended = run.run
    assert ended.status in (ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT)
    assert (ended.tasks, ended.mappings, ended.again, next_wake(ended, run.pulse)) == ({}, {}, [], None)
    if ended.status is ExecutionStatus.SUCCEEDED:
        assert (ended.branches, ended.nodes, ended.ready, ended.filling) == ({}, {}, [], [])
    if ended.status is ExecutionStatus.SUCCEEDED:
        json.dumps(run.output, allow_nan=False)
        return
    assert isinstance(ended.error, str)
    assert isinstance(ended.cause, str)
    if not endless:
        assert not ended.error.startswith("States.") or ended.error in RESERVED
    if ended.error == HISTORY_LIMIT:
        assert endless
        assert "at most 60 events" in ended.cause


# --- what is valid -----------------------------------------------------------------------------------------------


@settings(SETTINGS, max_examples=examples(80))
@given(definitions(), st.integers(0, 2**16))
def test_a_valid_definition_runs_to_its_end_and_does_so_again(drive: Any, definition: Document, seed: int) -> None:
    run = play(drive, definition, seed, FINITE)
    check_end(run, endless=False)
    assert play(drive, definition, seed, FINITE).stored == run.stored


@settings(SETTINGS, max_examples=examples(50))
@given(definitions(cycles=True), st.integers(0, 2**16))
def test_a_definition_with_cycles_ends_or_comes_to_its_limit(drive: Any, definition: Document, seed: int) -> None:
    check_end(play(drive, definition, seed, ENDLESS), endless=True)


# --- what is broken ----------------------------------------------------------------------------------------------


def read(text: str) -> Definition | InvalidDefinition:
    try:
        return parse_definition(text)
    except InvalidDefinition as invalid:
        return invalid


@settings(SETTINGS, max_examples=examples(150))
@given(mutations(), st.integers(0, 2**16))
def test_a_broken_definition_is_refused_or_runs_to_a_defined_end(drive: Any, definition: Document, seed: int) -> None:
    found = read(json.dumps(definition))
    if isinstance(found, InvalidDefinition):
        assert found.faults
        for fault in found.faults:
            assert re.search(r"\w \w", fault.message), fault
            # What is missing is missed where it should be, or at what should have it.
            place = fault.path.rpartition(".")[0] if " needs " in fault.message else fault.path
            assert leads_somewhere(definition, fault.path) or leads_somewhere(definition, place), fault
        return
    check_end(play(drive, definition, seed, ENDLESS), endless=True)


# Found by such definitions, each in its smallest form.


@pytest.mark.parametrize(
    "text",
    [
        "$now('[')",
        "$fromMillis(0, '[')",
        "$fromMillis(0, '[HN]')",
        "$fromMillis(0, '[Y#]')",
        "$toMillis('a', '[')",
        "$toMillis('a', '[Hn]')",
        "$formatInteger(1, '#')",
        "$parseInteger('1', '#')",
        "$string($states.input.huge)",
        "'' & $states.input.huge",
        "$sqrt($states.input.huge)",
        "[1..$states.input.huge]",
        "$sift({'a': 1})",
    ],
)
def test_an_expression_that_cannot_be_evaluated_fails_its_state(drive: Any, text: str) -> None:
    state = {"Type": "Pass", "Output": query(text), "End": True}
    run = drive({"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}}, {"huge": 10**400})
    check_end(run, endless=False)
    assert run.run.error in (None, "States.QueryEvaluationError")


@pytest.mark.parametrize("given", [None, 5, True, []])
def test_a_lambda_invocation_whose_arguments_are_no_object_is_refused(given: Any) -> None:
    state = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Arguments": given, "End": True}
    found = read(json.dumps({"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}}))
    assert isinstance(found, InvalidDefinition)


@pytest.mark.parametrize(("text", "value"), [("$round(1e30)", 1e30), ("$formatBase(1e30, 16) != '0'", True)])
def test_what_is_large_is_not_rounded_to_nothing(drive: Any, text: str, value: Any) -> None:
    state = {"Type": "Pass", "Output": query(text), "End": True}
    run = drive({"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": state}})
    assert run.output == value


def leads_somewhere(value: Any, path: str) -> bool:
    """Whether a fault's path is a place in the document. Names may have any characters in them, dots too."""
    if not path:
        return True
    if isinstance(value, list):
        index = re.match(r"\[(\d+)\]\.?", path)
        return (
            index is not None
            and int(index[1]) < len(value)
            and leads_somewhere(value[int(index[1])], path[index.end() :])
        )
    if not isinstance(value, dict):
        return False
    return any(
        path.startswith(name)
        and (path == name or path[len(name)] in ".[")
        and leads_somewhere(value[name], path[len(name) :].removeprefix("."))
        for name in value
    )


# --- text --------------------------------------------------------------------------------------------------------


def canonical(text: str) -> str:
    """What the text says, as JSON: names in order, nothing between."""
    return json.dumps(load(text).value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def skeleton(value: Any) -> Any:
    """A parsed definition without its compiled expressions, which are not to be compared, and with its warnings in
    order."""
    if isinstance(value, msgspec.Struct):
        made = {name: skeleton(getattr(value, name)) for name in value.__struct_fields__}
        return made | {"warnings": sorted(map(str, value.warnings))} if isinstance(value, Definition) else made
    if isinstance(value, dict):
        return {name: skeleton(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [skeleton(item) for item in value]
    return "compiled" if callable(value) else value


@settings(SETTINGS, max_examples=examples(50))
@given(definitions(cycles=True) | mutations(), st.booleans())
def test_json_and_yaml_are_the_same_definition_and_the_canonical_text_is_a_fixed_point(
    document: Document, flow: bool
) -> None:
    as_json = json.dumps(document, indent=1)
    as_yaml = "# YAML\n" + yaml.safe_dump(document, allow_unicode=True, default_flow_style=flow, sort_keys=False)
    assert same(load(as_json).value, document)
    assert canonical(as_json) == canonical(as_yaml) == canonical(canonical(as_json))
    texts = [as_json, as_yaml, canonical(as_json)]
    first, *others = [read(text) for text in texts]
    for other in others:
        if isinstance(first, InvalidDefinition):
            assert isinstance(other, InvalidDefinition)
            assert sorted(map(str, first.faults)) == sorted(map(str, other.faults))
        else:
            assert skeleton(first) == skeleton(other)
