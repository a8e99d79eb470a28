"""engine.toml, read strictly: every fault in it at once, each with its line, what is wrong, and what was meant.

Only reading and checking live here; the shape, the defaults and the bounds of single values are in
`daemon/settings.py`. What is checked across values, or beyond a type, is in `_CHECKS` below.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import msgspec

from daemon.address import shown as without_password
from daemon.connections import CONNECTION_NAME, CREDENTIAL_NAME, faults_of
from daemon.settings import ConnectionSettings, Section, Settings

FILE_BYTES = 64 * 1024
"""Far more than every setting with its comment takes. Finding lines re-reads the file, so its size is bounded."""

_KEYS = ("key_file", "key_credential", "jwks_file", "jwks_url")
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")

KeyPath: TypeAlias = tuple[str, ...]
Fault: TypeAlias = tuple[KeyPath, str]
Check: TypeAlias = Callable[[Settings], str | None]
"""Why a value cannot be, or None."""


class BadSettings(Exception):
    """The settings cannot be used. The message has one line for each fault, in the order of the file."""


def load_settings(path: Path | None) -> Settings:
    """The settings of an engine.toml, or the defaults without one.

    Raises BadSettings: no such file, not TOML, an unknown setting, a wrong type, an impossible value.
    """
    if path is None:
        return Settings()
    text = _read(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(_not_toml(path, text, error)) from error
    faults: list[Fault] = []
    sections = _sections(document, faults)
    settings = msgspec.structs.replace(Settings(), **sections)
    # A value that was refused has been replaced by its default: a check that reads it would blame the wrong one.
    refused = {key for key, _ in faults}
    faults += [
        (key, reason)
        for key, reason in _check(settings)
        if refused.isdisjoint((key, key[:1], _COMPARED_WITH.get(key, key)))
    ]
    if faults:
        raise BadSettings("\n".join(_located(path, text, faults)))
    return settings


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES:
        raise BadSettings(f"{path}: {len(data)} bytes are more than settings can take ({FILE_BYTES}); is it the file?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadSettings(f"{path}:{line}: not UTF-8 (byte {data[error.start]:#04x})") from error


def _not_toml(path: Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    match = re.fullmatch(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if match is None:
        return f"{path}: not TOML: {error}"
    line = match[2] or str(max(len(text.splitlines()), 1))
    return f"{path}:{line}: not TOML: {match[1]}"


# --- types and names ---------------------------------------------------------------------------------------------


def _sections(document: dict[str, object], faults: list[Fault]) -> dict[str, object]:
    """Every section that the document has, with the default in the place of each value that is at fault."""
    known = {field.name: field for field in msgspec.structs.fields(Settings)}
    sections: dict[str, object] = {}
    for name, table in document.items():
        if name not in known:
            if isinstance(table, dict):
                faults.append(((name,), f"[{name}]: unknown section{_near(name, known)}"))
            else:
                faults.append(((name,), f"{name}: a setting must stand in its section{_near(name, known)}"))
            continue
        if not isinstance(table, dict):
            written = "[connections.NAME]" if name == "connections" else f"[{name}]"
            faults.append(((name,), f"{name}: must be a section, written {written}, not {_shown(table)}"))
            continue
        if name == "connections":
            sections[name] = _connections(table, faults)
            continue
        kind = known[name].type
        assert isinstance(kind, type)
        assert issubclass(kind, Section)
        sections[name] = msgspec.structs.replace(kind(), **_values((name,), kind, table, faults))
    return sections


def _connections(tables: dict[str, object], faults: list[Fault]) -> dict[str, ConnectionSettings]:
    """Those without a fault."""
    made: dict[str, ConnectionSettings] = {}
    for name, table in tables.items():
        where = ("connections", name)
        before = len(faults)
        if not isinstance(table, dict):
            faults.append((where, f"[connections] {name}: must be a section, written [connections.{name}]"))
            continue
        if not CONNECTION_NAME.match(name):
            faults.append(
                (where, f"[connections.{_shown(name)}]: a name has 1 to 64 of the characters A-Z a-z 0-9 . _ -")
            )
        values = _values(where, ConnectionSettings, table, faults)
        faults += [
            (where, f"[connections.{name}]: needs {field.name}")
            for field in msgspec.structs.fields(ConnectionSettings)
            if field.required and field.name not in table
        ]
        if len(faults) == before:
            connection = ConnectionSettings(**values)  # type: ignore[arg-type]
            faults += [((*where, key), f"[connections.{name}] {key}: {why}") for key, why in faults_of(connection)]
            made[name] = connection
    return made


_LITERAL_SECRETS = ("secret", "password", "token", "api_key", "key")


def _values(path: KeyPath, kind: type[Section], table: dict[str, object], faults: list[Fault]) -> dict[str, object]:
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    section = ".".join(path)
    values: dict[str, object] = {}
    for key, value in table.items():
        where = (*path, key)
        if key not in known:
            hint = _near(key, known)
            if kind is ConnectionSettings and key in _LITERAL_SECRETS:
                hint = "; a secret does not stand in this file: use secret_file, secret_env or secret_credential"
            faults.append((where, f"[{section}] {key}: unknown setting{hint}"))
            continue
        if isinstance(value, float) and not math.isfinite(value):
            faults.append((where, f"[{section}] {key}: must be a finite number, not {value}"))
            continue
        try:
            values[key] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            faults.append((where, f"[{section}] {key}: {_expectation(error, known[key].type)}, not {_shown(value)}"))
    return values


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "null": "absent",
}


def _expectation(error: msgspec.ValidationError, kind: object) -> str:
    """msgspec's "Expected `int` >= 1 - at `$`" in a person's words: "must be a whole number >= 1"."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"must be one of {', '.join(str(each.value) for each in kind)}"
    text = re.sub(r", got `.*?`|  ?- at `.*?`", "", str(error))
    match = re.fullmatch(r"Expected `(.*?)`(.*)", text, re.DOTALL)
    if match is None:
        return f"is refused ({text})"
    kinds = [_TYPES.get(kind.strip(), kind.strip()) for kind in match[1].split("|")]
    pattern = re.fullmatch(r" matching regex '\^\((.*)\)\$'", match[2])
    if pattern is not None:
        return f"must be one of {', '.join(pattern[1].split('|'))}"
    return f"must be {' or '.join(k for k in kinds if k != 'absent')}{match[2]}"


