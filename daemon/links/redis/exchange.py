"""The exchange over Redis: its links, the driver's process and its supervision, and one connection after another."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from daemon.drivers.process import NotStarted, end, spawn
from daemon.links.counting import InboxCount, LinkCounts
from daemon.links.exchange import (
    HISTORY_CAPACITY,
    MATCHING_CAPACITY,
    TIMER_CAPACITY,
    WORKER_CAPACITY,
    Exchange,
    Heard,
)
from daemon.links.faults import ExchangeAway, ExchangeUnusable
from daemon.links.interface import Link
from daemon.links.redis import frames
from daemon.links.redis.carrier import Carrier, DriverLane, ask
from daemon.links.redis.frames import Layout
from daemon.links.redis.inbox import TRANSIENT_MS, RedisLink, reply_stream
from daemon.links.redis.keys import history_key, matching_key, prefix_of, replies_key, timer_key, worker_key
from daemon.links.redis.post import Post, Stream
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker

_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_LIMIT_SECONDS: Final = 1.0
_SETTLED_SECONDS: Final = 5.0
"""A connection or a driver that lasted so long owes its end to something new: the pause starts small again."""
_SILENCE_SECONDS: Final = 30.0
"""While Redis is away for one and the same reason, it is said again so often."""
_LAYOUT_SECONDS: Final = 0.5
_WORKERS: Final = 4096
"""Links to Workers that are kept."""

_log = structlog.get_logger("links")
_replies: msgspec.msgpack.Decoder[frames.Reply] = msgspec.msgpack.Decoder(frames.Reply)


class RedisExchange(Exchange):
    """`process` names this process among its cluster's, whose name is `name`.

    `cluster` is the id of the store, `shards` and `partitions` how many there are: None where this process does not
    know (it has no store); `layout` tells then. `queues` says where task queues are; unless that is "memory", all
    Matchings receive from every partition's inbox. A Redis that another cluster uses under the same name, or with
    others of these, makes `run` raise ExchangeUnusable, as does one that is too old, evicts, or does not let this user
    in. One that cannot be reached is waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        process: str,
        name: str = "engine",
        cluster: str | None = None,
        shards: int | None = None,
        partitions: int | None = None,
        queues: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        call_timeout_seconds: float = 5.0,
    ) -> None:
        self._prefix = prefix_of(name)
        self._layout = Layout(cluster, shards, partitions, queues)
        self._shared_queues = queues not in (None, "memory")
        # A process that comes back under its old name must get nothing that was meant for the one before it.
        incarnation = secrets.token_bytes(8)
        self._process = f"{process}.{incarnation.hex()}"
        self._post = Post(incarnation, reply_stream(replies_key(self._prefix, self._process)))
        self._open: Callable[[str, Layout], frames.Open] = lambda consumer, layout: frames.Open(
            url=url,
            password=password,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            prefix=self._prefix,
            consumer=consumer,
            replies=self._post.replies.key,
            layout=layout,
            timeout_seconds=call_timeout_seconds,
        )
        self._call_timeout = call_timeout_seconds
        self._carrier = Carrier(self._post, call_timeout_seconds)
        self._history: dict[int, RedisLink[ToHistory]] = {}
        self._matching: dict[int, RedisLink[ToMatching]] = {}
        self._workers: dict[str, RedisLink[ToWorker]] = {}
        self._timer: RedisLink[ToTimer] = RedisLink(
            "Timer", _stream(timer_key(self._prefix), TIMER_CAPACITY), self._post, shared=True
        )
        self._mute = False
        self._tries = 0
        self._opened = 0
        self._lane: DriverLane | None = None
        self._driver: trio.Process | None = None
        self._failure: ExchangeUnusable | None = None
        self._said = ("", "")
        self._say_again_at = 0.0

    # --- the links ---------------------------------------------------------------------------------------------------

    def history(self, shard: int) -> Link[ToHistory]:
        if shard not in self._history:
            stream = _stream(history_key(self._prefix, shard), HISTORY_CAPACITY)
            self._history[shard] = RedisLink("History", stream, self._post, shared=False)
        return self._history[shard]

    def matching(self, partition: int) -> Link[ToMatching]:
        if partition not in self._matching:
            stream = _stream(matching_key(self._prefix, partition), MATCHING_CAPACITY)
            self._matching[partition] = RedisLink("Matching", stream, self._post, shared=self._shared_queues)
        return self._matching[partition]

    def worker(self, worker_id: str) -> Link[ToWorker]:
        if worker_id not in self._workers:
            stream = _stream(worker_key(self._prefix, worker_id), WORKER_CAPACITY, TRANSIENT_MS)
            self._workers[worker_id] = RedisLink("Worker", stream, self._post, shared=False)
            if len(self._workers) > _WORKERS:
                # Workers come and go. One whose link is asked for again gets a new one, as good as the old.
                del self._workers[next(iter(self._workers))]
        return self._workers[worker_id]

    @property
    def timer(self) -> Link[ToTimer]:
        return self._timer

    def belongs_to(self, cluster: str | None) -> None:
        self._layout = msgspec.structs.replace(self._layout, cluster=cluster)

    # --- what there is to know ---------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._lane is not None

    @property
    def driver_pid(self) -> int | None:
        """The driver process, while there is one."""
        return None if self._driver is None else self._driver.pid

    @property
    def reconnects(self) -> int:
        return max(self._opened - 1, 0)

    def counts(self) -> LinkCounts:
        post = self._post
        inboxes: dict[str, tuple[int, int]] = {}
        for key in (*post.inboxes, post.replies.key):
            if (seen := post.backlogs.get(key)) is not None:
                # A Worker that starts again has two for a moment.
                lag, pending = inboxes.get(self._inbox(key), (0, 0))
                inboxes[self._inbox(key)] = lag + max(seen.length - seen.pending, 0), pending + seen.pending
        return LinkCounts(
            connected=self.ready,
            sent=post.sent,
            batches=post.batches,
            received=post.received,
            claimed=post.claimed,
            repeated=post.repeated,
            trimmed=post.trimmed,
            dropped=post.dropped,
            reconnects=self.reconnects,
            waiting=self._carrier.waiting,
            inboxes=[InboxCount(name, lag, pending) for name, (lag, pending) in inboxes.items()],
        )

    def _inbox(self, key: str) -> str:
        """Its name, without that of a process or a Worker: there is one of those here."""
        name = key.removeprefix(f"{self._prefix}:")
        kind = name.partition(":")[0]
        return kind if kind in ("worker", "replies") else name

    async def call_out(self, process: str, said: bytes, forget: list[str], *, listen: bool) -> list[Heard]:
        if self._lane is None:
            await trio.lowlevel.checkpoint()
            raise ExchangeAway("not connected")
        reply = await ask(self._lane, frames.CallOut(process, said, forget, listen), self._call_timeout)
        if not isinstance(reply, frames.Answered):
            raise ExchangeAway(reply.message if isinstance(reply, frames.Unavailable) else "an answer out of turn")
        if reply.refused is not None and not self._mute:
            self._mute = True
            _log.warning(
                "processes cannot tell of one another: give this user of Redis the commands of docs/links.md",
                reason=reply.refused,
            )
        return [Heard(each.process, each.milliseconds_ago / 1000, each.said) for each in reply.said]

    async def layout(self) -> tuple[int, int]:
        """How many shards and partitions the cluster has: waits until a process that knows has been there.

        Raises ExchangeUnusable. Needs `run`.
        """
        while self._layout.shards is None or self._layout.partitions is None:
            if self._lane is not None and await self._look_up(self._lane):
                continue
            await trio.sleep(_LAYOUT_SECONDS)
        await trio.lowlevel.checkpoint()
        return self._layout.shards, self._layout.partitions

    async def _look_up(self, lane: DriverLane) -> bool:
        """Whether all is known now."""
        try:
            reply = await ask(lane, frames.LookUp(), self._call_timeout)
        except ExchangeAway:
            return False
        if isinstance(reply, frames.Opened):
            self._layout = reply.layout
        return self._layout.shards is not None and self._layout.partitions is not None

    # --- the driver's process ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Exchange.run`. Raises ExchangeUnusable.

        Cancelled, it sends what waits to leave if that takes no longer than a second; no process is left behind.
        """
        pause = _BACKOFF_SECONDS
        while True:
            began = trio.current_time()
            try:
                await self._host(task_status if self._opened == 0 else trio.TASK_STATUS_IGNORED)
            except NotStarted as failure:
                if self._opened == 0:
                    raise ExchangeUnusable(f"the links' driver process could not be started: {failure}") from failure
                _log.warning("links' driver could not be started", reason=str(failure), retry_seconds=pause)
            else:
                _log.warning("links' driver lost", retry_seconds=pause)
            if trio.current_time() - began > _SETTLED_SECONDS:
                pause = _BACKOFF_SECONDS
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def _host(self, task_status: trio.TaskStatus[None]) -> None:
        """One driver process, from its start to its loss. Raises NotStarted and ExchangeUnusable."""
        process, writes, reads = await spawn("daemon.links.redis.host", _replies, ExchangeAway)
        self._driver = process
        self._failure = None
        try:
            async with trio.open_nursery() as nursery:
                # The lanes outlive a cancellation, for what is sent at the end.
                lanes = [trio.CancelScope(shield=True) for _ in range(2)]
                with trio.CancelScope() as carrying:
                    for lane, scope in zip((writes, reads), lanes, strict=True):
                        nursery.start_soon(_serve, lane, scope, carrying)
                    try:
                        await self._carry(writes, reads, task_status)
                    finally:
                        if self._lane is not None:
                            await self._carrier.finish(writes)
                        for scope in lanes:
                            scope.cancel()
        finally:
            self._lane = None
            self._driver = None
            writes.close()
            reads.close()
            await end(process)
        if self._failure is not None:
            raise self._failure

    async def _carry(self, writes: DriverLane, reads: DriverLane, task_status: trio.TaskStatus[None]) -> None:
        """One connection after the other, until Redis cannot be used."""
        pause = _BACKOFF_SECONDS
        while await self._connect(writes):
            if self._opened == 1:
                task_status.started()
            began = trio.current_time()
            self._carrier.begin()
            self._lane = writes
            async with trio.open_nursery() as nursery:
                for carry in (partial(self._carrier.send, writes), partial(self._carrier.receive, reads)):
                    nursery.start_soon(self._until_away, carry, nursery.cancel_scope)
                nursery.start_soon(self._carrier.watch_receivers)
            self._lane = None
            if self._failure is not None:
                return
            pause = _BACKOFF_SECONDS if trio.current_time() - began > _SETTLED_SECONDS else pause
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def _until_away(self, carry: Callable[[], Awaitable[None]], connection: trio.CancelScope) -> None:
        try:
            await carry()
        except ExchangeAway as away:
            self._say("Redis is lost", str(away))
        except ExchangeUnusable as unusable:
            self._failure = unusable
        connection.cancel()

    def _say(self, what: str, reason: str) -> None:
        """Once, and again after a while: what comes every second for the same reason is one line."""
        if (what, reason) != self._said or trio.current_time() >= self._say_again_at:
            _log.warning(what, reason=reason)
            self._said = (what, reason)
            self._say_again_at = trio.current_time() + _SILENCE_SECONDS

    async def _connect(self, lane: DriverLane) -> bool:
        """Wait until Redis is there. False when it cannot be used, or the driver is gone."""
        pause = _BACKOFF_SECONDS
        waited = False
        while True:
            self._tries += 1
            try:
                request = self._open(f"{self._process}.{self._tries}", self._layout)
                reply = await ask(lane, request, 4 * self._call_timeout)
            except ExchangeAway:
                return False
            except ExchangeUnusable as unusable:
                self._failure = unusable
                return False
            if isinstance(reply, frames.Opened):
                self._layout = reply.layout
                self._opened += 1
                if reply.warning is not None and self._opened == 1:
                    _log.warning(reply.warning)
                if waited or self._opened > 1:
                    _log.info("Redis is there")
                return True
            reason = reply.message if isinstance(reply, frames.Unavailable) else "its driver answered out of turn"
            waited = True
            self._say("links wait for Redis", reason)
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)


async def _serve(lane: DriverLane, scope: trio.CancelScope, carrying: trio.CancelScope) -> None:
    """A process that has lost one lane is of no use: the other goes with it."""
    with scope:
        await lane.serve()
    carrying.cancel()


def _stream(key: str, capacity: int, expire_ms: int = 0) -> Stream:
    return Stream(key, capacity, 2 * capacity, expire_ms)
