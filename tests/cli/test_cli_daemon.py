"""The command line and the kit against the real daemon: `engine serve` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from daemon.cli.main import engine
from enginekit.local import open_local_client
from enginekit.messages.calls import FailTask, PollTask
from enginekit.messages.events import TaskCompleted, WorkflowStarted, WorkflowSucceeded
from enginekit.messages.json import JSON
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.worker import ActivityError, TaskContext, Worker

CONFIG = """
[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
"""
ECHO = {"StartAt": "Say", "States": {"Say": {"Type": "Task", "Resource": "echo", "End": True}}}
WAIT = {"StartAt": "Nap", "States": {"Nap": {"Type": "Wait", "Seconds": 3600, "End": True}}}
FAIL = {"StartAt": "No", "States": {"No": {"Type": "Fail", "Error": "Card.Declined", "Cause": "no funds"}}}


class Daemon:
    """A real daemon on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**os.environ, "ENGINE_DATA_DIR": str(folder / "data")}
        for name in ("ENGINE_URL", "ENGINE_TOKEN"):
            self.environ.pop(name, None)
        self.process: trio.Process | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        config = self.folder / "engine.toml"
        config.write_text(CONFIG)
        log = (self.folder / "daemon.log").open("ab")
        command = [sys.executable, "-m", "daemon.cli", "serve", "--config", str(config)]
        self.process = await trio.lowlevel.open_process(command, env=self.environ, stdout=log, stderr=log)
        log.close()
        async with open_local_client(self.environ, connect_seconds=120):
            pass

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.process.wait()

    async def process_run(self, *arguments: str, status: int = 0) -> str:
        """A command's stdout, from a process of its own."""
        command = [sys.executable, "-m", "daemon.cli", *arguments]
        done = await trio.run_process(command, env=self.environ, capture_stdout=True, capture_stderr=True, check=False)
        return check(done.returncode, status, done.stdout.decode(), done.stderr.decode())

    async def run(self, *arguments: str, status: int = 0) -> str:
        """The same in a thread of this one, which is faster."""
        command = partial(CliRunner().invoke, engine, arguments, env=self.environ)
        done = await trio.to_thread.run_sync(command)
        return check(done.exit_code, status, done.stdout, done.stderr)

    async def json(self, *arguments: str) -> JSON:
        value: JSON = json.loads(await self.run(*arguments, "--json"))
        return value

    def definition(self, name: str, document: object) -> str:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)


def check(status: int, expected: int, stdout: str, stderr: str) -> str:
    """The stdout of a command that ended as it should. Its stderr is empty if it succeeded, and never a traceback."""
    assert status == expected, stderr
    assert "Traceback" not in stderr
    assert bool(stderr) == bool(status), stderr
    return stdout


@pytest.fixture
async def daemon(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Daemon]:
    running = Daemon(tmp_path)
    try:
        await running.start(nursery)
        yield running
    finally:
        if running.process is not None and running.process.returncode is None:
            running.process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await running.process.wait()


async def test_a_workflow_from_its_file_to_its_result(daemon: Daemon) -> None:
    file = daemon.definition("say", ECHO)
    assert await daemon.run("validate", file) == f"{file}: valid\n"
    assert await daemon.run("register", "say", file) == "say version 1\n"
    assert await daemon.run("register", "say", file) == "say version 1\n"
    started = ["start", "say", "--input", '{"n": 1}', "--id", "one", "--label", "kind=test"]
    assert json.loads(await daemon.process_run(*started, "--wait")) == {"n": 1}
    described = await daemon.json("describe", "one")
    assert isinstance(described, dict)
    assert (described["status"], described["output"], described["labels"]) == ("SUCCEEDED", {"n": 1}, {"kind": "test"})
    history = await daemon.json("history", "one")
    assert isinstance(history, list)
    kinds = [event["type"] for event in history if isinstance(event, dict)]
    assert (kinds[0], kinds[-1]) == ("WorkflowStarted", "WorkflowSucceeded")
    assert [event["id"] for event in history if isinstance(event, dict)] == list(range(1, len(history) + 1))
    assert await daemon.json("history", "one", "--follow") == history
    file = str(daemon.folder / "data" / "engine.db")
    stored = await daemon.json("history", "one", "--store", file)
    assert isinstance(stored, list)
    assert [event["type"] for event in stored if isinstance(event, dict)] == kinds
    assert stored[0] == history[0]
    await daemon.run("history", "one", "--store", file, "--tenant", "other", status=1)
    listed = await daemon.json("list", "--label", "kind=test", "--status", "SUCCEEDED")
    assert isinstance(listed, list)
    assert [each["workflow_id"] for each in listed if isinstance(each, dict)] == ["one"]
    definitions = await daemon.json("definitions")
    assert isinstance(definitions, list)
    assert [each["name"] for each in definitions if isinstance(each, dict)] == ["say"]
    status = await daemon.json("status")
    assert isinstance(status, dict)
    assert daemon.process is not None
    assert status["pid"] == daemon.process.pid
    assert isinstance(await daemon.json("queues"), list)


