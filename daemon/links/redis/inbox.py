"""A link whose inbox is a stream: what is sent goes to the post, what is received was read ahead.

The inbox is read while it has a receiver. One that was cancelled, or has not come back from its work for a while, is
none: the stream is left to whoever receives there next, here or elsewhere, with all that was not dealt with.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeVar, cast

import structlog
import trio
from trio.lowlevel import ParkingLot

from daemon.links.interface import Caller, Link, Request
from daemon.links.redis.envelope import (
    REFUSED,
    Envelope,
    Unreadable,
    decode_body,
    encode_body,
    encode_refused,
    unseal,
)
from daemon.links.redis.frames import Entry
from daemon.links.redis.post import Letter, Post, Stream, Waiter
from enginekit.messages.calls import Call, Result
from enginekit.messages.links import Message
from enginekit.messages.status import ErrorStatus, Refused

M = TypeVar("M")
R = TypeVar("R", bound=Result)

RETRY_AFTER_SECONDS: Final = 0.5
"""What a caller is told who finds no room."""
READ_AHEAD: Final = 512
READ_AHEAD_BYTES: Final = 8 * 1024 * 1024
"""While so much waits here the stream is not read."""
BUSY_SECONDS: Final = 2.0
"""A receiver that has not come back for so long, while it is at work with what it was given, counts as gone."""
CANCELLED_SECONDS: Final = 0.2
"""... and one whose `receive` was cancelled: it may have had enough, or only have looked at the clock."""
TRANSIENT_MS: Final = 3_600_000
"""How long the stream of a process that may never come back stays after the last that was sent there."""
REPLIES_BOUND: Final = 65_536

_log = structlog.get_logger("links")


def reply_stream(key: str) -> Stream:
    return Stream(key, 0, REPLIES_BOUND, TRANSIENT_MS)


class RedisRequest(Request):
    """A request whose caller waits in another process."""

    __slots__ = ("_ended", "_number", "_post", "_reply_to")

    def __init__(self, caller: Caller, call: Call, deadline: float, *, post: Post, reply_to: str, number: int) -> None:
        super().__init__(caller, call, deadline)
        self._post = post
        self._reply_to = reply_to
        self._number = number
        self._ended = False

    def answer(self, result: Result) -> None:
        if not self._ended:
            self._end(type(result).__name__, encode_body(result))

    def refuse(self, refused: Refused) -> None:
        if not self._ended:
            self._end(REFUSED, encode_refused(refused))

    def _end(self, kind: str, body: bytes) -> None:
        self._ended = True
        answer = Letter(reply_stream(self._reply_to), kind, body, self.deadline)
        answer.answers = self._number
        self._post.put_answer(answer)


class RedisLink(Link[M]):
    """`name` is the receiving service's, for the messages of refusals. `shared`: it has several receivers."""

    def __init__(self, name: str, stream: Stream, post: Post, *, shared: bool) -> None:
        self._name = name
        self._post = post
        self._receivers = ParkingLot()
        self._local: deque[tuple[str, bytes, float]] = deque()
        """Read ahead: entries' ids, envelopes, and when they were made, in `trio.current_time()`."""
        self._local_bytes = 0
        self._handed: list[str] = []
        self._held: set[str] = set()
        """Entries that are in this process: read ahead, handed out, or dealt with and Redis not told."""
        self.stream = stream
        self.shared = shared
        self.subscription = 0
        """Counts up with each beginning and end; an even number is none."""
        self.fresh = False

    @property
    def wants_more(self) -> bool:
        return self._subscribed and len(self._local) < READ_AHEAD and self._local_bytes < READ_AHEAD_BYTES

    @property
    def _subscribed(self) -> bool:
        return bool(self.subscription % 2)

    # --- sending -----------------------------------------------------------------------------------------------------

    def offer(self, message: M) -> bool:
        if not self._has_room():
            return False
        self._post.put(self._letter(message))
        return True

    async def send(self, message: M) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.offer(message):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        await self._post.put_later(self._letter(message))

    async def request(self, caller: Caller, call: Call, result: type[R], timeout: float) -> R:
        """As `Link.request`. Raises TypeError when the service answers with another type than `result`."""
        if not self._has_room():
            await trio.lowlevel.checkpoint()
            raise Refused(
                ErrorStatus.RESOURCE_EXHAUSTED,
                f"{self._name} has more waiting than it takes in at once; try again",
                {"retry_after_seconds": RETRY_AFTER_SECONDS},
            )
        deadline = trio.current_time() + timeout
        letter = Letter(self.stream, type(call).__name__, encode_body(call), deadline)
        letter.reply_to = self._post.replies.key
        letter.tenant, letter.subject = caller.tenant, caller.subject
        number = self._post.put(letter)
        waiter = self._post.waiters[number] = Waiter()
        outcome: Result | Refused | None = None
        try:
            with trio.CancelScope(deadline=deadline):
                outcome = await waiter.outcome()
        finally:
            del self._post.waiters[number]
            self._post.forget(number)
        if isinstance(outcome, result):
            return outcome
        if outcome is None:
            raise Refused(
                ErrorStatus.UNAVAILABLE, f"{self._name} did not answer {type(call).__name__} within {timeout:g} s"
            )
        if isinstance(outcome, Refused):
            raise outcome
        raise TypeError(
            f"{self._name} answered {type(call).__name__} with {type(outcome).__name__}, not {result.__name__}"
        )

    def _has_room(self) -> bool:
        return self._post.has_room(self.stream) and not self._post.somebody_waits(self.stream)

    def _letter(self, message: M) -> Letter:
        # `M` is a union of messages, which a type variable cannot say.
        return Letter(self.stream, type(message).__name__, encode_body(cast(Message, message)))

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def receive(self, limit: int = 256) -> list[M | Request]:
        self._settle_handed()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._subscribe()
        taken = self._take(limit)
        if taken:
            await trio.lowlevel.cancel_shielded_checkpoint()
        # No checkpoint stands between waking up and returning, so a cancelled receive has taken nothing.
        while not taken:
            await self._park()
            taken = self._take(limit)
        self._post.left(self, trio.current_time() + BUSY_SECONDS)
        return taken

    async def _park(self) -> None:
        woken = False
        try:
            await self._receivers.park()
            woken = True
        finally:
            if not woken and not self._receivers:
                self._post.left(self, trio.current_time() + CANCELLED_SECONDS)

    def arrived(self, entries: list[Entry], now_ms: int) -> None:
        """What was read. Left where it is, when nobody receives here any more."""
        if not self._subscribed:
            return
        now = trio.current_time()
        for entry in entries:
            if entry.id in self._held:
                continue
            self._held.add(entry.id)
            made = now - (now_ms - int(entry.id.partition("-")[0])) / 1000
            self._local.append((entry.id, entry.envelope, made))
            self._local_bytes += len(entry.envelope)
        if self._local and self._receivers:
            self._receivers.unpark()

    def told(self, ids: list[str]) -> None:
        """Redis knows that these have been dealt with."""
        self._held.difference_update(ids)

    def leave(self) -> None:
        """Receive here no more: what was not dealt with stays pending in the stream, for whoever comes next."""
        self._post.came(self)
        if not self._subscribed:
            return
        self.subscription += 1
        del self._post.inboxes[self.stream.key]
        self._post.backlogs.pop(self.stream.key, None)
        self._local.clear()
        self._local_bytes = 0
        self._handed.clear()
        self._held.clear()
        self._post.read_again(self.stream.key, wanted=False)

    def _subscribe(self) -> None:
        self._post.came(self)
        if not self._subscribed:
            self.subscription += 1
            self.fresh = True
            self._post.inboxes[self.stream.key] = self
        if self.wants_more:
            self._post.read_again(self.stream.key, wanted=True)

    def _settle_handed(self) -> None:
        if self._handed:
            self._post.settle(self.stream.key, self._handed)
            self._handed = []

    def _take(self, limit: int) -> list[M | Request]:
        taken: list[M | Request] = []
        useless: list[str] = []
        while self._local and len(taken) < limit:
            entry_id, data, made = self._local.popleft()
            self._local_bytes -= len(data)
            item = self._opened(data, made)
            if item is None:
                useless.append(entry_id)
            else:
                taken.append(item)
                self._handed.append(entry_id)
        self._post.received += len(taken)
        if useless:
            self._post.settle(self.stream.key, useless)
        if self.wants_more:
            self._post.read_again(self.stream.key, wanted=True)
        return taken

    def _opened(self, data: bytes, made: float) -> M | Request | None:
        """The message or request, unless it is a repeat, too late, or of no known kind."""
        try:
            envelope = unseal(data)
        except Unreadable as unreadable:
            _log.warning("a message was passed over", link=self._name, reason=str(unreadable))
            return None
        deadline = None if envelope.live_ms is None else made + envelope.live_ms / 1000
        if deadline is not None and deadline <= trio.current_time():
            return None
        if not self._post.seen.first(envelope.sender, envelope.number):
            self._post.repeated += 1
            return None
        try:
            body = decode_body(envelope.kind, envelope.body)
        except Unreadable as unreadable:
            _log.warning("a message was passed over", link=self._name, reason=str(unreadable))
            if deadline is not None:
                self._refuse_unread(envelope, deadline, str(unreadable))
            return None
        if deadline is None:
            return cast(M, body) if isinstance(body, Message) else None
        if not isinstance(body, Call) or envelope.reply_to is None:
            return None
        caller = Caller(tenant=envelope.tenant or "", subject=envelope.subject)
        return RedisRequest(caller, body, deadline, post=self._post, reply_to=envelope.reply_to, number=envelope.number)

    def _refuse_unread(self, envelope: Envelope, deadline: float, reason: str) -> None:
        if envelope.reply_to is None:
            return
        refused = Refused(
            ErrorStatus.UNAVAILABLE, f"{self._name} is of another version than its caller, and was sent {reason}"
        )
        answer = Letter(reply_stream(envelope.reply_to), REFUSED, encode_refused(refused), deadline)
        answer.answers = envelope.number
        self._post.put_answer(answer)
