"""`daemon.json` in the data folder: how whoever is on this machine finds the running daemon."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class DaemonFile(msgspec.Struct, frozen=True, kw_only=True):
    """What it says."""

    pid: int
    engine: str
    rpc: str
    http: str


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
