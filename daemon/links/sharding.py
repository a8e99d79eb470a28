"""Where things belong: the shard of an execution or a schedule, the partition of a task queue.

The same for ever and in every process: it follows from the names alone. A run_id tells its shard too (`daemon.journal.
identity` makes them so), since there are calls that name nothing else.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Final

from enginekit.messages.links import QueueKey, RunRef, ScheduleRef

CHILD: Final = "~"
"""What the workflow_id of a run that another run started begins with; no caller may give such a name."""

SUFFIX_DIGITS: Final = 4
"""The last hexadecimal digits of a run_id: a number that, modulo the shards there are, is the run's shard."""

_DIGITS: Final = frozenset("0123456789abcdef")


def shard_of(tenant: str, workflow_id: str, shards: int) -> int:
    """An execution's. A run that another one started is in that one's shard; one without a name of its own is named by
    its run_id, and in that one's."""
    if workflow_id.startswith(CHILD):
        return int(workflow_id[1:].partition(".")[0])
    if _like_run_id(workflow_id):
        return shard_of_run(workflow_id, shards)
    return _hashed(tenant, workflow_id, shards)


def shard_of_run(run_id: str, shards: int) -> int:
    """Raises ValueError for what is no run_id."""
    return int(run_id[-SUFFIX_DIGITS:], 16) % shards


def shard_of_schedule(schedule: ScheduleRef, shards: int) -> int:
    return _hashed(schedule.tenant, f"schedule {schedule.schedule_id}", shards)


def shard_of_request(tenant: str, request_id: str, shards: int) -> int:
    """Where an execution starts that its caller has not named: the same request again goes to the same shard."""
    return _hashed(tenant, f"request {request_id}", shards)


def shard_of_definition(tenant: str, name: str, shards: int) -> int:
    """Who registers the versions of a definition, one after the other."""
    return _hashed(tenant, f"definition {name}", shards)


def shard_of_tenant(tenant: str, shards: int) -> int:
    """Who answers what anybody could."""
    return _hashed(tenant, "", shards)


def partition_of(queue: QueueKey, partitions: int) -> int:
    return _hashed(queue.tenant, f"{queue.kind.value} {queue.name}", partitions)


def shard_of_ref(run: RunRef, shards: int) -> int:
    return shard_of(run.tenant, run.workflow_id, shards)


def owner_of(slot: int, members: Sequence[str]) -> str:
    """Which of the members that are there is to have a slot: the same for whoever asks, and one who comes or goes moves
    no more slots than it must (rendezvous hashing: Thaler and Ravishankar, 1998). There is one member at least."""
    return max(members, key=lambda member: (_weight(member, slot), member))


def _weight(member: str, slot: int) -> bytes:
    return hashlib.blake2b(f"{member}\n{slot}".encode(), digest_size=8).digest()


def _hashed(tenant: str, name: str, slots: int) -> int:
    return zlib.crc32(f"{tenant}\n{name}".encode()) % slots


def _like_run_id(name: str) -> bool:
    if len(name) != 36 or name[14] != "7" or not name[8] == name[13] == name[18] == name[23] == "-":
        return False
    return _DIGITS.issuperset(name[-SUFFIX_DIGITS:])
