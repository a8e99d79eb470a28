"""Where Redis is, by a section of engine.toml."""

from __future__ import annotations

from pathlib import Path

from daemon.drivers.faults import ServerUnusable
from daemon.redis.frames import Server
from daemon.settings import LinkSettings, QueueSettings


def server_of(section: str, settings: LinkSettings | QueueSettings) -> Server:
    """Raises ServerUnusable for a password file that cannot be read."""
    return Server(
        section,
        settings.url,
        password=_password_in(section, settings.password_file),
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        timeout_seconds=settings.call_timeout_seconds,
    )


def _password_in(section: str, file: str | None) -> str | None:
    if file is None:
        return None
    try:
        password = Path(file).read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ServerUnusable(f"[{section}] password_file = {file!r} cannot be read: {error}") from error
    if not password:
        raise ServerUnusable(f"[{section}] password_file = {file!r} is empty")
    return password
