"""Connections: the secrets that definitions may use by a name, each bound to one server and to tenants.

Everything that is known about a connection comes from `[connections.NAME]` of engine.toml, but for its secret, which
is read here, each time it is used, so that one that was replaced counts from the next call on. No HTTP here: whoever
makes the call sends `headers` and `query` along, and only to the connection's `origin`.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

import structlog

from daemon.redaction import Redactor
from daemon.settings import ConnectionAuth, ConnectionSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure

SECRET_BYTES: Final = 16 * 1024
SECRET_CHARACTERS: Final = 8
"""Anything shorter could not be told from ordinary text, and so not be kept out of the history."""
ALL_TENANTS: Final = "*"
CONNECTION_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
CREDENTIAL_NAME: Final = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9_.@-]{1,255}\Z")
"""What systemd takes, and shells and units need not quote."""

_SOURCES: Final = ("secret_file", "secret_env", "secret_credential")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_PORTS: Final = {"http": 80, "https": 443}
_FOR_HEADERS: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")

_log = structlog.get_logger("connections")


class ConnectionFault(str, Enum):
    """The errors, as `Retry` and `Catch` match them."""

    UNKNOWN = "Engine.UnknownConnection"
    """There is none of that name, or it is not for this tenant: nobody is told which."""
    UNUSABLE = "Engine.ConnectionUnusable"
    """Its secret cannot be read, or cannot be sent."""


class Origin(NamedTuple):
    """Scheme, host (as it goes over the wire, lower case, IPv6 without brackets) and port of a URL."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def origin_of(url: str) -> Origin:
    """Raises ValueError: it is not an http or https URL with a host in ASCII."""
    parts = urlsplit(url)
    scheme, host, port = parts.scheme, parts.hostname, parts.port
    if scheme not in _PORTS or not host:
        raise ValueError("must start with http:// or https:// and a host")
    if not host.isascii():
        raise ValueError("must have its host as DNS has it (xn--...)")
    return Origin(scheme, host, port or _PORTS[scheme])


class Connection:
    """A connection with its secret, for one call: not to be kept, since the secret may be replaced.

    `url` is the base URL, without a slash at its end. `headers` and `query` are what authenticates a call; they, and
    `secret`, may go to `origin` and nowhere else, so follow no redirect away from it. Whatever the call returns, raises
    or logs goes through `redactor` first. Its host was chosen by who runs the daemon: calls to it may go to a private
    address.
    """

    __slots__ = ("headers", "name", "origin", "query", "redactor", "secret", "url")

    def __init__(self, name: str, settings: ConnectionSettings, secret: str | None) -> None:
        self.name = name
        self.url = settings.url.rstrip("/")
        self.origin = origin_of(settings.url)
        self.secret = secret
        self.headers: dict[str, str] = {}
        self.query: dict[str, str] = {}
        secrets = [] if secret is None else [secret]
        match settings.auth:
            case ConnectionAuth.BEARER:
                self.headers["Authorization"] = f"Bearer {secret}"
            case ConnectionAuth.BASIC:
                both = base64.b64encode(f"{settings.username}:{secret}".encode()).decode()
                self.headers["Authorization"] = f"Basic {both}"
                secrets.append(both)
            case ConnectionAuth.API_KEY if settings.query is not None:
                self.query[settings.query] = secret or ""
            case ConnectionAuth.API_KEY:
                self.headers[settings.header] = secret or ""
        self.redactor = Redactor(secrets)

    def __repr__(self) -> str:
        return f"<Connection {self.name} to {self.origin}>"


class Connections:
    """Those of engine.toml."""

    def __init__(self, settings: Mapping[str, ConnectionSettings]) -> None:
        self._settings = settings

    def fault(self, name: JSON, tenant: str) -> str | None:
        """Why a definition of that tenant cannot name it, or None. Reads no secret."""
        if not isinstance(name, str):
            return "must be the name of a connection, a string"
        settings = self._settings.get(name)
        if settings is None or not (tenant in settings.tenants or ALL_TENANTS in settings.tenants):
            return f'names no connection of tenant "{tenant}": there is no "{name[:100]}"'
        return None

    def resolve(self, name: JSON, tenant: str) -> Connection:
        """The connection, with its secret as it is now.

        Raises NodeFailure `Engine.UnknownConnection` (in the same words for one that is another tenant's) and
        `Engine.ConnectionUnusable`.
        """
        fault = self.fault(name, tenant)
        if fault is not None:
            raise NodeFailure(ConnectionFault.UNKNOWN.value, f"Connection {fault}", unhealthy=None)
        assert isinstance(name, str)
        settings = self._settings[name]
        return Connection(name, settings, _secret(name, settings))

    def problems(self) -> Iterator[str]:
        """What is wrong with the secrets as they are now, a sentence each: for the start of the daemon."""
        for name, settings in self._settings.items():
            try:
                _secret(name, settings)
            except NodeFailure as failure:
                yield failure.cause


