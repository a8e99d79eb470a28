"""What works without a daemon: help, validation, tokens, finding the data folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from click.testing import Result

from daemon.cli.operations import _process
from enginekit.errors import Unreachable
from enginekit.local import LocalDaemon, data_dir, find_daemon
from enginekit.messages.calls import ProcessView, ServiceView, StoreView

Run = Callable[..., Result]

VALID = """
StartAt: Pick
States:
  Pick: {Type: Pass, Next: Done}
  Done: {Type: Succeed}
"""


def test_help_names_every_command_and_loads_none() -> None:
    program = (
        "import sys\n"
        "from daemon.cli.main import engine\n"
        "engine(['--help'], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for command in ("serve", "start", "describe", "history", "cancel", "terminate", "list", "validate", "register"):
        assert f"  {command} " in done.stdout
    assert {"trio", "msgspec", "daemon.api", "daemon.language"}.isdisjoint(done.stderr.split())


@pytest.mark.parametrize("command", ["start", "executions", "history", "definitions", "operations"])
def test_client_commands_load_nothing_of_the_services(command: str) -> None:
    program = f"import sys, daemon.cli.{command}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("daemon.")}
    assert {name for name in ours if not name.startswith("daemon.cli")} == set()
    assert "trio" in done.stdout.split()


def test_every_command_has_help(run: Run) -> None:
    from daemon.cli.main import _COMMANDS

    for command in _COMMANDS:
        result = run(command, "--help")
        assert result.exit_code == 0, command
        assert "Usage:" in result.stdout


def test_a_valid_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(VALID)
    result = run("validate", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: valid\n", "")
    assert json.loads(run("validate", str(file), "--json").stdout) == {"valid": True, "faults": [], "warnings": []}


def test_every_fault_of_a_file_stands_on_its_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(VALID.replace("Next: Done", "Next: Dne").replace("StartAt: Pick", "StartAt: Pik"))
    result = run("validate", str(file))
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.startswith("StartAt: ") for line in lines)
    assert any(line.startswith("States.Pick.Next: ") for line in lines)
    as_json = run("validate", str(file), "--json")
    assert as_json.exit_code == 1
    found = json.loads(as_json.stdout)
    assert found["valid"] is False
    assert [f"{fault['path']}: {fault['message']}" for fault in found["faults"]] == lines


def test_arguments_are_judged_as_far_as_they_are_known(run: Run, tmp_path: Path) -> None:
    call = {"Type": "Task", "Resource": "http", "Parameters": {"Method": "get", "ApiEndpoint.$": "$.url"}, "End": True}
    file = tmp_path / "flow.json"
    file.write_text(json.dumps({"StartAt": "Call", "States": {"Call": call}}))
    found = json.loads(run("validate", str(file), "--json").stdout)
    assert [fault["path"] for fault in found["faults"]] == ["States.Call.Parameters.Method"]
    file.write_text(file.read_text().replace('"http"', '"not:installed-here"'))
    assert run("validate", str(file)).exit_code == 0


def test_what_may_surprise_in_a_valid_file_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("StartAt: Around\nStates:\n  Around: {Type: Pass, Next: Around}\n")
    told = "States.Around: no way leads from this state to an end"
    result = run("validate", str(file))
    assert (result.exit_code, result.stdout.splitlines()) == (0, [f"{file}: valid", f"warning: {told}"])
    path, message = told.split(": ")
    found = json.loads(run("validate", str(file), "--json").stdout)
    assert found == {"valid": True, "faults": [], "warnings": [{"path": path, "message": message}]}


def test_a_file_that_is_no_document_is_not_valid(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    file.write_text('{"StartAt": ')
    assert run("validate", str(file)).exit_code == 1


@pytest.mark.parametrize(("state", "said"), [("DRAINING", "draining"), ("BACKOFF", "waiting for worker")])
def test_how_a_process_is_said_to_be(state: str, said: str) -> None:
    view = ProcessView(
        process="h.1",
        roles=["worker"],
        engine="1",
        host="h",
        pid=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        services=[ServiceView(name="worker", state=state, restarts=0, uptime_seconds=1.0)],
        store=StoreView(kind="postgresql", state="ELSEWHERE", schema_version=0),
        waiting_for=["worker"],
    )
    assert said in _process(view)


def test_token_signs_with_the_folders_key(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    options = ["--tenant", "acme", "--scope", "read", "--scope", "work", "--ttl", "60", "--data-dir", str(folder)]
    result = run("token", *options)
    assert result.exit_code == 0
    claims = jwt.decode(result.stdout.strip(), (folder / "key").read_bytes(), algorithms=["HS256"], audience="engine")
    assert (claims["tenant"], claims["scope"], claims["exp"] - claims["iat"]) == ("acme", "read work", 60)
    assert json.loads(run("token", "--json", "--data-dir", str(folder)).stdout)["token"].count(".") == 2


def test_a_key_that_others_may_read_signs_nothing(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o644)
    result = run("token", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "others than its owner may read it" in result.stderr


def test_a_daemon_with_keys_of_somebody_else_s_has_no_token_signed_in_vain(run: Run, tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"pid": 1, "rpc": "ws://127.0.0.1:9/rpc", "tokens": "auth.key_file"}')
    result = run("token", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "by its setting auth.key_file" in result.stderr
    assert "ENGINE_TOKEN" in result.stderr
    assert not (tmp_path / "key").exists()
    with pytest.raises(Unreachable, match=r"by its setting auth\.key_file"):
        LocalDaemon(tmp_path).token()


def test_the_kit_signs_tokens_that_the_daemon_takes(run: Run, tmp_path: Path) -> None:
    run("token", "--data-dir", str(tmp_path))
    claims = jwt.decode(
        LocalDaemon(tmp_path).token(),
        (tmp_path / "key").read_bytes(),
        algorithms=["HS256"],
        audience="engine",
        issuer="engine",
        options={"require": ["exp", "aud", "iss", "sub"]},
    )
    assert (claims["tenant"], claims["scope"]) == ("default", "read write work admin")


def test_where_the_data_folder_is() -> None:
    assert data_dir({"ENGINE_DATA_DIR": "/d", "XDG_STATE_HOME": "/s"}) == Path("/d")
    assert data_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/engine")
    assert data_dir({}) == Path.home() / ".local" / "state" / "engine"


def test_the_environment_comes_before_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"pid": 1, "rpc": "ws://127.0.0.1:9/rpc", "http": "http://h", "more": 1}')
    found = find_daemon({"ENGINE_DATA_DIR": str(tmp_path), "ENGINE_TOKEN": "mine"})
    assert not isinstance(found.url, str)
    assert (found.url(), found.token) == ("ws://127.0.0.1:9/rpc", "mine")
    assert find_daemon({"ENGINE_URL": "ws://elsewhere/rpc"}).url == "ws://elsewhere/rpc"


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}'])
def test_a_damaged_daemon_file_is_said_to_be_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "daemon.json").write_text(content)
    with pytest.raises(Unreachable, match=r"daemon\.json: cannot be read"):
        LocalDaemon(tmp_path).url()


@pytest.mark.parametrize("key", [None, b"short"])
def test_without_a_usable_key_a_token_is_asked_for(tmp_path: Path, key: bytes | None) -> None:
    if key is not None:
        (tmp_path / "key").write_bytes(key)
    with pytest.raises(Unreachable, match="set ENGINE_TOKEN"):
        LocalDaemon(tmp_path).token()
