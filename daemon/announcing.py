"""`daemon.json` in the data folder: how whoever is on this machine finds the running daemon, and how each process says
where it is watched."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec


class DaemonFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What it says. `rpc`: of a process with a Frontend. `roles`: of one that has not all. `tokens`: the setting by
    which tokens of the data folder's own key count no more."""

    pid: int
    engine: str
    http: str
    rpc: str | None = None
    roles: list[str] = []
    tokens: str | None = None


def file_of(data_dir: Path, roles: Collection[str], *, frontend: bool) -> Path:
    """Where a process says it. `daemon.json` is what clients look for, so it is a Frontend's; several processes may
    share a data folder, and the others' files are named for their roles: `daemon.history+timer.json`."""
    return data_dir / ("daemon.json" if frontend else f"daemon.{'+'.join(sorted(roles))}.json")


def remove_own(file: Path) -> None:
    """Take it away, unless another process with the same roles has written it since."""
    try:
        if msgspec.json.decode(file.read_bytes(), type=DaemonFile).pid != os.getpid():
            return
    except (FileNotFoundError, msgspec.MsgspecError):
        return
    file.unlink(missing_ok=True)


_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}


def reachable(address: str) -> str:
    """Where somebody on this machine finds what listens on every address."""
    host, _, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def write_private(file: Path, data: bytes) -> None:
    """All of it or nothing, readable by its owner only."""
    part = file.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    part.replace(file)
