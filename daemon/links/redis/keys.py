"""The names in Redis. All of a cluster's begin with `engine:{NAME}`, braces included: Redis Cluster keeps what has the
same text in braces on one node."""

from __future__ import annotations

import re
from typing import Final

GROUP: Final = b"owner"
"""The consumer group of every stream."""

FIELD: Final = b"m"
"""The field of an entry that holds its envelope."""

CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def prefix_of(name: str) -> str:
    """Raises ValueError for what is no name of a cluster."""
    if not CLUSTER_NAME.match(name):
        raise ValueError(f"a cluster's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -, not {name!r}")
    return f"engine:{{{name}}}"


def history_key(prefix: str, shard: int) -> str:
    return f"{prefix}:history:{shard}"


def matching_key(prefix: str, partition: int) -> str:
    return f"{prefix}:matching:{partition}"


def worker_key(prefix: str, worker_id: str) -> str:
    return f"{prefix}:worker:{worker_id}"


def timer_key(prefix: str) -> str:
    return f"{prefix}:timer"


def replies_key(prefix: str, process: str) -> str:
    return f"{prefix}:replies:{process}"


def record_key(prefix: str, name: str) -> bytes:
    return f"{prefix}:{name}".encode()
