"""What waits to leave this process for Redis, and who waits for what comes back. No I/O: `carrier.py` carries.

Everything here is bounded: letters in number and bytes (a refused offer says so), callers by their deadlines.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

import trio
from outcome import Value
from trio.lowlevel import Abort, RaiseCancelT, Task

from daemon.links.redis.envelope import VERSION, Envelope
from daemon.links.redis.frames import Backlog, Entry
from daemon.links.redis.seen import Seen
from enginekit.messages.calls import Result
from enginekit.messages.status import Refused

CAPACITY: Final = 8192
CAPACITY_BYTES: Final = 64 * 1024 * 1024
"""What may wait to leave. Answers find room up to twice that: they end a wait elsewhere."""
BATCH: Final = 1024
BATCH_BYTES: Final = 4 * 1024 * 1024
"""What leaves at once."""


class Stream:
    """Where letters go. `capacity` entries may wait there (0: any number): more is not offered. It is cut at `bound`,
    twice as many, for senders learn of each other late. `expire_ms`: see `frames.Parcel`."""

    __slots__ = ("bound", "capacity", "expire_ms", "full", "key")

    def __init__(self, key: str, capacity: int, bound: int, expire_ms: int = 0) -> None:
        self.key = key
        self.capacity = capacity
        self.bound = bound
        self.expire_ms = expire_ms
        self.full = False


class Letter:
    """One that waits to leave. After `deadline` (in `trio.current_time()`) nobody wants it any more."""

    __slots__ = ("answers", "body", "deadline", "kind", "number", "reply_to", "stream", "subject", "tenant")

    def __init__(self, stream: Stream, kind: str, body: bytes, deadline: float | None = None) -> None:
        self.number = 0
        self.stream = stream
        self.kind = kind
        self.body = body
        self.deadline = deadline
        self.reply_to: str | None = None
        self.tenant: str | None = None
        self.subject = ""
        self.answers: int | None = None

    def envelope(self, sender: bytes, now: float) -> Envelope:
        live_ms: int | None = None
        if self.reply_to is not None and self.deadline is not None:
            live_ms = max(round((self.deadline - now) * 1000), 1)
        return Envelope(
            version=VERSION,
            sender=sender,
            number=self.number,
            kind=self.kind,
            body=self.body,
            live_ms=live_ms,
            reply_to=self.reply_to,
            tenant=self.tenant,
            subject=self.subject,
            answers=self.answers,
        )


class Waiter:
    """Somebody who waits for an answer."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    def end(self, outcome: Result | Refused) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task, Value(outcome))

    async def outcome(self) -> Result | Refused:
        self._task = trio.lowlevel.current_task()

        def abort(_: RaiseCancelT) -> Abort:
            self._task = None
            return Abort.SUCCEEDED

        ended: Result | Refused = await trio.lowlevel.wait_task_rescheduled(abort)
        return ended


class Receiving(Protocol):
    """An inbox that this process may receive from; see `inbox.RedisLink`."""

    stream: Stream
    shared: bool
    subscription: int
    fresh: bool

    @property
    def wants_more(self) -> bool: ...

    def arrived(self, entries: list[Entry], now_ms: int) -> None: ...

    def told(self, ids: list[str]) -> None: ...

    def leave(self) -> None: ...


