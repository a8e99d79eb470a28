"""Random definitions whose runs are canceled, terminated, sent signals and redriven at any moment, over and over.
`Drive` replays every run after each of its decisions, and reads its snapshot back."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_definitions import definitions
from random_expressions import INPUT, Document
from test_random_definitions import FINITE, OUTPUTS, act

from daemon.execution.commands import Cancel, ChildClosed, ChildStarted, Command, Redrive, Signal, Terminate
from daemon.execution.deadlines import next_wake
from enginekit.messages.events import TaskKind
from enginekit.messages.json import NULL, encode
from enginekit.messages.status import ExecutionStatus, Refused
from tests.hypothesis_profiles import examples

REDRIVES = 6
RESOURCES = ("workflow:child", "signal:go", "activity:work", "echo")
EVENTS = 3000
"""Where a run has become this long, it is left to end."""


def other_resources(document: Any, chance: random.Random) -> Any:
    """Some of its tasks wait for a child or a signal instead."""
    if isinstance(document, list):
        return [other_resources(item, chance) for item in document]
    if not isinstance(document, dict):
        return document
    made = {name: other_resources(item, chance) for name, item in document.items()}
    plain = str(made.get("Resource", "")).startswith(("echo", "activity:"))
    if made.get("Type") == "Task" and plain and ".wait" not in made["Resource"] and "HeartbeatSeconds" not in made:
        made["Resource"] = chance.choice(RESOURCES)
        if made["Resource"].startswith(("workflow:", "signal:")):
            for name in ("TaskQueue", "Priority", "ScheduleToStartSeconds"):
                made.pop(name, None)
    return made


def closed(run: Any, task: int, chance: random.Random) -> Command:
    return ChildClosed(
        task=task,
        workflow_id="child",
        run_id="r-1",
        workflow="child",
        status=chance.choice([ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELED]),
        input=NULL,
        output=encode(chance.choice(OUTPUTS)),
        error="Boom",
        cause="by chance",
        documented=chance.choice([None, "States.NoChoiceMatched"]),
        usage=None,
        started_at=run.now,
        closed_at=run.now + timedelta(seconds=1),
    )


def disturb(run: Any, chance: random.Random, ids: list[str]) -> None:
    """Somebody from outside does something; what is refused writes nothing."""
    named = chance.choice([None, *ids])
    command = chance.choice([
        Signal(name="go", input=encode(chance.choice(OUTPUTS)), request_id=named),
        Signal(name="go", input=encode(1), request_id=None),
        Cancel(reason="", request_id=named),
        Terminate(reason="", request_id=named),
        Redrive(reason="", request_id=named, input=None),
        Redrive(reason="", request_id=None, input=encode(chance.choice(OUTPUTS))),
    ])  # fmt: skip
    before = len(run.stored)
    try:
        run.do(command)
    except Refused:
        assert len(run.stored) == before


def one_task(run: Any, chance: random.Random) -> None:
    task = chance.choice(sorted(run.run.tasks))
    attempt = run.run.nodes[run.run.tasks[task]].task
    if attempt.kind is TaskKind.WORKFLOW:
        began = ChildStarted(task=task, workflow_id="child", run_id="r-1", started_at=run.now)
        run.do(chance.choice([began, closed(run, task, chance)]))
    elif attempt.kind is TaskKind.SIGNAL:
        run.do(Signal(name=attempt.queue, input=encode(chance.choice(OUTPUTS)), request_id=None))
    else:
        act(run, chance, task)


def check(run: Any) -> None:
    state = run.run
    for task, entry in state.tasks.items():
        assert state.nodes[entry].task.id == task
    for node in state.nodes.values():
        assert node.branch in state.branches
        assert state.branches[node.branch].node == node.entry
        doing = [node.task, node.mapping, node.timer, node.retry_at]
        assert sum(each is not None for each in doing) <= 1
        assert not node.failed or state.status.closed
    assert set(state.again) <= set(state.nodes)
    assert len(set(state.again)) == len(state.again)
    for key in state.ready:
        assert state.branches[key].next is not None
    if state.status.closed:
        assert (state.tasks, state.mappings, state.again, next_wake(state, run.pulse)) == ({}, {}, [], None)


@settings(
    deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(definitions(), st.integers(0, 2**16))
def test_whatever_is_redriven_goes_on_to_an_end(drive: Any, definition: Document, seed: int) -> None:
    chance = random.Random(seed)
    run = drive(json.loads(json.dumps(other_resources(definition, chance))), INPUT, FINITE, seed)
    check(run)
    for _ in range(1500):
        quiet = run.run.redrives >= REDRIVES or len(run.stored) > EVENTS
        if run.run.status.closed and (quiet or run.run.status is ExecutionStatus.SUCCEEDED):
            return
        if not quiet and (run.run.status.closed or chance.random() < 0.1):
            disturb(run, chance, ["a", "b"])
        elif run.run.tasks and chance.random() < 0.85:
            one_task(run, chance)
        else:
            run.advance(chance.choice([1, 30, 1000, 100_000_000]))
        check(run)
    raise AssertionError(f"the run does not end: {run.types[-30:]}")
