"""The console against a real daemon: every page is driven by its keys."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from functools import partial

import trio
from sitting import Sitting, access, prepared, sit

from console import connection
from enginekit.local import Access, LocalDaemon
from enginekit.messages.calls import RegisterWorkflow
from enginekit.messages.json import encode

WORK = {"StartAt": "Pack", "States": {"Pack": {"Type": "Task", "Resource": "activity:pack", "End": True}}}
ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}


async def _some(client) -> None:
    await client.call(RegisterWorkflow(name="order", definition=encode(WORK)))
    for number in range(3):
        await client.start("order", workflow_id=f"order-{number}")
    await client.start(ECHO, workflow_id="echo-1")
    await client.wait("echo-1")


def test_services_queues_and_executions_are_shown_and_filtered(daemon) -> None:
    prepared(daemon, _some)

    async def look(sitting: Sitting) -> None:
        await sitting.sees("● live", "history", "matching", "RUNNING", "sqlite", "Circuit breakers")
        await sitting.press("2")
        await sitting.sees("pack", "activity", "3")
        await sitting.press("3")
        await sitting.sees("order-0", "order-2", "echo-1", "SUCCEEDED")
        await sitting.press("f")
        await sitting.sees("status RUNNING", "order-1", without="echo-1")
        await sitting.press("x", "w", *"order", "enter")
        await sitting.sees("workflow order", "order-1", without="echo-1")
        await sitting.press("x", "slash", *"echo", "enter")
        await sitting.sees("echo-1", "text 'echo'", without="order-1")

    sit(access(daemon), look, size=(80, 24))


def test_a_daemon_that_is_killed_and_comes_back(start_daemon) -> None:
    daemon = start_daemon()
    prepared(daemon, _some)

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("● live", "order-2")
        daemon.process.kill()
        daemon.process.wait()
        (daemon.data / "daemon.json").unlink()
        await sitting.sees("● reconnecting, as of ", " ago", "The connection is lost", "order-2")
        again = await asyncio.to_thread(start_daemon)
        await sitting.sees("● live", "order-2", without="connection is lost")
        await sitting.press("1")
        await sitting.sees(f"pid {again.process.pid} · up ", "RUNNING")

    sit(access(daemon), look)


def test_there_is_no_daemon(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)

    async def look(sitting: Sitting) -> None:
        await sitting.sees("● connecting", "Looking for the daemon", "start one with `engine serve`")

    local = LocalDaemon(tmp_path)
    sit(Access(local.url, local.token), look)


def test_a_token_that_has_expired(daemon) -> None:
    async def look(sitting: Sitting) -> None:
        await sitting.sees("● not let in", "does not let this console in", "the token has expired", "ENGINE_TOKEN")

    sit(Access(daemon.url, daemon.token(exp=1_000_000_000)), look, size=(80, 24))


def test_a_token_that_expires_while_we_look(daemon) -> None:
    got_in: list[bool] = []

    async def look(sitting: Sitting) -> None:
        while "● live" not in (seen := sitting.text()) or "RUNNING" not in seen:
            if "● not let in" in seen:  # It has taken this machine longer than the token was good for.
                return
            await asyncio.sleep(0.05)  # the daemon is another process
        got_in.append(True)
        await sitting.sees("● not let in, as of ", "the token has expired", "RUNNING")

    for seconds in (5, 20, 80):
        sit(Access(daemon.url, daemon.token(exp=int(time.time()) + seconds)), look)
        if got_in:
            return
    raise AssertionError("never let in")


def test_a_token_without_the_scope_admin_sees_the_rest(daemon) -> None:
    async def look(sitting: Sitting) -> None:
        await sitting.sees("● live", "PERMISSION_DENIED")
        await sitting.press("3")
        await sitting.sees("none", "0 ")

    sit(Access(daemon.url, daemon.token(tenant="nobody", scope="read")), look)


def test_a_terminal_that_is_too_small(daemon) -> None:
    async def look(sitting: Sitting) -> None:
        await sitting.sees("engine: live", "services  7 of 7 run", "store     sqlite, READY", "60×15", "need 80×24")
        await sitting.pilot.resize_terminal(80, 24)
        await sitting.sees("1 Services", "RUNNING", without="60×15")

    sit(access(daemon), look, size=(60, 15))


def test_older_executions_are_read_as_we_come_to_them(daemon) -> None:
    async def prepare(client) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(540):
                nursery.start_soon(partial(client.start, WORK, workflow_id=f"many-{number}"))

    prepared(daemon, prepare, tenant="many")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("500+ ·")
        await sitting.press("G")
        await sitting.sees("540 ·")
        await sitting.press("slash", *"many-17", "enter")
        await sitting.sees("11 of 540", "many-17", "many-179")

    sit(access(daemon, tenant="many"), look)


def test_an_older_run_of_the_same_workflow_id(daemon) -> None:
    async def prepare(client) -> None:
        for word in ("first", "second"):
            started = await client.start(ECHO, workflow_id="again", input={"word": word})
            await client.wait(started.workflow_id, started.run_id)

    prepared(daemon, prepare, tenant="runs")

    async def look(sitting: Sitting) -> None:
        await sitting.press("3")
        await sitting.sees("again", "2 ·")
        await sitting.press("down", "enter")
        await sitting.sees("again  SUCCEEDED", "● E", "WorkflowSucceeded", 'word: "first"')

    sit(access(daemon, tenant="runs"), look, size=(130, 40))


def test_without_a_terminal_it_says_so() -> None:
    command = [sys.executable, "-m", "daemon.cli", "console"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "Traceback" not in done.stderr
