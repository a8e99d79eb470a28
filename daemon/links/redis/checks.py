"""Whether this Redis can carry links. Runs in the driver's process."""

from __future__ import annotations

from daemon.links.redis.keys import GROUP
from daemon.redis.checks import check_eviction, too_old, version_of
from daemon.redis.connection import CommandError, Connection, raise_for
from daemon.redis.keys import record_key


def check_server(connection: Connection, prefix: str) -> str | None:
    """What could not be looked at. Raises ServerUnusable: too old, or it evicts."""
    try:
        connection.ask(b"XAUTOCLAIM", record_key(prefix, "probe"), GROUP, b"probe", b"0", b"0-0")
    except CommandError as error:
        if error.unknown_command:
            raise too_old(
                version_of(connection),
                "links need streams with XAUTOCLAIM, which came with Redis 6.2 (Valkey has it)",
            ) from error
        if not error.groupless:
            raise_for(error)
    return check_eviction(connection)
