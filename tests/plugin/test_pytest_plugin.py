"""The pytest plugin: the documented example as a user runs it, determinism, and what its fakes can do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from enginekit.activity import ActivityError
from enginekit.errors import WorkflowFailed
from enginekit.messages.events import decode_event, encode_event
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "testing.md"
STEPS = 200
"""Several times as many as a test needs that waits for something once."""
WORK = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:work", "End": True}}}


def run_pytest(folder: Path, *arguments: str) -> str:
    """What pytest prints in a project of somebody else's, whose only plugin settings are the installed ones."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_runs_as_it_stands_in_a_project_of_its_own(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "testing", tmp_path / "mine")
    (tmp_path / "mine" / "pytest.ini").write_text("[pytest]\n")
    assert "4 passed" in run_pytest(tmp_path / "mine")


def test_every_example_of_the_document_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(block)
    shutil.copy(ROOT / "examples" / "testing" / "reminder.asl.json", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run_pytest(tmp_path)


async def play(engine) -> list[bytes]:
    engine.activity("work", lambda given: {"n": given["n"] + 1})
    fan = {"Type": "Map", "ItemProcessor": WORK, "ItemsPath": "$.items", "End": True}
    run = await engine.start({"StartAt": "M", "States": {"M": fan}}, {"items": [{"n": n} for n in range(20)]})
    assert await run.result() == [{"n": n + 1} for n in range(20)]
    return [encode_event(event) for event in await run.history()]


SEEN: dict[int, list[bytes]] = {}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("engine_seed", [1, 2])
async def test_the_same_seed_gives_the_same_run(engine, engine_seed, again) -> None:
    events = await play(engine)
    assert (engine_seed in SEEN) is again
    assert SEEN.setdefault(engine_seed, events) == events
    assert decode_event(events[0]).id == 1


async def test_fakes_may_wait_fail_and_be_async(engine) -> None:
    @engine.activity("work")
    async def work(given):
        await trio.sleep(250)
        if given == "bad":
            raise ActivityError("Acme.Bad", "no good")
        if given == "odd":
            raise ZeroDivisionError("odd")
        return given

    assert await (await engine.start(WORK, "fine")).result() == "fine"
    with pytest.raises(WorkflowFailed, match=r"Acme\.Bad: no good"):
        await (await engine.start(WORK, "bad")).result()
    with pytest.raises(WorkflowFailed, match="ZeroDivisionError: odd"):
        await (await engine.start(WORK, "odd")).result()
    assert engine.calls_of("work") == ["fine", "bad", "odd"]


async def test_a_fake_whose_task_nobody_waits_for_any_more(engine) -> None:
    @engine.activity("work")
    async def work(given):
        await trio.sleep(100)

    run = await engine.start(WORK)
    await engine.advance(seconds=50)
    await run.cancel("enough")
    assert await run.status() is ExecutionStatus.CANCELED
    await engine.advance(seconds=100)


async def test_node_types_are_faked_by_their_resource(engine) -> None:
    answers = iter([ActivityError("States.Http.StatusCode.503"), {"StatusCode": 200}])

    @engine.node("http")
    def http(given):
        answer = next(answers)
        if isinstance(answer, ActivityError):
            raise answer
        return answer

    call = {"Method": "GET", "ApiEndpoint": "https://shop.example/"}
    state = {"Type": "Task", "Resource": "http", "Parameters": call, "End": True}
    run = await engine.start({"StartAt": "A", "States": {"A": state}})
    assert await run.result() == {"StatusCode": 200}
    assert engine.calls_of("http") == [call, call]


class Steps(trio.abc.Instrument):
    """How often a task ran."""

    taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += 1


@pytest.mark.parametrize("days", [1, 30, 360])
async def test_months_are_over_in_as_few_steps_as_a_day(engine, days) -> None:
    """What takes a step now and then while nothing happens makes a test wait that waits for a month."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    wait = {"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": days * 86_400, "End": True}}}
    run = await engine.start(wait)
    await engine.advance(days=days - 0.5)
    assert await run.status() is ExecutionStatus.RUNNING
    await run.result()
    assert steps.taken < STEPS


async def test_what_is_not_in_a_history_is_told_with_it(engine) -> None:
    run = await engine.start(WORK)
    await run.assert_history("WorkflowStarted", "TaskScheduled")
    with pytest.raises(
        AssertionError, match=r"no WorkflowSucceeded after TaskScheduled in the history of .*\n  WorkflowStarted\n"
    ):
        await run.assert_history("TaskScheduled", "WorkflowSucceeded")


async def test_registered_workflows_and_children(engine) -> None:
    engine.activity("work", lambda given: given)
    assert await engine.register("child", WORK) == 1
    parent = {"StartAt": "P", "States": {"P": {"Type": "Task", "Resource": "workflow:child", "End": True}}}
    assert await (await engine.start(parent, {"n": 1})).result() == {"n": 1}
    with pytest.raises(Refused) as refused:
        await engine.start("nobody")
    assert refused.value.status is ErrorStatus.NOT_FOUND


@pytest.mark.parametrize("lease", [30.0, 5.0])
async def test_a_fake_that_is_too_slow_is_told_of_by_the_history_and_not_by_an_error(engine, lease) -> None:
    """Its task times out, is tried again beside it, and its late answer is worth nothing."""
    seconds = iter([400, 1])

    @engine.activity("work")
    async def work(given):
        mine = next(seconds)
        await trio.sleep(mine)
        return mine

    retry = [{"ErrorEquals": ["States.Timeout"], "MaxAttempts": 1}]
    state = {**WORK["States"]["A"], "TimeoutSeconds": 100, "Retry": retry}
    run = await engine.start({"StartAt": "A", "States": {"A": state}})
    assert await run.result() == 1
    await engine.advance(hours=1)
    await run.assert_history("TaskTimedOut", "TaskRetryScheduled", "TaskCompleted", "WorkflowSucceeded")


@pytest.mark.parametrize("time", ["first", "second"])
async def test_fakes_of_one_test_are_not_the_next_ones(engine, time) -> None:
    state = {"Type": "Task", "Resource": "http", "Parameters": {"Method": "GET", "ApiEndpoint": "https://x.example"}}
    engine.node("http", lambda given: time)
    run = await engine.start({"StartAt": "A", "States": {"A": {**state, "End": True}}})
    assert (await run.result(), len(engine.calls_of("http"))) == (time, 1)


async def test_what_a_fake_may_not_answer_fails_its_task(engine) -> None:
    engine.activity("work", lambda given: object())
    with pytest.raises(WorkflowFailed):
        await (await engine.start(WORK)).result()
    engine.activity("work", lambda given: "x" * 300_000)
    with pytest.raises(WorkflowFailed, match=r"States\.DataLimitExceeded"):
        await (await engine.start(WORK)).result()
