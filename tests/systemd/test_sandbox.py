"""The unit's filter of system calls lets all of the engine through: its store, its calls, its interpreters."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filtered import HEADER
from notify_socket import ROOT, Unit

DEPLOYED = ROOT / "deploy" / "engine.service"
FILTERED = str(Path(__file__).parent / "filtered.py")
CODE = {
    "QueryLanguage": "JSONata",
    "StartAt": "Python",
    "States": {
        "Python": {
            "Type": "Task",
            "Resource": "code:python",
            "Arguments": {"Source": "input['n'] + 1", "Input": {"n": 1}},
            "Next": "JavaScript",
        },
        "JavaScript": {
            "Type": "Task",
            "Resource": "code:javascript",
            "Arguments": {"Source": "input.n + 1", "Input": {"n": "{% $states.input %}"}},
            "Next": "Call",
        },
        "Call": {
            "Type": "Task",
            "Resource": "http",
            "Arguments": {"Method": "GET", "ApiEndpoint": "https://nowhere.invalid/"},
            "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}],
            "Catch": [{"ErrorEquals": ["Http.ConnectError"], "Output": "{% $states.input %}", "Next": "End"}],
            "Next": "End",
        },
        "End": {"Type": "Succeed"},
    },
}


@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("systemd-analyze") is None or not HEADER.exists(),
    reason="the numbers of systemd's system calls are not to be had here",
)
def test_the_engine_does_all_its_work_under_the_units_filter(unit: Callable[..., Unit], tmp_path: Path) -> None:
    lines = DEPLOYED.read_text().splitlines()
    filters = [line.partition("=")[2] for line in lines if line.startswith("SystemCallFilter=")]
    assert filters == ["@system-service", "~@privileged"]
    data = str(tmp_path / "data")
    serve = [sys.executable, "-m", "daemon.cli", "serve", "--config", str(tmp_path / "engine.toml"), "--data-dir", data]
    engine = unit([sys.executable, FILTERED, *filters, "--", *serve])
    engine.systemd.until("READY=1")
    (tmp_path / "code.json").write_text(json.dumps(CODE))
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", "start", str(tmp_path / "code.json"), "--wait"],
        env={**os.environ, "ENGINE_DATA_DIR": data, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr + engine.log.read_text()
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(120) == 0
