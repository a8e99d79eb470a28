"""`engine install-service`: writes the systemd unit, has systemd look at it, and says what comes next.

What stands in the unit is `daemon/cli/unit.py`'s. Run again with the same options it changes nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click

import daemon
from daemon.cli.output import line
from daemon.cli.unit import CREDENTIALS, STATE, Plan, credentials, render
from daemon.configuration import BadSettings, load_settings

SYSTEM_FOLDER: Final = Path("/etc/systemd/system")
DEFAULT_CONFIG: Final = Path("/etc/engine/engine.toml")
BOOTED: Final = Path("/run/systemd/system")
"""There where systemd runs the machine: sd_booted(3)."""
UNIT: Final = "engine.service"
VERIFY_SECONDS: Final = 60.0


@click.command("install-service")
@click.option("--user", is_flag=True, help="For your own systemd (systemctl --user) instead of the machine's.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"engine.toml; without it {DEFAULT_CONFIG} if that is there, else all defaults.",
)
@click.option(
    "--data-dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the daemon lives; /var/lib/engine without it, with --user the usual data folder.",
)
@click.option("--dry-run", is_flag=True, help="Print the unit and write nothing.")
@click.option("--now", is_flag=True, help="Enable and start it, too.")
def install_service(user: bool, config: Path | None, folder: Path | None, dry_run: bool, now: bool) -> None:
    """Install the daemon as a systemd service: write the unit, check it, and say what to do next."""
    plan = _plan(user, config, folder)
    text = render(plan)
    if dry_run:
        click.echo(text, nl=False)
        return
    if not BOOTED.is_dir():
        raise click.ClickException(
            "systemd does not run this machine (there is no /run/systemd/system): start `engine serve` in whatever "
            "does; --dry-run shows the unit"
        )
    if not user and os.geteuid() != 0:
        raise click.ClickException(
            "the machine's services are root's: run it with sudo, or with --user for a service of your own"
        )
    if not user:
        _check_reach(plan)
    verified = _verify(text, user)
    place = _user_folder() if user else SYSTEM_FOLDER
    changed = _write(place / UNIT, text)
    line(f"{place / UNIT}: {'written' if changed else 'is as it should be'}{'' if verified else ' (not verified)'}")
    for name in credentials(plan.settings):
        secret = (Path.home() / ".config/engine/credentials" if user else Path(CREDENTIALS)) / name
        if not secret.exists():
            line(f"missing: {secret}, the credential {name}; without it the service does not start")
    systemctl = ["systemctl", "--user"] if user else ["systemctl"]
    if now:
        _run([*systemctl, "daemon-reload"])
        _run([*systemctl, "enable", "--now", UNIT])
        line("enabled and started")
    _say_next(plan, " ".join(systemctl), now=now)


def _plan(user: bool, config: Path | None, folder: Path | None) -> Plan:
    if config is None and not user and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    try:
        settings = load_settings(config)
    except BadSettings as error:
        raise click.UsageError(str(error)) from error
    folder = None if folder is None else folder.expanduser().absolute()
    account = None
    if folder is not None and not user and not folder.is_relative_to(STATE):
        account = _owner(folder)
    return Plan(
        engine=_program(),
        settings=settings,
        config=None if config is None else config.expanduser().absolute(),
        data_dir=folder,
        account=account,
        user=user,
    )


def _program() -> Path:
    """This very `engine`: beside the interpreter that runs it, so that an environment of its own is kept to."""
    found = Path(sys.executable).parent / "engine"
    if not found.exists():
        raise click.ClickException(f"there is no {found}: install the engine into the environment of {sys.executable}")
    return found


def _owner(folder: Path) -> str:
    """Who runs a daemon on a folder that systemd does not look after."""
    advice = f"make it and give it to the user who is to run the engine: install -d -m 700 -o USER {folder}"
    try:
        owner = pwd.getpwuid(folder.stat().st_uid).pw_name
    except (OSError, KeyError) as error:
        raise click.ClickException(
            f"{folder} is outside of {STATE}, where systemd makes folders, and is not there; {advice}"
        ) from error
    if owner == "root":
        raise click.ClickException(f"{folder} belongs to root, and the engine should not run as root; {advice}")
    return owner


def _check_reach(plan: Plan) -> None:
    """The service's user is neither root nor you. Raises click.ClickException for what it could not read."""
    needed = [plan.engine.parent, Path(os.path.realpath(sys.executable)), Path(str(daemon.__file__))]
    if plan.config is not None:
        needed.append(plan.config)
    for path in needed:
        for part in (path, *path.parents):
            mode = part.stat().st_mode
            if not mode & (0o001 if part.is_dir() else 0o004):
                raise click.ClickException(
                    f"the service's user cannot read {path}: {part} is closed to others (mode {mode & 0o777:o}). "
                    "Install the engine where everybody may read it, as /opt/engine, or use --user"
                )


def _verify(text: str, user: bool) -> bool:
    """Have systemd look at it. False where it cannot. Raises click.ClickException with what it found."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / UNIT
        unit.write_text(text)
        done = subprocess.run(
            [analyze, "verify", "--man=no", *(["--user"] if user else []), str(unit)],
            capture_output=True,
            text=True,
            timeout=VERIFY_SECONDS,
            check=False,
        )
    # It reads the units that ours names as well, and says what it thinks of those.
    found = [each for each in done.stderr.splitlines() if UNIT in each]
    if done.returncode != 0 and not found:
        return False  # it could not look at all: a user's systemd that does not run
    if done.returncode != 0:
        raise click.ClickException("systemd does not take the unit, nothing was written:\n" + "\n".join(found))
    for each in found:
        line(f"systemd: {each}")
    return True


def _user_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "systemd" / "user"


def _write(path: Path, text: str) -> bool:
    """All of it or nothing; whether there was anything to change."""
    try:
        if path.exists() and path.read_text() == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(text)
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be written: {error.strerror}") from error
    return True


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise click.ClickException(
            f"{' '.join(command)} failed: {said}\nThe journal may know more: journalctl -u engine"
        )


def _say_next(plan: Plan, systemctl: str, *, now: bool) -> None:
    journal = "journalctl --user" if plan.user else "journalctl"
    if not now:
        line("Next:")
        line(f"  {systemctl} daemon-reload")
        line(f"  {systemctl} enable --now engine     # starts it, now and at every boot")
    line(f"Look:  {systemctl} status engine")
    line(f"Logs:  {journal} -u engine -o cat -f | jq -R 'fromjson? // .'")
    if plan.user:
        line("It ends when you log out, unless you allow otherwise: loginctl enable-linger")
    else:
        where = plan.data_dir or STATE / "engine"
        line(f"Talk:  sudo env ENGINE_DATA_DIR={where} {plan.engine} status")