def _shown(value: object) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- beyond types ------------------------------------------------------------------------------------------------


def _check(settings: Settings) -> list[Fault]:
    """What no single type can say."""
    return [
        ((section, key), f"[{section}] {key}: {reason}")
        for (section, key), check in _CHECKS
        if (reason := check(settings)) is not None
    ]


def _store_url(settings: Settings) -> str | None:
    url = settings.store.url
    if url == "memory:" or url.startswith(("sqlite:///", "postgresql://")):
        return None
    return f"must be memory:, sqlite:///PATH or postgresql://…, not {_shown(without_password(url))}"


_ON_REDIS = ("links", "queues")
_TLS_FILES = ("ca_file", "cert_file", "key_file")
_LINK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_REDIS_URLS = "memory:, redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], rediss://… (TLS) or unix://PATH"


def _redis_url(section: str) -> Check:
    def check(settings: Settings) -> str | None:
        url: str = getattr(settings, section).url
        if url == "memory:":
            return None
        wrong = f"must be {_REDIS_URLS}, not {_shown(without_password(url))}"
        try:
            parts = urlsplit(url)
            port_or_none = parts.port
        except ValueError:
            return wrong
        if parts.scheme == "unix":
            database = parse_qs(parts.query, keep_blank_values=True)
            named = all(key == "db" and values[0].isdecimal() for key, values in database.items())
            return None if parts.path and named and not parts.hostname else wrong
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.query or port_or_none == 0:
            return wrong
        return None if re.fullmatch(r"(/\d*)?", parts.path) else wrong

    return check


def _links_name(settings: Settings) -> str | None:
    name = settings.links.name
    return None if _LINK_NAME.match(name) else f"may have A-Z a-z 0-9 . _ - and begins with none of . _ -, not {name!r}"


def _redis_password(section: str) -> Check:
    def check(settings: Settings) -> str | None:
        redis = getattr(settings, section)
        if redis.password_file is None or urlsplit(redis.url).password is None:
            return None
        return "the password comes from one place, and the url has one"

    return check


def _redis_tls(section: str, name: str) -> Check:
    def check(settings: Settings) -> str | None:
        redis = getattr(settings, section)
        if getattr(redis, name) is None:
            return None
        if not redis.url.startswith("rediss:"):
            return "is for a url of rediss://"
        if name != "ca_file" and None in (redis.cert_file, redis.key_file):
            return "cert_file and key_file go together"
        return None

    return check


