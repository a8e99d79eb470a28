"""Which task queues a URL means."""

from __future__ import annotations

from daemon.queues.interface import TaskQueues, Terms
from daemon.redis.settings import server_of
from daemon.settings import Settings


def open_queues(settings: Settings, member: str) -> TaskQueues | None:
    """The shared queues that `[queues] url` names, None where each partition's owner has them in its memory. Nothing is
    connected before `run`. `member` is the name of this process among those that share them.

    Raises ServerUnusable for a password file that cannot be read.
    """
    queues = settings.queues
    if queues.url == "memory:":
        return None
    # Only now: who has them in memory has no use for it.
    from daemon.queues.redis.queues import RedisTaskQueues

    return RedisTaskQueues(
        server_of("queues", queues),
        member=member,
        terms=terms_of(settings),
        partitions=settings.matching.partitions,
        name=settings.links.name,
    )


def terms_of(settings: Settings) -> Terms:
    return Terms(
        tasks=settings.queues.queue_tasks,
        lease_seconds=settings.matching.handout_seconds,
        delay_seconds=settings.breakers.open_seconds,
    )
