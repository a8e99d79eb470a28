"""Which services a process runs, and what it has to be given for that."""

from __future__ import annotations

from enum import Enum

from daemon.settings import Settings
from daemon.supervisor import Unusable


class Role(str, Enum):
    """A service, as `--roles` names it."""

    FRONTEND = "frontend"
    HISTORY = "history"
    MATCHING = "matching"
    WORKER = "worker"
    TIMER = "timer"


ALL_ROLES = frozenset(Role)
ON_THE_STORE = frozenset({Role.HISTORY, Role.MATCHING, Role.TIMER})
"""Those that have it open."""


def check_roles(roles: frozenset[Role], settings: Settings) -> None:
    """Raises Unusable where these services cannot do their work with these settings."""
    url = settings.store.url
    shown = settings.links.url.partition("://")[0] + "://..."
    shared_store = url.startswith("postgresql:")
    if settings.links.url == "memory:":
        missing = sorted(role.value for role in ALL_ROLES - roles)
        if missing:
            raise Unusable(
                f"services that are linked in memory need one another in one process; {', '.join(missing)} missing: "
                'run all five, or let processes reach one another with [links] url = "redis://..."'
            )
    elif not shared_store:
        raise Unusable(
            f"[links] url = {shown!r} lets processes share the work, but [store] url = {url!r} belongs "
            'to one daemon: use [store] url = "postgresql://...", or [links] url = "memory:"'
        )
    if settings.queues.url != "memory:" and settings.links.url == "memory:":
        raise Unusable(
            '[queues] url = "redis://..." is for Matchings that share their queues, and with [links] url = "memory:" '
            "there is one: its queues are in its memory. Leave [queues] out, or let processes reach one another with "
            '[links] url = "redis://..."'
        )