def faults_of(settings: ConnectionSettings) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings of a connection beyond their types: each a setting's name and a reason."""
    try:
        origin_of(settings.url)
    except ValueError as error:
        yield "url", f"{error}, not {settings.url!r}"
    else:
        parts = urlsplit(settings.url)
        if "@" in parts.netloc:
            yield "url", "must not have a user in it: use auth and username"
        if parts.query or parts.fragment:
            yield "url", "must end with its path"
    if ALL_TENANTS in settings.tenants and len(settings.tenants) > 1:
        yield "tenants", f'"{ALL_TENANTS}" is all of them; leave out either it or the others'
    given = [name for name in _SOURCES if getattr(settings, name) is not None]
    if settings.auth is ConnectionAuth.NONE:
        yield from ((name, "has no meaning without auth") for name in given)
    elif not given:
        yield "auth", f"{settings.auth.value} needs a secret: one of {', '.join(_SOURCES)}"
    yield from ((name, f"a secret comes from one place, and {given[0]} is set") for name in given[1:])
    if settings.secret_credential is not None and not CREDENTIAL_NAME.match(settings.secret_credential):
        yield "secret_credential", "must be the name of a credential, not a path"
    if settings.auth is ConnectionAuth.BASIC and not settings.username:
        yield "auth", "basic needs a username"
    if ":" in settings.username:
        yield "username", "cannot have a colon in it: that is where the password begins"
    if settings.username and settings.auth is not ConnectionAuth.BASIC:
        yield "username", "is for auth = basic only"
    if settings.query is not None and settings.auth is not ConnectionAuth.API_KEY:
        yield "query", "is for auth = api_key only"
    if not _HEADER.match(settings.header):
        yield "header", f"{settings.header!r} is not the name of a header"


def _secret(name: str, settings: ConnectionSettings) -> str | None:
    """Raises NodeFailure. The cause, which a tenant sees, does not tell the path; the log does."""
    if settings.auth is ConnectionAuth.NONE:
        return None
    try:
        text = _read(settings)
    except OSError as error:
        _log.warning("secret unreadable", connection=name, path=error.filename, reason=error.strerror)
        _unusable(name, f"its secret cannot be read: {error.strerror}")
    except (LookupError, ValueError) as error:
        _unusable(name, f"its secret cannot be read: {error.args[0]}")
    if len(text) < SECRET_CHARACTERS:
        _unusable(name, f"its secret is too short: {SECRET_CHARACTERS} characters are the least")
    if settings.auth is not ConnectionAuth.BASIC and settings.query is None and not _FOR_HEADERS.match(text):
        _unusable(name, "its secret cannot stand in a header: it is not printable ASCII on one line")
    return text


def _read(settings: ConnectionSettings) -> str:
    """Raises OSError, LookupError, ValueError."""
    if settings.secret_env is not None:
        if settings.secret_env not in os.environ:
            raise LookupError("the daemon's environment does not have it (secret_env)")
        return _decoded(os.environb[settings.secret_env.encode()])
    if settings.secret_file is not None:
        return _decoded(_content(Path(settings.secret_file)))
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None or settings.secret_credential is None:
        raise LookupError("systemd passed no credentials to the daemon (secret_credential)")
    return _decoded(_content(Path(folder) / settings.secret_credential))


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SECRET_BYTES + 1)


def _decoded(data: bytes) -> str:
    if len(data) > SECRET_BYTES:
        raise ValueError(f"it has more than {SECRET_BYTES} bytes")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        # Without what could not be decoded: the error quotes it.
        raise ValueError("it is not UTF-8 text") from None


def _unusable(name: str, problem: str) -> NoReturn:
    raise NodeFailure(ConnectionFault.UNUSABLE.value, f'connection "{name}" cannot be used: {problem}', unhealthy=None)
