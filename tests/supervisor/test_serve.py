"""Signals and exit codes, in a process of their own: the test's own process keeps its signal handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import sys, trio
from daemon.settings import SupervisorSettings
from daemon.stores.interface import StoreUnusable
from daemon.supervisor import ServiceName, ServiceSpec, Supervisor, serve

class Thing:
    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        await trio.lowlevel.checkpoint()
        if sys.argv[1] == "broken":
            raise ValueError("out of order")
        if sys.argv[1] == "unusable":
            raise StoreUnusable("engine.db is damaged")
        task_status.started()
        print("running", flush=True)
        await trio.sleep_forever()

    async def drain(self):
        print("draining", flush=True)
        if sys.argv[1] == "hanging":
            await trio.sleep_forever()

supervisor = Supervisor(
    [ServiceSpec(name=ServiceName.STORE, start=Thing, drain_seconds=60)],
    SupervisorSettings(restarts=1, backoff_seconds=0.01),
    hopeless=(StoreUnusable,),
)
sys.exit(trio.run(serve, supervisor))
"""


def start(how: str) -> subprocess.Popen[str]:
    program = textwrap.dedent(PROGRAM)
    return subprocess.Popen(
        [sys.executable, "-c", program, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the process ended without saying {word!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number: signal.Signals) -> None:
    with start("steady") as process:
        read_until(process, "running")
        process.send_signal(number)
        read_until(process, "draining")
        process.communicate(timeout=120)
    assert process.returncode == 0


def test_the_second_signal_ends_it_at_once() -> None:
    with start("hanging") as process:
        read_until(process, "running")
        process.send_signal(signal.SIGTERM)
        read_until(process, "draining")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("broken", 1, ["store", "ValueError: out of order"]), ("unusable", 3, ["engine.db is damaged"])],
)
def test_a_fatal_failure_ends_it_with_its_code_and_says_why(how: str, code: int, words: list[str]) -> None:
    with start(how) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == code
    for word in words:
        assert word in output
