"""One process at a time: an advisory lock on a file beside the store's.

SQLite would let two daemons write in turn, each fencing the other. The lock goes with the process that holds it, so
nothing is left over after a kill; the file stays, and says in it whose it was.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from daemon.stores.faults import StoreUnusable

_PAUSE_SECONDS = 0.05


class ProcessLock:
    """Held from `take` until `release`, or until the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, store: Path, wait_seconds: float, still_wanted: Callable[[], bool]) -> ProcessLock:
        """Wait up to `wait_seconds` for whoever has it to finish: a driver whose daemon was killed has at most one
        batch to write.

        Raises StoreUnusable naming the process that has it, or when `still_wanted` says that nobody waits for us.
        """
        path = store.with_name(store.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_seconds
            while not _try_lock(descriptor):
                if not still_wanted():
                    raise StoreUnusable(
                        f"gave up waiting for the lock of {store}: nobody waits for this store any more"
                    )
                if time.monotonic() >= deadline:
                    owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                    raise StoreUnusable(
                        f"the store {store} is in use by process {owner or 'unknown'} (it holds {path}). One daemon at "
                        f"a time: stop the other one, or give this one another data folder"
                    )
                time.sleep(_PAUSE_SECONDS)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
