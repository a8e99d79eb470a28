"""Which exchange a URL means."""

from __future__ import annotations

from pathlib import Path

from daemon.links.exchange import Exchange, MemoryExchange
from daemon.links.faults import ExchangeUnusable
from daemon.settings import LinkSettings


def open_exchange(
    settings: LinkSettings,
    *,
    process: str,
    cluster: str | None = None,
    shards: int | None = None,
    partitions: int | None = None,
    queues: str | None = None,
) -> Exchange:
    """The exchange that `[links] url` names; nothing is connected before its `run`. See `RedisExchange` for the rest.

    Raises ExchangeUnusable for a password file that cannot be read.
    """
    if settings.url == "memory:":
        return MemoryExchange()
    # Only now: who is linked in memory has no use for it.
    from daemon.links.redis.exchange import RedisExchange

    return RedisExchange(
        settings.url,
        process=process,
        name=settings.name,
        cluster=cluster,
        shards=shards,
        partitions=partitions,
        queues=queues,
        password=password_in("links", settings.password_file),
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        call_timeout_seconds=settings.call_timeout_seconds,
    )


def password_in(section: str, file: str | None) -> str | None:
    """What the `password_file` of a section of engine.toml has. Raises ExchangeUnusable."""
    if file is None:
        return None
    try:
        password = Path(file).read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExchangeUnusable(f"[{section}] password_file = {file!r} cannot be read: {error}") from error
    if not password:
        raise ExchangeUnusable(f"[{section}] password_file = {file!r} is empty")
    return password
