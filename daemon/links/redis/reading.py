"""The reading lane of the Redis driver: all of a process's inboxes in one blocking read, what is pending first.

A read blocks on the server, so that a message is there a network's way after it was sent; every few seconds it comes
back by itself, because a server that has vanished says nothing. What was given to a consumer that will never deal with
it (its process is dead, or is no longer the owner and does not know yet) is looked for when an inbox is fresh, soon
after that, and then more and more seldom.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.drivers.faults import ServerAway
from daemon.links.redis.frames import Arrivals, Backlog, Entry, Inbox, Receive, Received
from daemon.links.redis.keys import FIELD, GROUP
from daemon.redis.connection import Answer, CommandError, Connection, packed, raise_for
from daemon.redis.frames import BLOCK_SECONDS

_LOOK_SECONDS = 0.5
_LOOK_LIMIT_SECONDS = 8.0
_SHARED_IDLE_SECONDS = 10.0
"""An entry of a shared inbox that nobody has dealt with for so long belongs to a receiver that is dead."""
_FORGET_CONSUMER_MS = 600_000

_START = b"0-0"


class Reading:
    """One connection's reads. `regrouped` is called when groups had to be made again: Redis has lost what it had."""

    def __init__(self, connection: Connection, consumer: str, regrouped: Callable[[], object]) -> None:
        self._connection = connection
        self._consumer = consumer.encode()
        self._regrouped = regrouped
        self._claiming: dict[str, bytes] = {}
        """Inboxes whose pending entries are being taken over, and from which id on."""
        self._look_after = _LOOK_SECONDS
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._backlogs: list[Backlog] = []
        """Seen, and not told yet."""

    def receive(self, request: Receive) -> Received:
        """What has arrived; nothing, after a while. Raises ServerAway and ServerUnusable."""
        inboxes = request.inboxes
        try:
            fresh = [inbox for inbox in inboxes if inbox.fresh]
            if fresh:
                self._open(fresh)
            elif time.monotonic() >= self._look_at:
                self._look(inboxes)
            claimed = self._claim(inboxes, request.count)
            if claimed:
                taken = sum(len(arrivals.entries) for arrivals in claimed)
                return Received(self._now_ms(), claimed, taken, self._take_backlogs())
            return self._read(inboxes, request.count)
        except CommandError as error:
            if not error.groupless:
                raise_for(error)
            if not self._make_groups(inboxes):
                raise ServerAway("its memory is full, and has no room for the streams of links") from error
            self._regrouped()
            return Received(self._now_ms(), [])

    def _now_ms(self) -> int:
        return _milliseconds(self._connection.ask(b"TIME"))

    # --- new entries -------------------------------------------------------------------------------------------------

    def _read(self, inboxes: list[Inbox], count: int) -> Received:
        keys = [inbox.key.encode() for inbox in inboxes if inbox.key not in self._claiming]
        block = min(BLOCK_SECONDS, max(self._look_at - time.monotonic(), 0.001))
        read = packed(
            *(b"XREADGROUP", b"GROUP", GROUP, self._consumer, b"COUNT", b"%d" % count, b"BLOCK"),
            *(b"%d" % max(round(block * 1000), 1), b"STREAMS", *keys, *([b">"] * len(keys))),
        )
        streams, now = self._connection.run_all([read, packed(b"TIME")])
        arrivals = [Arrivals(key.decode(), _entries(entries)) for key, entries in streams or ()]
        return Received(_milliseconds(now), arrivals, 0, self._take_backlogs())

    def _take_backlogs(self) -> list[Backlog]:
        told, self._backlogs = self._backlogs, []
        return told

    # --- groups ------------------------------------------------------------------------------------------------------

    def _open(self, fresh: list[Inbox]) -> None:
        self._make_groups(fresh)
        self._forget_consumers(fresh)
        for inbox in fresh:
            self._claiming[inbox.key] = _START
        self._look_after = _LOOK_SECONDS
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def _make_groups(self, inboxes: list[Inbox]) -> bool:
        """False when there was no memory for them. They may be there."""
        # From the beginning: what was sent before there was an owner is for it.
        commands = [packed(b"XGROUP", b"CREATE", each.key.encode(), GROUP, b"0", b"MKSTREAM") for each in inboxes]
        commands += [
            packed(b"PEXPIRE", each.key.encode(), b"%d" % each.expire_ms) for each in inboxes if each.expire_ms
        ]
        made = True
        for answer in self._connection.run(commands):
            if not isinstance(answer, CommandError) or answer.code == "BUSYGROUP":
                continue
            if not answer.no_memory:
                raise_for(answer)
            made = False
        return made

    def _forget_consumers(self, inboxes: list[Inbox]) -> None:
        """Those of processes that are long gone and left nothing."""
        asked = self._connection.run_all([packed(b"XINFO", b"CONSUMERS", each.key.encode(), GROUP) for each in inboxes])
        gone = [
            packed(b"XGROUP", b"DELCONSUMER", inbox.key.encode(), GROUP, told[b"name"])
            for inbox, consumers in zip(inboxes, asked, strict=True)
            for told in (dict(zip(each[::2], each[1::2], strict=True)) for each in consumers)
            if told[b"pending"] == 0 and told[b"idle"] > _FORGET_CONSUMER_MS and told[b"name"] != self._consumer
        ]
        if gone:
            self._connection.run_all(gone)

    # --- pending entries ---------------------------------------------------------------------------------------------

    def _look(self, inboxes: list[Inbox]) -> None:
        """For what others have been given and not dealt with, and how much there is."""
        looked = [inbox for inbox in inboxes if inbox.key not in self._claiming]
        keys = [inbox.key.encode() for inbox in looked]
        answers = self._connection.run_all(
            [packed(b"XPENDING", key, GROUP) for key in keys] + [packed(b"XLEN", key) for key in keys]
        )
        asked, lengths = answers[: len(looked)], answers[len(looked) :]
        found = False
        self._backlogs = []
        for inbox, (pending, _, _, consumers), length in zip(looked, asked, lengths, strict=True):
            self._backlogs.append(Backlog(inbox.key, length, pending))
            if any(name != self._consumer for name, _ in consumers or ()):
                self._claiming[inbox.key] = _START
                found = found or not inbox.shared
        self._look_after = _LOOK_SECONDS if found else min(self._look_after * 2, _LOOK_LIMIT_SECONDS)
        self._look_at = time.monotonic() + self._look_after

    def _claim(self, inboxes: list[Inbox], count: int) -> list[Arrivals]:
        """A page of what is pending in each inbox that is being taken over."""
        claiming = [inbox for inbox in inboxes if inbox.key in self._claiming]
        if not claiming:
            return []
        commands = [
            packed(
                *(b"XAUTOCLAIM", inbox.key.encode(), GROUP, self._consumer),
                b"%d" % (round(_SHARED_IDLE_SECONDS * 1000) if inbox.shared else 0),
                *(self._claiming[inbox.key], b"COUNT", b"%d" % count),
            )
            for inbox in claiming
        ]
        arrivals = []
        for inbox, answer in zip(claiming, self._connection.run_all(commands), strict=True):
            cursor, entries = answer[0], answer[1]
            if cursor == _START:
                del self._claiming[inbox.key]
            else:
                self._claiming[inbox.key] = cursor
            found = _entries(entries)
            if found:
                arrivals.append(Arrivals(inbox.key, found))
        return arrivals


def _entries(entries: Answer) -> list[Entry]:
    """Redis 6.2 names entries that are no more as nothing at all."""
    return [Entry(entry[0].decode(), _envelope(entry[1])) for entry in entries or () if entry is not None]


def _envelope(fields: list[bytes] | None) -> bytes:
    if fields is not None:
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            if name == FIELD:
                return value
    return b""


def _milliseconds(answer: Answer) -> int:
    seconds, microseconds = answer
    return int(seconds) * 1000 + int(microseconds) // 1000
