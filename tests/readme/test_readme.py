"""README.md is true: its commands and snippets are taken out of it and run against a real daemon."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
WORKERS = (ROOT / "docs" / "workers.md").read_text()
CONFIG = '[frontend]\nrpc_listen = "127.0.0.1:0"\nhttp_listen = "127.0.0.1:0"\n'


def blocks(heading: str, language: str, text: str = README) -> list[str]:
    """The fenced blocks of that language under a heading."""
    section = text.split(f"{heading}\n", 1)[1]
    section = re.split(r"^#{2,3} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def shell_script(block: str) -> str:
    """What stands behind the prompts, here documents with it."""
    lines: list[str] = []
    inside = False
    for line in block.splitlines():
        if line.startswith("$ "):
            lines.append(line[2:])
            inside = "<<" in line
        elif inside:
            lines.append(line)
            inside = line != "END"
    return "\n".join(lines)


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who has a daemon on that folder."""
    (folder / "engine.toml").write_text(CONFIG)
    environ = {**os.environ, "ENGINE_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    with (folder / "daemon.log").open("wb") as log:
        command = ["engine", "serve", "--config", str(folder / "engine.toml")]
        daemon = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    for _ in range(2400):
        if (folder / "data" / "daemon.json").exists():
            break
        assert daemon.poll() is None, (folder / "daemon.log").read_text()
        time.sleep(0.05)  # another process, and no clock of ours in it
    try:
        yield environ
        daemon.terminate()
        assert daemon.wait(120) == 0
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(tmp_path_factory.mktemp("readme")) as environ:
        yield environ


@pytest.fixture
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A daemon that nobody has used."""
    with serving(tmp_path_factory.mktemp("newcomer")) as environ:
        yield environ


def run(command: list[str], environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def working(block: str, environ: dict[str, str], folder: Path) -> Iterator[None]:
    """While the worker of a block's only command runs; it ends as it should."""
    (command,) = shell_script(block).splitlines()
    worker = subprocess.Popen(command.split(), env=environ, cwd=folder, stderr=subprocess.PIPE)
    try:
        yield
        worker.terminate()
        assert worker.wait(120) == 0, worker.stderr.read()
    finally:
        worker.kill()
        worker.communicate()


def test_the_first_steps(environ, tmp_path):
    script = shell_script(blocks("## First steps", "console")[1])
    assert "engine start hello" in script
    said = run(["bash", "-euc", script], environ, tmp_path)
    assert '"text":"Hello, Ada"' in said
    assert "SUCCEEDED" in said
    assert "WorkflowSucceeded" in said
    described = json.loads(run(["engine", "describe", "first", "--json"], environ, tmp_path))
    assert (described["status"], described["output"]) == ("SUCCEEDED", {"text": "Hello, Ada"})


def test_the_python_snippet_starts_a_workflow_and_prints_its_result(environ, tmp_path):
    (tmp_path / "hello.json").write_text(
        json.dumps({"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "echo", "End": True}}})
    )
    run(["engine", "register", "hello", "hello.json"], environ, tmp_path)
    (snippet,) = blocks("### From Python", "python")
    assert "Grace" in run([sys.executable, "-c", snippet], environ, tmp_path)


def test_the_worker_snippet_does_the_work(environ, tmp_path):
    (snippet,) = blocks("### A worker of your own", "python")
    (command,) = blocks("### A worker of your own", "console")
    (tmp_path / "pictures.py").write_text(snippet)
    (tmp_path / "w.json").write_text(
        json.dumps({"StartAt": "R", "States": {"R": {"Type": "Task", "Resource": "activity:resize", "End": True}}})
    )
    with working(command, environ, tmp_path):
        start = ["engine", "start", "w.json", "--input", '{"name": "cat.png"}', "--wait"]
        assert json.loads(run(start, environ, tmp_path)) == {"thumbnail": "cat.png.small"}


def test_the_schedule_of_the_documentation(environ, tmp_path):
    (block,) = blocks("# Schedules", "console", (ROOT / "docs" / "schedules.md").read_text())
    said = run(["bash", "-euc", shell_script(block)], environ, tmp_path)
    assert said.count("01:30:00.000Z") + said.count("00:30:00.000Z") >= 10, "the next ten firings"
    assert "the press is being repaired" in said
    assert "1 started, 0 skipped, 0 missed, 0 failed" in said
    assert said.endswith("nightly: deleted\n")


def test_the_demo(environ, tmp_path):
    said = run([sys.executable, "-m", "examples.orders.demo", "--orders", "25"], environ, ROOT)
    assert "as promised" in said
    assert "How the orders ended" in said
    assert "The history of" in said


def test_the_page_on_workers(environ, tmp_path):
    (app,) = blocks("## A worker", "python", WORKERS)
    command, script = blocks("## A worker", "console", WORKERS)
    ask, answer = blocks("## Waiting for somebody: task tokens", "console", WORKERS)
    (program,) = blocks("## In a program of yours", "python", WORKERS)
    (tmp_path / "shop.py").write_text(app)
    with working(command, environ, tmp_path):
        said = run(["bash", "-euc", shell_script(script)], environ, tmp_path)
        output = json.loads(said.splitlines()[0])
        assert output == [{"total_cents": 350}, {"Error": "Card.Declined", "Cause": "the card has expired"}]
        assert "Card.Declined" in said
        again = ["engine", "start", "order.json", "--wait", "--input", '{"card": "valid", "lines": []}']
        total, charged = json.loads(run(again, environ, tmp_path))
        assert total == {"total_cents": 0}
        assert charged["charge"]
        run(["bash", "-euc", shell_script(ask)], environ, tmp_path)
        for _ in range(2400):
            (node,) = json.loads(run(["engine", "describe", "ask-1", "--json"], environ, tmp_path))["nodes"]
            if node["state"] == "awaiting_token":
                break
            time.sleep(0.05)  # another process, and no clock of ours in it
        said = run(["bash", "-euc", shell_script(answer)], environ, tmp_path)
        assert said.split() == ["heard", "completed"]
        described = json.loads(run(["engine", "describe", "ask-1", "--json"], environ, tmp_path))
        assert (described["status"], described["output"]) == ("SUCCEEDED", {"approved": True})
    assert run([sys.executable, "-c", program], environ, tmp_path) == "42\n"


def test_the_page_on_workers_names_every_option_of_the_command():
    from daemon.cli.worker import worker

    for option in worker.params:
        for name in option.opts:
            assert f"`{name}" in WORKERS or not name.startswith("--"), name


def test_every_make_target_that_is_named_exists():
    named = set(re.findall(r"^\$ make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    for target in named:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_document_that_is_linked_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_the_quickstart_from_its_first_command_to_its_last(newcomer, tmp_path):
    page = (ROOT / "docs" / "quickstart.md").read_text()

    def step(heading: str) -> list[str]:
        found = blocks(heading, "console", page)
        taken.extend(found)
        return [shell_script(block) for block in found]

    def shell(script: str, folder: Path) -> str:
        return run(["bash", "-euc", script], newcomer, folder)

    taken: list[str] = []
    (install,) = step("## 1. Install")
    assert install.splitlines() == ["make install", "source .venv/bin/activate"]
    run(["make", "-n", "install"], newcomer, ROOT)
    serve, prepare = step("## 2. Start the daemon")
    assert serve == "engine serve", "which the fixture does, on free ports"
    folder = tmp_path / "quickstart"
    assert shell(prepare.replace("source .venv/bin/activate", "") + "\npwd", tmp_path).strip() == str(folder)
    (hello,) = step("## 3. A first workflow")
    said = shell(hello, folder)
    assert '{"text":"Hello, Ada"}' in said
    assert "WorkflowSucceeded" in said
    write, worker = step("## 4. A worker of your own")
    shell(write, folder)
    with working(f"$ {worker}", newcomer, folder):
        start, pay = step("## 5. A signal")
        assert "RUNNING" in shell(start, folder)
        said = shell(pay, folder)
        assert '{"shipped":2}' in said
        assert "SignalReceived" in said
        (watch,) = step("## 6. Watch it")
        see_the_console(watch.split(), newcomer, folder)
        refused, schedule = step("## 7. By the clock")
        done = subprocess.run(["bash", "-c", refused], env=newcomer, cwd=folder, capture_output=True, text=True)
        assert (done.returncode, "NOT_FOUND" in done.stderr) == (3, True), done.stderr
        said = shell(schedule, folder)
        assert "07:00:00" in said or "08:00:00" in said
        assert said.endswith("greetings: deleted\n")
        fail, redrive = step("## 8. Something fails")
        said = shell(fail, folder)
        assert "WorkflowFailed" in said
        assert "Warehouse.Closed" in said.splitlines()[-1], "the dead letter"
        said = shell(redrive, folder)
        assert "WorkflowRedriven" in said
        assert '{"shipped":1}' in said.splitlines()[-1]
        assert said.count("TaskCompleted") == 3, "priced, paid and shipped once each"
    (test,) = step("## 9. Test it")
    assert "2 passed" in shell(test.replace("pytest -q", "pytest -q -p no:cacheprovider"), folder)
    assert len(taken) == len(re.findall("^```console", page, re.MULTILINE)), "no command is left out"


def see_the_console(command: list[str], environ: dict[str, str], folder: Path) -> None:
    """On a terminal of 80×24, until it shows the daemon; then it is left by its key."""
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    with subprocess.Popen(
        command, env={**environ, "TERM": "xterm-256color"}, cwd=folder, stdin=other, stdout=other, stderr=other
    ) as console:
        try:
            while b"matching" not in shown:
                assert select.select([terminal], [], [], 60)[0], shown[-2000:]
                shown += os.read(terminal, 65536)
            os.write(terminal, b"q")
            while console.poll() is None:
                if select.select([terminal], [], [], 0.1)[0]:
                    os.read(terminal, 65536)
            assert console.returncode == 0
        finally:
            console.kill()
            os.close(other)
            os.close(terminal)


def test_every_document_that_the_quickstart_links_exists():
    page = ROOT / "docs" / "quickstart.md"
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link