async def test_exit_statuses(daemon: Daemon) -> None:
    fail, wait = daemon.definition("fail", FAIL), daemon.definition("wait", WAIT)
    await daemon.process_run("start", fail, "--wait", status=1)
    await daemon.run("start", wait, "--id", "nap")
    await daemon.run("start", wait, "--id", "nap", status=3)
    await daemon.process_run("describe", "nobody", status=3)
    bad = daemon.definition("bad", {"StartAt": "X", "States": {}})
    await daemon.run("register", "bad", bad, status=3)
    await daemon.run("start", wait, "--input", "{", status=2)
    await daemon.run("cancel", "nap", "--reason", "enough")
    async with open_local_client(daemon.environ) as client:
        assert (await client.wait("nap")).status is ExecutionStatus.CANCELED
    await daemon.run("terminate", "nap", status=3)
    assert await daemon.end(signal.SIGTERM) == 0
    await daemon.process_run("list", status=4)


async def test_a_token_of_another_tenant_sees_nothing(daemon: Daemon) -> None:
    await daemon.run("start", daemon.definition("wait", WAIT), "--id", "nap")
    daemon.environ["ENGINE_TOKEN"] = (await daemon.run("token", "--tenant", "other")).strip()
    await daemon.run("describe", "nap", status=3)
    assert await daemon.json("list") == []
    daemon.environ["ENGINE_TOKEN"] = (await daemon.run("token", "--scope", "work")).strip()
    await daemon.run("list", status=3)


async def test_the_client_waits_through_a_kill(daemon: Daemon, nursery: trio.Nursery) -> None:
    nap = {"StartAt": "Nap", "States": {"Nap": {"Type": "Wait", "Seconds": 1, "Next": "Say"}, **ECHO["States"]}}  # type: ignore[dict-item]
    async with open_local_client(daemon.environ) as client:
        started = await client.start(nap, input=[1, 2], workflow_id="nap")
        outcome: list[JSON] = []

        async def wait() -> None:
            outcome.append(await client.result("nap"))

        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait)
            await daemon.end(signal.SIGKILL)
            await daemon.start(nursery)
        assert outcome == [[1, 2]]
        events = [event async for event in client.history("nap", started.run_id)]
        assert isinstance(events[0], WorkflowStarted)
        assert isinstance(events[-1], WorkflowSucceeded)
        assert [event.id for event in events] == list(range(1, len(events) + 1))


