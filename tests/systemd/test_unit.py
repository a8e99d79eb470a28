"""The unit: what is in it, that systemd takes it, and how it comes to its place."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from daemon.cli import install
from daemon.cli.main import engine as engine_command
from daemon.cli.unit import Plan, render, stop_seconds, watchdog_seconds
from daemon.configuration import load_settings
from daemon.settings import Settings, StoreSettings, SupervisorSettings, WorkerSettings

DEPLOYED = Path(__file__).resolve().parents[2] / "deploy" / "engine.service"
OPT = Plan(engine=Path("/opt/engine/.venv/bin/engine"), settings=Settings(), config=install.DEFAULT_CONFIG)
ANALYZE = shutil.which("systemd-analyze")

Run = Callable[..., Result]


def service(text: str) -> dict[str, list[str]]:
    """The unit's [Service], each setting with its values; raises for what is no unit file."""
    found: dict[str, list[str]] = {}
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]
    for line in text.partition("[Service]")[2].splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that systemd runs, as far as the command looks; what it writes is in this folder."""
    (tmp_path / "booted").mkdir()
    monkeypatch.setattr(install, "BOOTED", tmp_path / "booted")
    monkeypatch.setattr(install, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(install, "DEFAULT_CONFIG", tmp_path / "no.toml")
    monkeypatch.setattr(install, "_check_reach", lambda plan: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "system" / "engine.service"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(engine_command, ["install-service", *arguments])


def test_the_deployed_unit_is_what_the_command_writes() -> None:
    assert DEPLOYED.read_text() == render(OPT)


@pytest.mark.parametrize("user", [False, True])
def test_systemd_takes_it(tmp_path: Path, user: bool) -> None:
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = render(msgspec.structs.replace(OPT, engine=program, user=user))
    if ANALYZE is None:
        service(text)
        return
    (tmp_path / "engine.service").write_text(text)
    command = [ANALYZE, "verify", "--man=no", *(["--user"] if user else []), str(tmp_path / "engine.service")]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_it_promises() -> None:
    found = service(render(OPT))
    assert found["Type"] == ["notify"]
    assert found["ExecStart"] == [
        "/opt/engine/.venv/bin/engine serve --config /etc/engine/engine.toml --data-dir /var/lib/engine"
    ]
    assert (found["StateDirectory"], found["DynamicUser"]) == (["engine"], ["yes"])
    for name in ("NoNewPrivileges", "PrivateTmp", "RestrictNamespaces", "ProtectHome"):
        assert found[name] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]


def test_times_follow_the_settings() -> None:
    settings = Settings(
        supervisor=SupervisorSettings(drain_seconds=100),
        worker=WorkerSettings(drain_seconds=600),
        store=StoreSettings(call_timeout_seconds=90),
    )
    assert stop_seconds(settings) > 600 + 2 * 100
    assert watchdog_seconds(settings) == 180
    found = service(render(msgspec.structs.replace(OPT, settings=settings)))
    assert found["TimeoutStopSec"] == [str(stop_seconds(settings))]
    assert found["WatchdogSec"] == ["180"]


def test_credentials_and_folders_follow_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "engine.toml"
    config.write_text(
        '[auth]\nkey_credential = "token-key"\n[files]\nfolder = "/srv/files"\n[store]\nurl = "sqlite:////srv/db/e.db"\n'
        '[connections.shop]\nurl = "https://shop.example.com"\ntenants = ["*"]\nauth = "bearer"\n'
        'secret_credential = "shop"\n'
    )
    found = service(render(msgspec.structs.replace(OPT, settings=load_settings(config))))
    folder = "/etc/engine/credentials"
    assert found["LoadCredential"] == [f"token-key:{folder}/token-key", f"shop:{folder}/shop"]
    assert found["ReadWritePaths"] == ["-/srv/files", "-/srv/db"]


def test_a_path_is_one_word() -> None:
    plan = msgspec.structs.replace(OPT, config=Path("/etc/my engine/100%.toml"))
    assert '--config "/etc/my engine/100%%.toml"' in render(plan)


def test_it_writes_verifies_and_says_what_comes_next_and_then_changes_nothing(place: Path) -> None:
    first = run()
    assert first.exit_code == 0, first.output
    assert f"{place}: written\n" in first.output or ANALYZE is None
    assert "systemctl enable --now engine" in first.output
    assert "journalctl -u engine" in first.output
    text = place.read_text()
    assert service(text)["ExecStart"][0].startswith(str(install._program()))
    again = run()
    assert again.exit_code == 0
    assert f"{place}: is as it should be" in again.output
    assert place.read_text() == text
    assert os.listdir(place.parent) == [place.name]


def test_a_unit_of_ones_own(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("--user")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "config" / "systemd" / "user" / "engine.service").read_text()
    assert "DynamicUser" not in text
    assert "WantedBy=default.target" in text
    assert "loginctl enable-linger" in done.output


def test_a_dry_run_prints_the_unit_and_writes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = run("--dry-run")
    assert done.exit_code == 0
    assert service(done.output)["Type"] == ["notify"]
    assert not place.exists()


def test_now_starts_it_or_says_what_systemctl_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = run("--now")
    assert done.exit_code == 0, done.output
    assert called.read_text().splitlines() == ["daemon-reload", "enable --now engine.service"]
    systemctl.write_text("#!/bin/sh\necho 'Unit is masked.' >&2\nexit 1\n")
    refused = run("--now")
    assert refused.exit_code == 1
    assert "systemctl daemon-reload failed: Unit is masked." in refused.output


def test_what_cannot_be_is_said(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[store]\nshard = 1\n")
    refused = run("--config", str(bad))
    assert (refused.exit_code, "did you mean shards" in refused.output) == (2, True)
    refused = run("--data-dir", str(tmp_path / "nowhere"))
    assert "install -d -m 700 -o USER" in refused.output
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "run it with sudo, or with --user" in run().output
    monkeypatch.setattr(install, "BOOTED", tmp_path / "not")
    assert "systemd does not run this machine" in run().output
    assert not place.exists()


def test_a_missing_credential_is_said(place: Path, tmp_path: Path) -> None:
    config = tmp_path / "engine.toml"
    config.write_text('[auth]\nkey_credential = "no-such-token-key"\n')
    done = run("--config", str(config))
    assert done.exit_code == 0, done.output
    assert "missing: /etc/engine/credentials/no-such-token-key" in done.output


@pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze")
def test_a_unit_that_systemd_does_not_take_is_not_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "render", lambda plan: "[Service]\nType=notify\nExecStart=/no/such/engine\n")
    done = run()
    assert done.exit_code == 1
    assert "systemd does not take the unit" in done.output
    assert not place.exists()


def test_an_installation_that_the_services_user_cannot_read_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "engine").write_text("")
    plan = msgspec.structs.replace(OPT, engine=closed / "engine", config=None)
    with pytest.raises(click.ClickException, match="is closed to others"):
        install._check_reach(plan)