def parse_listen(listen: str) -> tuple[str, int]:
    """HOST and PORT of a `…_listen`; an IPv6 host is in brackets there. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host:
        raise ValueError(f"must be HOST:PORT, not {_shown(listen)}")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise ValueError(f"must have an IPv6 host in brackets, as [::1]:7460, not {_shown(listen)}")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"must end in a port from 0 (any free one) to 65535, not {_shown(listen)}")
    return host[1:-1] if bracketed else host, int(port)


def _listen(read: Callable[[Settings], str | None]) -> Check:
    def check(settings: Settings) -> str | None:
        listen = read(settings)
        try:
            if listen is not None:
                parse_listen(listen)
        except ValueError as error:
            return str(error)
        return None

    return check


def _same_listen(settings: Settings) -> str | None:
    rpc, http = settings.frontend.rpc_listen, settings.frontend.http_listen
    if rpc == http and not http.endswith(":0"):
        return f"is the same address as rpc_listen ({http})"
    return None


def _payload_fits_frame(settings: Settings) -> str | None:
    if settings.history.payload_bytes > settings.frontend.frame_bytes // 2:
        return (
            f"{settings.history.payload_bytes} does not fit twice into [frontend] frame_bytes "
            f"({settings.frontend.frame_bytes}): a call with such a payload could not come in, nor an answer go out"
        )
    return None


def _page_fits_frame(settings: Settings) -> str | None:
    if settings.history.page_bytes > settings.frontend.frame_bytes:
        return (
            f"{settings.history.page_bytes} is more than [frontend] frame_bytes ({settings.frontend.frame_bytes}): "
            "a full page could not go out"
        )
    return None


def _algorithms(settings: Settings) -> str | None:
    bad = [name for name in settings.auth.algorithms if name not in ALGORITHMS]
    return f"{_shown(bad[0])} is none of {', '.join(ALGORITHMS)}" if bad else None


def _one_key(key: str) -> Check:
    def check(settings: Settings) -> str | None:
        given = [name for name in _KEYS if getattr(settings.auth, name) is not None]
        return f"keys come from one place, and {given[0]} is set" if key in given[1:] else None

    return check


def _key_credential(settings: Settings) -> str | None:
    name = settings.auth.key_credential
    return None if name is None or CREDENTIAL_NAME.match(name) else f"{_shown(name)} is not the name of a credential"


def _networks(settings: Settings) -> str | None:
    for text in settings.http.allow:
        try:
            ip_network(text)
        except ValueError as error:
            return f'{_shown(text)} is not a network like "10.1.0.0/16" or "::1": {error}'
    return None


def _backoff_limit(settings: Settings) -> str | None:
    supervisor = settings.supervisor
    if supervisor.backoff_limit_seconds < supervisor.backoff_seconds:
        return f"{supervisor.backoff_limit_seconds:g} is less than backoff_seconds ({supervisor.backoff_seconds:g})"
    return None


def _within(name: str, limit: str) -> Check:
    def check(settings: Settings) -> str | None:
        given, most = getattr(settings.code, name), getattr(settings.code, limit)
        return f"{given} is more than {limit} ({most})" if given > most else None

    return check


_CODE_LIMITS = {
    "timeout_milliseconds": "timeout_limit_milliseconds",
    "memory_bytes": "memory_limit_bytes",
    "output_bytes": "output_limit_bytes",
}

_CHECKS: tuple[tuple[tuple[str, str], Check], ...] = (
    (("store", "url"), _store_url),
    (("links", "name"), _links_name),
    *(((section, "url"), _redis_url(section)) for section in _ON_REDIS),
    *(((section, "password_file"), _redis_password(section)) for section in _ON_REDIS),
    *(((section, name), _redis_tls(section, name)) for section in _ON_REDIS for name in _TLS_FILES),
    (("frontend", "rpc_listen"), _listen(lambda settings: settings.frontend.rpc_listen)),
    (("frontend", "http_listen"), _listen(lambda settings: settings.frontend.http_listen)),
    (("frontend", "http_listen"), _same_listen),
    (("health", "listen"), _listen(lambda settings: settings.health.listen)),
    (("auth", "algorithms"), _algorithms),
    *((("auth", key), _one_key(key)) for key in _KEYS),
    (("auth", "key_credential"), _key_credential),
    (("history", "payload_bytes"), _payload_fits_frame),
    (("history", "page_bytes"), _page_fits_frame),
    (("http", "allow"), _networks),
    (("supervisor", "backoff_limit_seconds"), _backoff_limit),
    *((("code", name), _within(name, limit)) for name, limit in _CODE_LIMITS.items()),
)

_COMPARED_WITH: dict[KeyPath, KeyPath] = {
    ("frontend", "http_listen"): ("frontend", "rpc_listen"),
    **{(section, name): (section, "url") for section in _ON_REDIS for name in ("password_file", *_TLS_FILES)},
    ("history", "payload_bytes"): ("frontend", "frame_bytes"),
    ("history", "page_bytes"): ("frontend", "frame_bytes"),
    ("supervisor", "backoff_limit_seconds"): ("supervisor", "backoff_seconds"),
    **{("code", name): ("code", limit) for name, limit in _CODE_LIMITS.items()},
}
"""Where to look for the line of a fault when the file leaves the setting itself at its default."""


# --- lines -------------------------------------------------------------------------------------------------------


def _located(path: Path, text: str, faults: list[Fault]) -> list[str]:
    lines = _lines_of(text, {key for key, _ in faults} | set(_COMPARED_WITH.values()))
    placed = sorted((lines.get(key) or lines.get(_COMPARED_WITH.get(key, key), 1), reason) for key, reason in faults)
    return [f"{path}:{line}: {reason}" for line, reason in placed]


def _lines_of(text: str, keys: set[KeyPath]) -> dict[KeyPath, int]:
    """The line on which each of these keys is set.

    tomllib does not tell, so its own reading of the file's beginnings does: a key is set on the line after the
    longest beginning that is TOML and does not have it. Keys that are nowhere in the file are left out.
    """
    found: dict[KeyPath, int] = {}
    lines = text.splitlines(keepends=True)
    longest_without = 0
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        for key in keys - found.keys():
            if _has(document, key):
                found[key] = longest_without + 1
        longest_without = count
    return found


def _has(document: dict[str, object], key: KeyPath) -> bool:
    here: object = document
    for part in key:
        if not isinstance(here, dict) or part not in here:
            return False
        here = here[part]
    return True
