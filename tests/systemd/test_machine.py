"""docs/systemd.md on a machine that systemd runs: its commands, in its order, and what it says of the service.

Only where it is asked for (`make systemd-machine`, as root): a systemd is booted in namespaces of its own, over a root
of its own in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine, NoMachine

DOC = (Path(__file__).parents[2] / "docs/systemd.md").read_text().replace("sudo ", "")
ENGINE = "/opt/engine/.venv/bin/engine"
WORKFLOW = {
    "StartAt": "Rest",
    "States": {
        "Rest": {"Type": "Wait", "Seconds": 5, "Next": "Echo"},
        "Echo": {"Type": "Task", "Resource": "echo", "End": True},
    },
}


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    if not request.config.getoption("--systemd-machine"):
        pytest.skip("boots a systemd in namespaces of its own: only with --systemd-machine (make systemd-machine)")
    try:
        machine = Machine()
    except NoMachine as why:
        pytest.skip(str(why))
    yield machine
    machine.end()


def documented(command: str) -> str:
    """A command that stands in the document, there with `sudo`."""
    assert command in DOC, f"docs/systemd.md has no {command!r} any more"
    return command


def shell(machine: Machine, command: str, folder: str = "/") -> str:
    return machine.run("bash", "-ec", f"cd {folder}; {command}")


def engine(machine: Machine, *arguments: str, status: int = 0) -> str:
    """As the service's administrator."""
    start = documented("env ENGINE_DATA_DIR=/var/lib/engine /opt/engine/.venv/bin/engine status").split()[:-1]
    return machine.run(*start, *arguments, status=status)


def show(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "engine", "--value", "-p", name).strip()


def serves(machine: Machine) -> None:
    machine.becomes("ActiveState=active", "systemctl", "show", "engine", "-p", "ActiveState")
    machine.becomes("StatusText=running: 7 services", "systemctl", "show", "engine", "-p", "StatusText")


def write(machine: Machine, path: str, text: str) -> None:
    machine.run("/opt/python/bin/python3", "-c", f"open({path!r}, 'w').write({text!r})")


def test_installed_as_the_document_says_it_runs_and_says_so(machine: Machine) -> None:
    shell(machine, documented("mkdir -p /etc/engine && cp /opt/engine/engine.toml /etc/engine/engine.toml"))
    said = shell(machine, documented(f"{ENGINE} install-service --now"))
    assert "/etc/systemd/system/engine.service: written\n" in said  # and verified: it says where it was not
    assert "enabled and started" in said
    assert show(machine, "ActiveState") == "active"  # `systemctl start` returns no sooner
    serves(machine)
    assert "is as it should be" in machine.run(ENGINE, "install-service")
    assert "running: 7 services" in shell(machine, documented("systemctl status engine"))


def test_it_runs_as_nobody_else_and_its_administrator_talks_to_it(machine: Machine) -> None:
    assert machine.run("ps", "-o", "user=", "-p", show(machine, "MainPID")).strip() == "engine"
    assert machine.run("stat", "-L", "-c", "%U %a", "/var/lib/engine").split() == ["engine", "700"]
    assert "sqlite" in engine(machine, "status")
    token = shell(machine, documented(f"{ENGINE} token --data-dir /var/lib/engine --tenant shop --scope write"))
    assert token.count(".") == 2


def test_killed_it_comes_back_and_its_executions_go_on(machine: Machine) -> None:
    before = show(machine, "MainPID")
    write(machine, "/run/rest.json", json.dumps(WORKFLOW))
    engine(machine, "register", "rest", "/run/rest.json")
    engine(machine, "start", "rest", "--id", "order-17")
    machine.run("kill", "-9", before)
    machine.becomes("NRestarts=1", "systemctl", "show", "engine", "-p", "NRestarts")
    serves(machine)
    assert show(machine, "MainPID") not in (before, "0")
    machine.becomes(
        "SUCCEEDED", *documented("env ENGINE_DATA_DIR=/var/lib/engine").split(), ENGINE, "describe", "order-17"
    )


def test_the_journal_has_priorities_and_fields(machine: Machine) -> None:
    def lines(*more: str) -> list[dict[str, object]]:
        said = machine.run(*documented("journalctl -u engine -o cat").split(), "--no-pager", *more)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    everything, warnings = lines(), lines("-p", "warning")
    assert "the daemon is up" in [line["event"] for line in everything]
    assert {line["level"] for line in warnings} <= {"warning", "error", "critical"}
    assert {line["level"] for line in everything} - {line["level"] for line in warnings} >= {"info"}


def test_one_that_stands_still_is_ended_by_the_watchdog_and_started_again(machine: Machine) -> None:
    write(machine, "/etc/systemd/system/engine.service.d/soon.conf", "[Service]\nWatchdogSec=3\n")
    shell(machine, documented("systemctl daemon-reload && systemctl restart engine"))
    before, times = show(machine, "MainPID"), int(show(machine, "NRestarts"))
    machine.run("kill", "-STOP", before)
    machine.becomes(f"NRestarts={times + 1}", "systemctl", "show", "engine", "-p", "NRestarts")
    serves(machine)
    assert show(machine, "MainPID") != before
    assert "Watchdog timeout" in machine.run("journalctl", "-u", "engine", "-o", "cat", "--no-pager")
    machine.run("rm", "/etc/systemd/system/engine.service.d/soon.conf")


def test_keys_are_credentials_that_only_the_service_is_given(machine: Machine) -> None:
    write(machine, "/etc/engine/engine.toml", '[auth]\nkey_credential = "token-key"\n')
    shell(machine, "head -c 32 /dev/urandom > token-key; touch shop", "/run")
    assert "missing: /etc/engine/credentials/token-key" in machine.run(ENGINE, "install-service")
    shell(machine, documented("install -d -m 700 /etc/engine/credentials"))
    shell(machine, documented("install -m 600 token-key shop /etc/engine/credentials/"), "/run")
    assert "missing" not in shell(machine, documented(f"{ENGINE} install-service"))
    assert "LoadCredential=token-key:" in machine.run("cat", "/etc/systemd/system/engine.service")
    shell(machine, documented("systemctl daemon-reload && systemctl restart engine"))
    serves(machine)


def test_stopped_it_drains_and_that_is_no_failure(machine: Machine) -> None:
    machine.run("systemctl", "stop", "engine")
    assert (show(machine, "ActiveState"), show(machine, "Result")) == ("inactive", "success")
    assert show(machine, "ExecMainStatus") == "0"


def test_wrong_settings_are_not_tried_again(machine: Machine) -> None:
    write(machine, "/etc/engine/engine.toml", "nonsense = 1\n")
    machine.run("systemctl", "start", "engine", status=1)
    assert (show(machine, "ActiveState"), show(machine, "ExecMainStatus")) == ("failed", "2")
    assert "nonsense" in machine.journal()
