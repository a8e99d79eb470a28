"""Model calls on a real daemon, in a process of its own and on SQLite: cancellation, and where the key does not go."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from ai_bench import SECRET, VARIABLE, Bench
from model_server import Asked

from enginekit.client import Client, open_client
from enginekit.local import LocalDaemon
from enginekit.messages import calls
from enginekit.messages.json import JSON
from enginekit.messages.status import ExecutionStatus

CONFIG = """
[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
[log]
level = "debug"
[connections.{vendor}]
url = "{url}"
tenants = ["default"]
auth = "bearer"
secret_env = "{variable}"
"""


@asynccontextmanager
async def engine(bench: Bench, url: str, folder: Path) -> AsyncIterator[Client]:
    """A daemon that knows the server. Its log is `log` in the folder, whatever it says."""
    config = folder / "engine.toml"
    base = f"{url}/v1" if bench.vendor == "openai" else url
    config.write_text(CONFIG.format(vendor=bench.vendor, url=base, variable=VARIABLE))
    data = folder / "data"
    command = [sys.executable, "-m", "daemon.cli", "serve", "--config", str(config), "--data-dir", str(data)]
    # The vendors' own switches for logging what is sent.
    environment = {**os.environ, VARIABLE: SECRET, "OPENAI_LOG": "debug", "ANTHROPIC_LOG": "debug"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: ASYNC220 - takes no time
    try:
        with trio.fail_after(120):
            while not (data / "daemon.json").exists():
                assert process.poll() is None, (folder / "log").read_text()
                await trio.sleep(0.05)  # another process, and no clock of ours in it
        local = LocalDaemon(data)
        async with open_client(local.url, local.token) as client:
            yield client
    finally:
        process.terminate()
        await trio.to_thread.run_sync(process.wait, 120)


def asking(bench: Bench, prompt: str) -> dict[str, JSON]:
    state: JSON = {
        "Type": "Task",
        "Resource": bench.resource,
        "Parameters": {"Model": "m", "Prompt": prompt},
        "End": True,
    }
    return {"StartAt": "Ask", "States": {"Ask": state}}


def forms() -> list[bytes]:
    """The key as it is, and as base64 has it, wherever it begins."""
    found = [SECRET.encode(), json.dumps(SECRET)[1:-1].encode()]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + SECRET.encode())
        found.append(encoded[4:-4])
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_the_key_is_nowhere(
    bench: Bench, nursery: trio.Nursery, tmp_path: Path, stored_events: Callable[[Path], bytes]
) -> None:
    """The server repeats it, in an answer, in a refusal, in an event that is none; the store, the history and a log at
    its most talkative do not have it."""

    async def answer(asked: Asked) -> None:
        assert asked.body is not None
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        said = f"You are {SECRET}, {base64.b64encode(SECRET.encode()).decode()}."
        match asked.body["messages"][0]["content"]:
            case "refuse":
                await asked.refuse(401, {"error": {"message": said}})
            case "break":
                await asked.answer([f"event: message_start\ndata: {said}\n\n".encode()])
            case _:
                await asked.answer(bench.events(said, [("call_1", "t", json.dumps({"k": said}))]))

    _, url = await bench.serve(nursery, answer)
    async with engine(bench, url, tmp_path) as client:
        ended: dict[str, calls.DescribeWorkflowResult] = {}
        for prompt in ("answer", "refuse", "break"):
            started = await client.start(asking(bench, prompt))
            ended[prompt] = await client.wait(started.workflow_id)
            histories = [repr(event) async for event in client.history(started.workflow_id)]
            assert SECRET not in repr(histories) + repr(ended[prompt])
    assert ended["answer"].status is ExecutionStatus.SUCCEEDED
    assert b"[redacted]" in bytes(ended["answer"].output)
    assert ended["refuse"].error == "Ai.Authentication"
    assert ended["break"].error == "Ai.ProtocolError"
    files = contents(tmp_path)
    assert {"engine.db", "log"} <= files.keys()
    files["histories"] = stored_events(tmp_path)
    assert b"[redacted]" in files["histories"]
    assert not [name for name, content in files.items() if any(form in content for form in forms())]


async def test_cancelling_an_execution_closes_its_connection(
    bench: Bench, nursery: trio.Nursery, tmp_path: Path
) -> None:
    asked_for = trio.Event()
    gone = trio.Event()

    async def answer(asked: Asked) -> None:
        await asked.begin()
        for one in bench.events("And so on")[:4]:
            await asked.say(one)
        asked_for.set()
        await asked.until_gone()
        gone.set()

    _, url = await bench.serve(nursery, answer)
    async with engine(bench, url, tmp_path) as client:
        started = await client.start(asking(bench, "go on"))
        with trio.fail_after(120):
            await asked_for.wait()
            await client.call(calls.CancelWorkflow(workflow_id=started.workflow_id))
            await gone.wait()
        assert (await client.wait(started.workflow_id)).status is ExecutionStatus.CANCELED


@pytest.mark.parametrize("module", ["daemon.assembly", "daemon.nodes.ai_openai", "daemon.nodes.ai_anthropic"])
def test_nothing_of_it_is_imported_before_the_first_call(module: str) -> None:
    """They take a second and a half together."""
    late = {"openai", "anthropic", "pydantic", "jsonschema", "pytest"}
    code = f"import sys, {module}; print(*sorted({late!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
