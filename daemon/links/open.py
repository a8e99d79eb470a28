"""Which exchange a URL means."""

from __future__ import annotations

from daemon.links.exchange import Exchange, MemoryExchange
from daemon.redis.settings import server_of
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

    Raises ServerUnusable for a password file that cannot be read.
    """
    if settings.url == "memory:":
        return MemoryExchange()
    # Only now: who is linked in memory has no use for it.
    from daemon.links.redis.exchange import RedisExchange

    return RedisExchange(
        server_of("links", settings),
        process=process,
        name=settings.name,
        cluster=cluster,
        shards=shards,
        partitions=partitions,
        queues=queues,
    )
