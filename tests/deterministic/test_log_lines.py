"""What the log says while things go wrong: every line about an execution names it in full, and none tells a payload."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

import daemon
from daemon.logs import configure_logs
from daemon.settings import BreakerSettings, LogSettings, Settings, TaskSettings
from daemon.stores.interface import BatchRefused
from daemon.supervisor import ServiceName
from enginekit.messages import calls
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus, Refused
from enginekit.node import NodeCall, NodeFailure

SECRET = "a-payload-that-nobody-may-log"
SETTINGS = Settings(
    tasks=TaskSettings(lease_seconds=10.0, returns=1, retry_attempts=2),
    breakers=BreakerSettings(minimum_calls=3),
)
RETRY = [{"ErrorEquals": ["Flaky"], "MaxAttempts": 2}]
NO_RETRY = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]

_log = structlog.get_logger("somebody's node")


class Broken:
    """In the place of `echo`: says something, then breaks as no node should."""

    async def run(self, call: NodeCall) -> JSON:
        _log.warning("about to break")
        await trio.lowlevel.checkpoint()
        raise RuntimeError("out of order")


class Dead:
    """In the place of `http`: a destination that answers nobody."""

    async def run(self, call: NodeCall) -> JSON:
        await trio.lowlevel.checkpoint()
        raise NodeFailure("Http.ConnectError", "no connection", unhealthy=True)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, former = root.handlers[:], root.level, structlog.get_config()
    out = io.StringIO()
    configure_logs(LogSettings(format="json", level="debug"), out)
    yield out
    root.handlers[:], root.level = handlers, level
    structlog.configure(**former)


def task(resource: str, **more: JSON) -> dict[str, JSON]:
    return {"StartAt": "Do", "States": {"Do": {"Type": "Task", "Resource": resource, "End": True, **more}}}


def test_whatever_goes_wrong_the_execution_is_named_and_its_payload_is_not(simulate, lines):
    started: list[calls.StartWorkflowResult] = []

    async def begin(daemon, definition, data=None):
        started.append(await daemon.start(definition, {"secret": SECRET} if data is None else data))
        return started[-1]

    async def scenario(daemon):
        broken = await begin(daemon, task("echo", Retry=NO_RETRY))
        retried = await begin(daemon, task("test:flaky", Retry=RETRY), {"failures": 99, "secret": SECRET})
        unknown = await begin(daemon, task("echo", Retry=NO_RETRY, Parameters={"secret": SECRET}))
        call = {"Method": "GET", "ApiEndpoint": "http://dead.test/"}
        for _ in range(3):
            await begin(daemon, task("http", Retry=NO_RETRY, Parameters=call))
        lost = await begin(daemon, task("activity:desk", Retry=NO_RETRY))
        for number in (1, 2):
            poll = calls.PollTask(queue="desk", worker_id=f"w{number}", wait_seconds=100)
            assert (await daemon.call(poll, calls.PollTaskResult)).tasks, "and no worker is heard of again"
        for one in (broken, retried, unknown, lost):
            assert (await daemon.closed(one)).status is ExecutionStatus.FAILED
        daemon.sabotage[ServiceName.HISTORY].set()
        await trio.sleep(5)
        commit = daemon.memory.commit

        async def refuse(batch):
            if batch.runs:
                raise BatchRefused("so it is")
            await commit(batch)

        daemon.memory.commit = refuse
        with pytest.raises(Refused):
            await begin(daemon, task("test:flaky"))
        daemon.memory.commit = commit
        return started

    made = {"echo": Broken(), "http": Dead()}
    simulate(scenario, settings=SETTINGS, made=made)
    names = {one.workflow_id: one.run_id for one in started}
    seen = [json.loads(line) for line in lines.getvalue().splitlines()]
    said = [line["event"] for line in seen]
    assert SECRET not in lines.getvalue()
    for line in seen:
        text = json.dumps(line)
        if "workflow_id" in line or any(name in text or run in text for name, run in names.items()):
            assert line["tenant"] == "acme", line
            if line["workflow_id"] in names:
                assert line["run_id"] == names[line["workflow_id"]], line
            assert line["run_id"], line
    about_tasks = {"about to break", "node failed unexpectedly", "a worker is lost; its task waits again"}
    for line in seen:
        if line["event"] in about_tasks:
            assert isinstance(line["task"], int), line
    assert about_tasks <= set(said)
    assert "the store refuses an execution's events" in said
    assert "circuit breaker open" in said
    assert said.count("a node failed for good: a dead letter") == 7
    assert said.count("a worker is lost; its task waits again") == 2


def test_no_line_names_an_execution_by_half():
    """`about` and `log_context` name it in full: no call does it by hand."""
    found = 0
    for file in sorted(Path(str(daemon.__file__)).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if ast.unparse(node.func.value) not in ("log", "_log"):
                continue
            found += 1
            names = {keyword.arg for keyword in node.keywords}
            assert names.isdisjoint({"workflow_id", "run_id", "task", "task_id"}), f"{file}:{node.lineno}"
    assert found > 50
