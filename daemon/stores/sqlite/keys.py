"""How ids and statuses stand in rows: what is written in every row of a million is written short.

A UUID in its usual form is its 16 bytes, which are in the same order as its text; any other id is its text. (`run_id`s
are UUIDs, see `daemon/journal/identity.py`; the store does not insist.) A `workflow_id` that is its run's own `run_id`,
as it is where the caller gave none, is NULL. Statuses are numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, TypeAlias

from enginekit.messages.links import RunRef
from enginekit.messages.status import ExecutionStatus

Key: TypeAlias = str | bytes

FIRST: Final[Key] = ""
"""Before every key there is."""

_LENGTH = 36
_DASHES = (8, 13, 18, 23)

NUMBERS: Final = {
    ExecutionStatus.RUNNING: 0,
    ExecutionStatus.SUCCEEDED: 1,
    ExecutionStatus.FAILED: 2,
    ExecutionStatus.TIMED_OUT: 3,
    ExecutionStatus.CANCELED: 4,
    ExecutionStatus.TERMINATED: 5,
}
STATUSES: Final = {number: status for status, number in NUMBERS.items()}


@lru_cache(maxsize=16384)
def packed(name: str) -> Key:
    """The key of an id."""
    if len(name) == _LENGTH and all(name[place] == "-" for place in _DASHES):
        try:
            key = bytes.fromhex(name.replace("-", ""))
        except ValueError:
            return name
        if unpacked(key) == name:
            return key
    return name


def unpacked(key: Key) -> str:
    """The id of a key."""
    if isinstance(key, str):
        return key
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def workflow_key(run: RunRef) -> Key | None:
    """What the column `workflow_id` of a run has."""
    return None if run.workflow_id == run.run_id else packed(run.workflow_id)


def run_ref(tenant: str, workflow_id: Key | None, run_id: Key) -> RunRef:
    """The run of a row's columns."""
    name = unpacked(run_id)
    return RunRef(tenant, name if workflow_id is None else unpacked(workflow_id), name)
