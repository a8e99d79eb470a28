"""What the shop performed, on disk before anybody is told of it.

One JSON line an entry, keyed by the `Idempotency-Key` it was asked for with: the same key again performs nothing and
gets the answer that is in the book. Entries wait for one fsync together. Nothing here knows of HTTP or of faults.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import trio


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Something the shop did. `kind` is the service's name, `amount_cents` what was charged."""

    key: str
    kind: str
    order: str
    answer: dict[str, str | int]
    amount_cents: int = 0
    sku: str = ""


class LedgerDamaged(Exception):
    """The file is not a ledger. The message names the line."""


class Ledger:
    """The book in `path`, read back when it is there already.

    Raises LedgerDamaged. A last line that was cut off by a crash was never acknowledged and is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.entries: dict[str, Entry] = {}
        self.repeats: dict[str, int] = {}
        self._durable: dict[str, trio.Event] = {}
        self._queue: list[Entry] = []
        self._wake = trio.Event()
        self._read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; what is being written then is finished first."""
        task_status.started()
        try:
            while True:
                self._wake = trio.Event()
                if not self._queue:
                    await self._wake.wait()
                batch, self._queue = self._queue, []
                lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in batch)
                await trio.to_thread.run_sync(self._write, lines)
                for entry in batch:
                    self._durable.pop(entry.key).set()
        finally:
            os.close(self._file)

    async def perform(self, entry: Entry) -> Entry:
        """Enter it, or find what its key has already done; either way it is on disk on return. Cancelled: it is
        done nevertheless."""
        known = self.entries.get(entry.key)
        if known is None:
            known = self.entries[entry.key] = entry
            self._durable[entry.key] = trio.Event()
            self._queue.append(entry)
            self._wake.set()
        else:
            self.repeats[entry.key] = self.repeats.get(entry.key, 0) + 1
        durable = self._durable.get(entry.key)
        if durable is not None:
            await durable.wait()
        return known

    def of_order(self, order: str, kind: str) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.order == order and entry.kind == kind]

    def _write(self, lines: bytes) -> None:
        while lines:
            lines = lines[os.write(self._file, lines) :]
        os.fsync(self._file)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except msgspec.MsgspecError as error:
                raise LedgerDamaged(f"{path}, line {number}: {error}") from error
            self.entries[entry.key] = entry