async def test_workers_run_activities(daemon: Daemon) -> None:
    def activity(name: str, **more: JSON) -> JSON:
        state: JSON = {"Type": "Task", "Resource": f"activity:{name}", "End": True, **more}
        return {"StartAt": "Do", "States": {"Do": state}}

    async def resize(value: JSON, task: TaskContext) -> JSON:
        return {"resized": value, "attempt": task.attempt}

    def broken(value: JSON) -> JSON:
        raise ActivityError("Disk.Full", "no room")

    async with open_local_client(daemon.environ) as client, trio.open_nursery() as nursery:
        worker = Worker(client, {"resize": resize, "broken": broken}, drain_seconds=1)
        await nursery.start(worker.run)
        outputs: dict[str, JSON] = {}

        async def one(workflow_id: str) -> None:
            await client.start(activity("resize"), input=workflow_id, workflow_id=workflow_id)  # type: ignore[arg-type]
            outputs[workflow_id] = await client.result(workflow_id)

        async with trio.open_nursery() as starting:
            for index in range(20):
                starting.start_soon(one, f"r{index}")
        assert outputs == {f"r{index}": {"resized": f"r{index}", "attempt": 1} for index in range(20)}
        await client.start(activity("broken", Retry=[]), workflow_id="b")  # type: ignore[arg-type]
        failed = await client.wait("b")
        assert (failed.status, failed.error, failed.cause) == (ExecutionStatus.FAILED, "Disk.Full", "no room")
        events = [event async for event in client.history("r0")]
        assert any(isinstance(event, TaskCompleted) for event in events)
        worker.stop()


async def test_refusals_come_as_refused(daemon: Daemon) -> None:
    async with open_local_client(daemon.environ) as client:
        with pytest.raises(Refused) as refused:
            await client.start("nobody-registered-this")
        assert refused.value.status is ErrorStatus.NOT_FOUND
        with pytest.raises(Refused) as refused:
            await client.start({"StartAt": "Ship", "States": {"Ship": {"Type": "Pass", "Next": "Shp"}}})
        assert refused.value.status is ErrorStatus.INVALID_ARGUMENT
        assert "States.Ship.Next" in json.dumps(refused.value.data) + refused.value.message


def test_the_module_runs_like_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "daemon.cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("engine, version ")


async def test_dead_letters_from_the_command_line(daemon: Daemon) -> None:
    task = {"Type": "Task", "Resource": "activity:work", "End": True}
    file = daemon.definition("ship", {"StartAt": "Ship", "States": {"Ship": task}})
    await daemon.run("register", "ship", file)

    async def fail(count: int) -> None:
        async with open_local_client(daemon.environ) as client:
            for _ in range(count):
                (work,) = (await client.call(PollTask(queue="work", worker_id="w", wait_seconds=60))).tasks
                await client.call(FailTask(token=work.token, error="Boom", cause="why"))

    for name in ("one", "two", "three"):
        await daemon.run("start", "ship", "--id", name, "--input", '{"n": 1}')
    await fail(3)
    listed = await daemon.json("dlq", "list", "--workflow", "ship")
    assert isinstance(listed, list)
    letters = {each["workflow_id"]: str(each["id"]) for each in listed if isinstance(each, dict)}
    assert list(letters) == ["three", "two", "one"]
    shown = await daemon.run("dlq", "show", letters["one"])
    assert "why" in shown
    assert '{"n":1}' in shown
    await daemon.run("dlq", "redrive", letters["one"], "--input", '{"n": 2}', "--reason", "mended")
    assert await daemon.run("dlq", "discard", letters["two"]) == f"{letters['two']}: discarded\n"
    await daemon.run("dlq", "show", letters["two"], status=3)
    await daemon.run("dlq", "redrive", letters["two"], status=3)
    assert await daemon.run("dlq", "redrive", "--error", "Boom") == f"{letters['three']}: three goes on\n"
    await fail(2)
    assert (await daemon.run("redrive", "two")).startswith("two: run ")
    await fail(1)
    assert (await daemon.run("dlq", "discard", "--all")).count("discarded") == 3
    assert await daemon.json("dlq", "list") == []


async def test_a_signal_from_the_command_line(daemon: Daemon) -> None:
    approve = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "signal:approved", "End": True}}}
    await daemon.run("start", daemon.definition("approve", approve), "--id", "one")
    assert "awaiting_signal" in await daemon.run("describe", "one")
    sent = await daemon.run("signal", "one", "approved", "--input", '{"by": "Ada"}')
    assert sent == "one: signal approved sent\n"
    async with open_local_client(daemon.environ) as client:
        assert await client.result("one") == {"by": "Ada"}
    await daemon.run("signal", "one", "approved", status=3)
