"""Finding a daemon: the one the environment names, else the one of this machine's data folder.

A daemon writes where it listens to `daemon.json` in its data folder, and keeps the key that its own tokens are signed
with in `key` beside it, readable by its owner only: whoever may read that file may talk to the daemon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import msgspec

from enginekit.client import Client, open_client
from enginekit.connection import TokenSource, Tuning, UrlSource
from enginekit.errors import Unreachable

AUDIENCE: Final = "engine"
ISSUER: Final = "engine"
SCOPES: Final = ("read", "write", "work", "admin")
TENANT: Final = "default"
KEY_BYTES: Final = 32
TOKEN_SECONDS: Final = 900


class DaemonFile(msgspec.Struct, frozen=True, kw_only=True):
    """`daemon.json`: what a running daemon bound. `tokens`: the setting by which it takes none that are signed with the
    folder's own key."""

    pid: int
    rpc: str
    http: str | None = None
    tokens: str | None = None


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: `ENGINE_DATA_DIR`, else `engine` in `XDG_STATE_HOME` or in `~/.local/state`."""
    if named := environ.get("ENGINE_DATA_DIR"):
        return Path(named).expanduser()
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "engine"


class LocalDaemon:
    """The daemon of one data folder. `url` and `token` are the sources that `open_client` takes: a daemon that comes
    back on another port is found again."""

    def __init__(self, folder: Path, tenant: str = TENANT) -> None:
        self.folder = folder
        self._tenant = tenant

    def file(self) -> DaemonFile:
        """What the daemon wrote when it last started. Raises Unreachable when none has."""
        path = self.folder / "daemon.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=DaemonFile)
        except FileNotFoundError:
            raise Unreachable(f"no daemon runs on {self.folder}: start one with `engine serve`") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise Unreachable(f"{path}: cannot be read: {error}") from error

    def url(self) -> str:
        return self.file().rpc

    def refuses_own_tokens(self) -> str | None:
        """Why a token that is signed with the folder's own key is of no use here, and what to do; None where it is, or
        no daemon says."""
        try:
            setting = self.file().tokens
        except Unreachable:
            return None
        if setting is None:
            return None
        return (
            f"{self.folder}: the daemon takes tokens by its setting {setting}, and none that are signed with its "
            "folder's own key: have one signed by whoever has that key, and set ENGINE_TOKEN to it"
        )

    def token(self) -> str:
        """A token of a few minutes for everything in the tenant. Raises Unreachable when there is no usable key."""
        if refusal := self.refuses_own_tokens():
            raise Unreachable(refusal)
        import jwt  # half of this module's import time, and not needed by whoever brings a token

        path = self.folder / "key"
        try:
            key = path.read_bytes()
        except OSError as error:
            message = f"{path}: the daemon's key cannot be read ({error.strerror}); set ENGINE_TOKEN"
            raise Unreachable(message) from error
        if len(key) != KEY_BYTES:
            raise Unreachable(f"{path}: is not a key of {KEY_BYTES} bytes; set ENGINE_TOKEN")
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "local",
            "tenant": self._tenant,
            "scope": " ".join(SCOPES),
            "iat": now,
            "exp": now + TOKEN_SECONDS,
        }
        return jwt.encode(claims, key, algorithm="HS256")


class Access(msgspec.Struct, frozen=True):
    """Where a daemon is and what lets us in, as `open_client` takes them."""

    url: str | UrlSource
    token: str | TokenSource


def find_daemon(environ: Mapping[str, str] = os.environ) -> Access:
    """`ENGINE_URL` and `ENGINE_TOKEN`; for what is not set, the data folder's `daemon.json` and key. Reads nothing
    yet."""
    local = LocalDaemon(data_dir(environ))
    return Access(environ.get("ENGINE_URL") or local.url, environ.get("ENGINE_TOKEN") or local.token)


def open_local_client(
    environ: Mapping[str, str] = os.environ,
    *,
    timeout_seconds: float = 60.0,
    connect_seconds: float | None = None,
    tuning: Tuning | None = None,
) -> AbstractAsyncContextManager[Client]:
    """`open_client` for the daemon that `find_daemon` finds. Raises as it does."""
    found = find_daemon(environ)
    return open_client(
        found.url, found.token, timeout_seconds=timeout_seconds, connect_seconds=connect_seconds, tuning=tuning
    )
