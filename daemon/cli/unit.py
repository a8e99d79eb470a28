"""The systemd unit as text: what engine.toml and the place of the installation make of it. Pure; no file is read here.

`deploy/engine.service` is what comes out for the defaults in /opt/engine; a test keeps it so. Source: systemd.exec(5),
systemd.service(5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from daemon.settings import Settings
from daemon.supervisor import DRAIN_ORDER, STOP_SECONDS

CREDENTIALS: Final = "/etc/engine/credentials"
STATE: Final = Path("/var/lib")
STATE_NAME: Final = "engine"
SLACK_SECONDS: Final = 15.0
"""For the interpreter, and for the store's process to end."""
WATCHDOG_SECONDS: Final = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit is made for. `engine`: the program. Without `data_dir`: where systemd keeps state (the system's), or
    where `engine` finds it by itself (a user's). `account`: who runs it; None, a user that systemd makes."""

    engine: Path
    settings: Settings
    config: Path | None = None
    data_dir: Path | None = None
    account: str | None = None
    user: bool = False


def render(plan: Plan) -> str:
    """The whole unit file."""
    return "\n".join([*_unit(plan), "", *_service(plan), "", "[Install]", f"WantedBy={_target(plan)}", ""])


def stop_seconds(settings: Settings) -> int:
    """The longest that an orderly end may take: frontend, worker and history drain, then each service is cancelled."""
    drains = 2 * settings.supervisor.drain_seconds + settings.worker.drain_seconds + 10.0
    return math.ceil(drains + len(DRAIN_ORDER) * STOP_SECONDS + SLACK_SECONDS)


def start_seconds(settings: Settings) -> int:
    return math.ceil(max(90.0, settings.store.lock_wait_seconds + settings.store.call_timeout_seconds + 30.0))


def watchdog_seconds(settings: Settings) -> int:
    """Longer than the store may be silent before it counts as lost, so that this is found out first."""
    return math.ceil(max(WATCHDOG_SECONDS, 2 * settings.store.call_timeout_seconds))


def credentials(settings: Settings) -> list[str]:
    """The names of the credentials that the settings want, in their order."""
    wanted = [settings.auth.key_credential, *(each.secret_credential for each in settings.connections.values())]
    return list(dict.fromkeys(name for name in wanted if name is not None))


def writable(settings: Settings) -> list[Path]:
    """The folders beyond the data folder that the settings have the daemon write to."""
    found = [] if settings.files.path is None else [settings.files.path]
    store = settings.store.url.removeprefix("sqlite:///")
    if settings.store.url.startswith("sqlite:///") and Path(store).is_absolute():
        found.append(Path(store).parent)
    return list(dict.fromkeys(found))


def _target(plan: Plan) -> str:
    return "default.target" if plan.user else "multi-user.target"


def _unit(plan: Plan) -> Iterator[str]:
    yield "# The engine's daemon. `engine install-service` writes this file, with what your engine.toml asks for;"
    yield "# changes of your own belong into a drop-in (`systemctl edit engine`), where they outlive an upgrade."
    yield "[Unit]"
    yield "Description=Execution Plane, a durable workflow engine"
    if not plan.user:
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    yield "# Not more than five starts in ten minutes: what does not get better by itself is somebody's to look at."
    yield "StartLimitIntervalSec=600"
    yield "StartLimitBurst=5"


def _service(plan: Plan) -> Iterator[str]:
    settings = plan.settings
    yield "[Service]"
    yield "# Ready once every service runs and the ports are open."
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={_command(plan)}"
    yield f"TimeoutStartSec={start_seconds(settings)}"
    yield "# Fed only while every service answers. A store that is lost is waited for (see the status), not a reason."
    yield f"WatchdogSec={watchdog_seconds(settings)}"
    yield "# Beyond all that [supervisor] and [worker] drain_seconds allow. The daemon ends its own processes."
    yield f"TimeoutStopSec={stop_seconds(settings)}"
    yield "KillMode=mixed"
    yield "Restart=on-failure"
    yield "RestartSec=2"
    yield "# 2: wrong settings. 3: a store or a key that cannot be used as it is. Starting again changes neither."
    yield "RestartPreventExitStatus=2 3"
    yield "LimitNOFILE=65536"
    yield ""
    yield "# Lines of JSON behind a priority: journalctl -u engine -o cat | jq -R 'fromjson? // .'"
    yield "StandardOutput=journal"
    yield "StandardError=journal"
    yield "SyslogIdentifier=engine"
    yield ""
    if not plan.user:
        yield from _place(plan)
        yield ""
    yield from _secrets(plan)
    yield ""
    yield from _sandbox(plan)


def _command(plan: Plan) -> str:
    parts = [str(plan.engine), "serve"]
    if plan.config is not None:
        parts += ["--config", str(plan.config)]
    if plan.data_dir is not None:
        parts += ["--data-dir", str(plan.data_dir)]
    elif not plan.user:
        parts += ["--data-dir", str(STATE / STATE_NAME)]
    return " ".join(map(_quoted, parts))


def _quoted(word: str) -> str:
    """As ExecStart takes it: no specifier, no variable, no second word."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(character in " '\"\\;" for character in word) else escaped


def _place(plan: Plan) -> Iterator[str]:
    """Whose it is and where it may write: of a system's unit."""
    if plan.account is None:
        yield "# A user of its own that exists while it runs; the data folder belongs to it."
        yield "DynamicUser=yes"
        yield "User=engine"
    else:
        yield f"User={plan.account}"
    under = plan.data_dir or STATE / STATE_NAME
    if under.is_relative_to(STATE) and under != STATE:
        yield f"StateDirectory={under.relative_to(STATE)}"
        yield "StateDirectoryMode=0700"
    else:
        yield f"ReadWritePaths={_quoted(str(under))}"
    for folder in writable(plan.settings):
        yield f"ReadWritePaths=-{_quoted(str(folder))}"


def _secrets(plan: Plan) -> Iterator[str]:
    folder = "%h/.config/engine/credentials" if plan.user else CREDENTIALS
    yield "# Keys and secrets, readable by root alone, as engine.toml names them: [auth] key_credential,"
    yield "# [connections.NAME] secret_credential. Encrypted ones: LoadCredentialEncrypted."
    names = credentials(plan.settings)
    for name in names:
        yield f"LoadCredential={name}:{folder}/{name}"
    if not names:
        yield f"# LoadCredential=token-key:{folder}/token-key"


def _sandbox(plan: Plan) -> Iterator[str]:
    yield "NoNewPrivileges=yes"
    yield "UMask=0077"
    if not plan.user:
        yield "ProtectSystem=strict"
        homes = any(plan.engine.is_relative_to(home) for home in ("/home", "/root", "/run/user"))
        yield f"ProtectHome={'read-only' if homes else 'yes'}"
        yield "PrivateTmp=yes"
        yield "PrivateDevices=yes"
        yield "ProtectProc=invisible"
        yield "ProtectClock=yes"
        yield "ProtectHostname=yes"
        yield "ProtectKernelLogs=yes"
        yield "ProtectKernelModules=yes"
        yield "ProtectKernelTunables=yes"
        yield "ProtectControlGroups=yes"
        yield "CapabilityBoundingSet="
        yield "AmbientCapabilities="
        yield "RemoveIPC=yes"
    yield "LockPersonality=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "RestrictNamespaces=yes"
    yield "# The wire, outgoing calls and name service; the store's and the interpreters' sockets."
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    yield "SystemCallArchitectures=native"
    yield "# @resources stays allowed: the interpreters of code nodes lower their own limits."
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged"
    yield "SystemCallErrorNumber=EPERM"
    yield "# code:javascript is WebAssembly, compiled to machine code: with yes it cannot run. An engine without such"
    yield "# definitions may have it in a drop-in."
    yield "MemoryDenyWriteExecute=no"
