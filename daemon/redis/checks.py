"""Whether this Redis can be used, and whether all who use it mean the same cluster. Runs in the driver's process.

The record is a hash of what every process of a cluster must agree on. Who knows a field writes it where it is missing;
who knows it otherwise must not go on.
"""

from __future__ import annotations

from daemon.drivers.faults import ServerUnusable
from daemon.redis.connection import CommandError, Connection, packed, raise_for
from daemon.redis.frames import Layout
from daemon.redis.keys import record_key

_FIELDS = ("cluster", "shards", "partitions", "queues")
_SETTINGS = {
    "shards": "[store] shards, which a store keeps as it was made",
    "partitions": "[matching] partitions",
    "queues": "[queues] url",
}


def too_old(version: str | None, needed: str) -> ServerUnusable:
    """What is raised then; `version` None: this user may not know it."""
    return ServerUnusable(f"Redis is too old{f' ({version})' if version else ''}: {needed}")


def check_eviction(connection: Connection) -> str | None:
    """What could not be looked at. Raises ServerUnusable where it evicts."""
    policy = _eviction_policy(connection)
    if policy is None:
        return (
            "Redis does not tell its maxmemory-policy to this user: it must be noeviction, or what waits there may be "
            "dropped unseen"
        )
    if policy != "noeviction":
        raise ServerUnusable(
            f"Redis evicts what it has when its memory is full (maxmemory-policy {policy}), which would drop what "
            "waits there unseen: set maxmemory-policy noeviction"
        )
    return None


def agree(connection: Connection, prefix: str, known: Layout) -> Layout:
    """The layout, by what is recorded and what this process knows. Raises ServerUnusable where they differ."""
    key = record_key(prefix, "cluster")
    mine = {name: str(value) for name in _FIELDS if (value := getattr(known, name)) is not None}
    try:
        recorded = _recorded(connection, key)
        missing = mine.keys() - recorded.keys()
        if missing:
            connection.run_all([packed(b"HSETNX", key, name.encode(), mine[name].encode()) for name in sorted(missing)])
            recorded = _recorded(connection, key)
    except CommandError as error:
        raise_for(error)
    for name, value in mine.items():
        if recorded.get(name) != value:
            raise ServerUnusable(_difference(prefix, name, recorded.get(name, "nothing"), value))
    return Layout(
        recorded.get("cluster"),
        _number(recorded.get("shards")),
        _number(recorded.get("partitions")),
        recorded.get("queues"),
    )


def _recorded(connection: Connection, key: bytes) -> dict[str, str]:
    flat = [each.decode() for each in connection.ask(b"HGETALL", key)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _difference(prefix: str, name: str, recorded: str, mine: str) -> str:
    if name == "cluster":
        return (
            f"another cluster uses this Redis under the same name: {prefix} belongs to the store {recorded}, and this "
            f"process has the store {mine}. Give each its own [links] name; if that other one is gone for good, delete "
            f"the keys {prefix}:*"
        )
    return (
        f"the processes of this cluster disagree: {prefix} has {recorded} {name}, and this process {mine}. All must be "
        f"configured alike ({_SETTINGS[name]}); after a change stop all of them, delete the keys {prefix}:*, and start "
        "them again"
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _eviction_policy(connection: Connection) -> str | None:
    """None where this user may not know. Services that somebody else manages often forbid CONFIG."""
    try:
        answer = connection.ask(b"CONFIG", b"GET", b"maxmemory-policy")
        if len(answer) == 2:
            policy: str = answer[1].decode()
            return policy
    except CommandError as error:
        if not (error.forbidden or error.code == "ERR"):
            raise_for(error)
    return _told(connection, b"memory", "maxmemory_policy")


def version_of(connection: Connection) -> str | None:
    """As Redis says it; None where this user may not know."""
    return _told(connection, b"server", "redis_version")


def _told(connection: Connection, section: bytes, field: str) -> str | None:
    """A line of INFO."""
    try:
        text: str = connection.ask(b"INFO", section).decode()
    except CommandError as error:
        if not (error.forbidden or error.code == "ERR"):
            raise_for(error)
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None
