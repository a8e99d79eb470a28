"""What carries between the post and Redis, over one connection: one task sends, one receives, one watches receivers.

Everything that gathers while a pipeline is under way goes into the next. What was under way when a connection was lost
is sent again over the next one under the numbers that it had, so that its receivers know it.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import structlog
import trio

from daemon.drivers.faults import ServerAway, ServerUnusable
from daemon.drivers.lane import Lane
from daemon.links.redis import frames
from daemon.links.redis.envelope import Unreadable, decode_answer, seal, unseal
from daemon.links.redis.post import Letter, Post, Stream
from daemon.redis.driver import ask, out_of_turn
from daemon.redis.frames import BLOCK_SECONDS
from enginekit.messages.status import ErrorStatus, Refused

DriverLane: TypeAlias = Lane[frames.Reply]

_FLUSH_SECONDS: Final = 1.0
"""At the end, how long what waits to leave may take."""
_MEASURE_SECONDS: Final = 0.1
"""How often a stream in which too much waits is measured."""
_COMPANY_SECONDS: Final = 0.02
"""How long it may take until Redis is told what has been dealt with, where there is nothing else to tell."""
_WATCH_SECONDS: Final = 0.1
"""How often receivers are looked at that are elsewhere."""
_MEMORY_SECONDS: Final = 0.2
"""How often a Redis whose memory is full is tried again."""
_READ_COUNT: Final = 256
_READ_BYTES: Final = 8 * 1024 * 1024
"""More than this in one read, and the next asks for less."""

_log = structlog.get_logger("links")


class Carrier:
    """Outlives connections: what is under way is kept here."""

    def __init__(self, post: Post, call_timeout_seconds: float) -> None:
        self._post = post
        self._call_timeout = call_timeout_seconds
        self._in_flight: list[Letter] = []
        self._settling: dict[str, list[str]] = {}
        self._short = False
        """Whether Redis has no memory for what is under way."""
        self._replies_fresh = True
        self._read_count = _READ_COUNT

    @property
    def waiting(self) -> int:
        """Letters that have not left, or of which that is not known."""
        return len(self._post) + len(self._in_flight)

    def begin(self) -> None:
        """There is a new connection: what the last one was given comes first."""
        self._replies_fresh = True
        self._post.backlogs.clear()
        for inbox in self._post.inboxes.values():
            inbox.fresh = True

    # --- sending -----------------------------------------------------------------------------------------------------

    @property
    def _pending(self) -> bool:
        return bool(self._in_flight or self._settling or self._post.pending)

    async def send(self, lane: DriverLane) -> None:
        """Until the connection is lost. Raises ServerAway and ServerUnusable."""
        post = self._post
        while True:
            if not self._pending:
                post.idle = True
                await self._wait_for_work(_MEASURE_SECONDS if post.full else math.inf)
                post.idle = False
            if not (self._in_flight or post.urgent or post.full):
                await self._wait_for_work(_COMPANY_SECONDS)
            await self._deliver(lane)

    async def _wait_for_work(self, seconds: float) -> None:
        self._post.work = trio.Event()
        with trio.move_on_after(seconds):
            await self._post.work.wait()

    async def finish(self, lane: DriverLane) -> None:
        """Send what waits to leave, if that takes no longer than a second."""
        with trio.move_on_after(_FLUSH_SECONDS, shield=True):
            try:
                while self._pending:
                    await self._deliver(lane)
            except (ServerAway, ServerUnusable) as failure:
                _log.warning("links ended before all was sent", reason=str(failure), messages=self.waiting)

    async def _deliver(self, lane: DriverLane) -> None:
        """One batch: the one whose outcome is unknown, or else a new one."""
        post = self._post
        if not self._in_flight:
            self._in_flight = post.take()
            post.admit()
        for key, ids in post.take_settled().items():
            self._settling.setdefault(key, []).extend(ids)
        now = trio.current_time()
        by_stream: dict[str, tuple[Stream, list[bytes]]] = {}
        for letter in self._in_flight:
            if letter.deadline is None or letter.deadline > now:
                _, envelopes = by_stream.setdefault(letter.stream.key, (letter.stream, []))
                envelopes.append(seal(letter.envelope(post.sender, now)))
        measured = [stream for key, stream in post.full.items() if key not in by_stream]
        nudge, post.nudge = post.nudge, False
        request = frames.Deliver(
            parcels=[
                frames.Parcel(key, stream.bound, stream.expire_ms, stream.capacity > 0, envelopes)
                for key, (stream, envelopes) in by_stream.items()
            ],
            settled=[frames.Settled(key, ids) for key, ids in self._settling.items()],
            measured=[stream.key for stream in measured],
            nudge=nudge,
        )
        reply = await ask(lane, request, self._call_timeout)
        if not isinstance(reply, frames.Delivered | frames.Full):
            raise out_of_turn()
        settled, self._settling = self._settling, {}
        for key, ids in settled.items():
            if (inbox := post.inboxes.get(key)) is not None:
                inbox.told(ids)
        if isinstance(reply, frames.Full):
            await self._pause_for_memory()
            return
        if self._short:
            self._short = False
            _log.info("Redis has room again")
        post.sent += len(self._in_flight)
        post.batches += bool(by_stream)
        self._in_flight = []
        streams = [*(stream for stream, _ in by_stream.values() if stream.capacity), *measured]
        for stream, length in zip(streams, reply.lengths, strict=True):
            post.measured(stream, length)
            if length >= stream.bound and stream.key in by_stream:
                post.trimmed += len(by_stream[stream.key][1])
        post.admit()

    async def _pause_for_memory(self) -> None:
        """What is under way stays, and is tried again: what others take out makes room."""
        if not self._short:
            self._short = True
            _log.error(
                "Redis's memory is full: messages wait. Give it more (maxmemory), or see what else is in it",
                messages=self.waiting,
            )
        await trio.sleep(_MEMORY_SECONDS)

    # --- receiving ---------------------------------------------------------------------------------------------------

    async def receive(self, lane: DriverLane) -> None:
        """Until the connection is lost. Raises ServerAway and ServerUnusable."""
        post = self._post
        while True:
            asked = [(inbox, inbox.subscription) for inbox in post.inboxes.values() if inbox.wants_more]
            request = frames.Receive(
                inboxes=[
                    frames.Inbox(post.replies.key, False, self._replies_fresh, post.replies.expire_ms),
                    *(
                        frames.Inbox(inbox.stream.key, inbox.shared, inbox.fresh, inbox.stream.expire_ms)
                        for inbox, _ in asked
                    ),
                ],
                count=self._read_count,
            )
            post.reading = frozenset(each.key for each in request.inboxes)
            try:
                reply = await ask(lane, request, BLOCK_SECONDS + self._call_timeout)
            finally:
                post.reading = None
            if not isinstance(reply, frames.Received):
                raise out_of_turn()
            self._replies_fresh = False
            for inbox, subscription in asked:
                if inbox.subscription == subscription:
                    inbox.fresh = False
            self._distribute(reply)
            post.claimed += reply.claimed
            post.backlogs.update({backlog.key: backlog for backlog in reply.backlogs})

    def _distribute(self, reply: frames.Received) -> None:
        size = 0
        for arrivals in reply.arrivals:
            size += sum(len(entry.envelope) for entry in arrivals.entries)
            if arrivals.key == self._post.replies.key:
                self._answered(arrivals.entries)
            elif (inbox := self._post.inboxes.get(arrivals.key)) is not None:
                inbox.arrived(arrivals.entries, reply.now_ms)
        if size > _READ_BYTES:
            self._read_count = max(self._read_count // 2, 1)
        elif self._read_count < _READ_COUNT and size < _READ_BYTES // 4:
            self._read_count *= 2

    def _answered(self, entries: list[frames.Entry]) -> None:
        """Answers to those who wait for them; those of nobody are dropped."""
        self._post.settle(self._post.replies.key, [entry.id for entry in entries])
        for entry in entries:
            if not entry.envelope:
                continue  # It was only there to end a read.
            try:
                envelope = unseal(entry.envelope)
            except Unreadable as unreadable:
                _log.warning("an answer was passed over", reason=str(unreadable))
                continue
            waiter = None if envelope.answers is None else self._post.waiters.get(envelope.answers)
            if waiter is None:
                continue
            try:
                outcome = decode_answer(envelope.kind, envelope.body)
            except Unreadable as unreadable:
                _log.warning("an answer was passed over", reason=str(unreadable))
                outcome = Refused(ErrorStatus.INTERNAL, f"it was answered with {unreadable}; it may have been done")
            waiter.end(outcome)

    async def watch_receivers(self) -> None:
        """Leave the inboxes whose receivers have gone."""
        post = self._post
        while True:
            if not post.absent:
                post.somebody_left = trio.Event()
                await post.somebody_left.wait()
            now = trio.current_time()
            for inbox in [inbox for inbox, gone_at in post.absent.items() if gone_at <= now]:
                inbox.leave()
            # Not until the first of them: who goes now may count as gone sooner.
            await trio.sleep(_WATCH_SECONDS)
