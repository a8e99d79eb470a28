"""What names in Redis begin with. All of a cluster's begin with `engine:{NAME}`, braces included: Redis Cluster keeps
what has the same text in braces on one node."""

from __future__ import annotations

import re
from typing import Final

CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def prefix_of(name: str) -> str:
    """Raises ValueError for what is no name of a cluster."""
    if not CLUSTER_NAME.match(name):
        raise ValueError(f"a cluster's name has 1 to 64 of the characters A-Z a-z 0-9 . _ -, not {name!r}")
    return f"engine:{{{name}}}"


def record_key(prefix: str, name: str) -> bytes:
    return f"{prefix}:{name}".encode()