class Post:
    """`sender` and a letter's number name it for ever. `replies` is where answers to this process go."""

    def __init__(self, sender: bytes, replies: Stream) -> None:
        self.sender = sender
        self.replies = replies
        self.seen = Seen()
        self.waiters: dict[int, Waiter] = {}
        self.inboxes: dict[str, Receiving] = {}
        """Those that are received from here, by their streams."""
        self.full: dict[str, Stream] = {}
        """Streams in which too much waits."""
        self.reading: frozenset[str] | None = None
        """The streams that the read under way waits for; None: there is none."""
        self.nudge = False
        self.absent: dict[Receiving, float] = {}
        """Inboxes that are read and whose receivers are elsewhere, and when they count as gone."""
        self.somebody_left = trio.Event()
        self.work = trio.Event()
        self.idle = False
        """Whether whoever sends waits for anything at all to do."""
        self.sent = 0
        self.batches = 0
        self.received = 0
        self.claimed = 0
        self.repeated = 0
        self.trimmed = 0
        self.dropped = 0
        self.backlogs: dict[str, Backlog] = {}
        """Of streams that are received from here, as they were last seen."""
        self._settled: dict[str, list[str]] = {}
        self._numbers = 0
        self._letters: dict[int, Letter] = {}
        self._bytes = 0
        self._senders: OrderedDict[Task, Letter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def pending(self) -> bool:
        """Whether there is something to tell Redis."""
        return bool(self._letters or self._settled or self.nudge)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for it to be told."""
        return bool(self._letters or self.nudge)

    # --- in ----------------------------------------------------------------------------------------------------------

    def has_room(self, stream: Stream) -> bool:
        return not stream.full and len(self._letters) < CAPACITY and self._bytes < CAPACITY_BYTES

    def put(self, letter: Letter) -> int:
        """It leaves with the next batch; its number."""
        self._numbers += 1
        letter.number = self._numbers
        self._letters[letter.number] = letter
        self._bytes += len(letter.body)
        self.work.set()
        return letter.number

    def put_answer(self, letter: Letter) -> None:
        if len(self._letters) >= 2 * CAPACITY or self._bytes >= 2 * CAPACITY_BYTES:
            self.dropped += 1
            return
        self.put(letter)

    def forget(self, number: int) -> None:
        """Nobody wants it any more, if it is still here."""
        letter = self._letters.pop(number, None)
        if letter is not None:
            self._bytes -= len(letter.body)
            self.admit()

    async def put_later(self, letter: Letter) -> None:
        """Wait for room, in the order of those who wait. Cancelled: nothing was put."""
        task = trio.lowlevel.current_task()
        self._senders[task] = letter

        def abort(_: RaiseCancelT) -> Abort:
            del self._senders[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def somebody_waits(self, stream: Stream) -> bool:
        """For room there: nothing overtakes them."""
        return any(letter.stream is stream for letter in self._senders.values())

    def admit(self) -> None:
        """Whoever waits for room and finds it."""
        for task, letter in list(self._senders.items()):
            if self.has_room(letter.stream):
                del self._senders[task]
                self.put(letter)
                trio.lowlevel.reschedule(task)

    # --- out ---------------------------------------------------------------------------------------------------------

    def take(self) -> list[Letter]:
        """The next batch, without those that nobody wants any more."""
        now = trio.current_time()
        batch: list[Letter] = []
        gone: list[int] = []
        size = 0
        for number, letter in self._letters.items():
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                break
            gone.append(number)
            self._bytes -= len(letter.body)
            if letter.deadline is None or letter.deadline > now:
                batch.append(letter)
                size += len(letter.body)
        for number in gone:
            del self._letters[number]
        return batch

    def settle(self, key: str, ids: Iterable[str]) -> None:
        """These entries have been dealt with."""
        self._settled.setdefault(key, []).extend(ids)
        if self.idle:
            self.work.set()

    def take_settled(self) -> dict[str, list[str]]:
        settled, self._settled = self._settled, {}
        return settled

    def measured(self, stream: Stream, length: int) -> None:
        stream.full = 0 < stream.capacity <= length
        if stream.full:
            self.full[stream.key] = stream
        else:
            self.full.pop(stream.key, None)

    # --- receivers ---------------------------------------------------------------------------------------------------

    def read_again(self, key: str, *, wanted: bool) -> None:
        """The inboxes to read have changed: end a read under way that does not fit any more."""
        if self.reading is not None and (key in self.reading) is not wanted:
            self.nudge = True
            self.work.set()

    def left(self, inbox: Receiving, gone_at: float) -> None:
        self.absent[inbox] = gone_at
        self.somebody_left.set()

    def came(self, inbox: Receiving) -> None:
        self.absent.pop(inbox, None)
