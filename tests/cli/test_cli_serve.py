"""What `engine serve` refuses before it starts anything."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import Result

import daemon
from daemon.cli.serve import find_shadow

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ("frontend,cook", "no role 'cook'; there are frontend, history, matching, worker, timer"),
        ("", "no role ''"),
    ],
)
def test_roles_that_cannot_run_are_refused(run: Run, roles: str, message: str) -> None:
    result = run("serve", "--roles", roles)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("settings", "roles", "message"),
    [
        ("", "frontend,history", "matching, timer, worker missing: run all five, or let processes"),
        ('[links]\nurl = "redis://h:1"\n', "history", "'sqlite:///' belongs to one daemon: use [store] url"),
        (
            '[links]\nurl = "redis://127.0.0.1:1"\n[store]\nurl = "memory:"\n',
            "worker",
            "'memory:' belongs to one daemon",
        ),
        (
            '[queues]\nurl = "redis://127.0.0.1:1"\n',
            "frontend,history,matching,timer,worker",
            '[queues] url = "redis://..." is for Matchings that share their queues',
        ),
    ],
)
def test_roles_that_cannot_run_with_these_settings_are_refused(
    run: Run, tmp_path: Path, settings: str, roles: str, message: str
) -> None:
    config = tmp_path / "engine.toml"
    config.write_text(settings)
    result = run("serve", "--config", str(config), "--data-dir", str(tmp_path / "data"), "--roles", roles)
    assert result.exit_code == 3
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "data").exists()


def test_settings_that_are_wrong_are_refused_with_their_line(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "engine.toml"
    config.write_text('[store]\nurl = "memory:"\nshard = 3\n')
    result = run("serve", "--config", str(config), "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert f"{config}:3:" in result.stderr
    assert "did you mean" in result.stderr
    assert not (tmp_path / "data").exists()


def test_our_own_package_is_no_shadow() -> None:
    assert find_shadow() is None


def test_another_daemon_package_is_told_from_ours(tmp_path: Path) -> None:
    shadow = find_shadow(tmp_path)
    assert shadow is not None
    assert str(Path(str(daemon.__file__)).parent) in shadow
    assert "environment of its own" in shadow


def test_a_distribution_that_wrote_over_ours_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "python_daemon-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: python-daemon\nVersion: 3.1\n")
    (info / "top_level.txt").write_text("daemon\n")
    (info / "RECORD").write_text("daemon/__init__.py,,\n")
    (tmp_path / "daemon").symlink_to(Path(str(daemon.__file__)).parent)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "python-daemon" in metadata.packages_distributions()["daemon"]
    result = run("serve", "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert "the distribution python-daemon has written its own `daemon` package over the engine's" in result.stderr
