"""The names of streams in Redis; `daemon/redis/keys.py` has what they begin with."""

from __future__ import annotations

from typing import Final

GROUP: Final = b"owner"
"""The consumer group of every stream."""

FIELD: Final = b"m"
"""The field of an entry that holds its envelope."""


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
