"""The exchange over Redis: its links, and what there is to know of it. `daemon/redis/driver.py` keeps it connected."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Final

import msgspec
import structlog
import trio

from daemon.drivers.faults import ServerAway
from daemon.links.counting import InboxCount, LinkCounts
from daemon.links.exchange import (
    HISTORY_CAPACITY,
    MATCHING_CAPACITY,
    TIMER_CAPACITY,
    WORKER_CAPACITY,
    Exchange,
    Heard,
)
from daemon.links.interface import Link
from daemon.links.redis import frames
from daemon.links.redis.carrier import Carrier, DriverLane
from daemon.links.redis.inbox import TRANSIENT_MS, RedisLink, reply_stream
from daemon.links.redis.keys import history_key, matching_key, replies_key, timer_key, worker_key
from daemon.links.redis.post import Post, Stream
from daemon.redis.driver import Carry, RedisDriver, ask, out_of_turn
from daemon.redis.frames import Layout, Opened, Server
from daemon.redis.keys import prefix_of
from enginekit.messages.links import ToHistory, ToMatching, ToTimer, ToWorker

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
    others of these, makes `run` raise ServerUnusable, as does one that is too old, evicts, or does not let this user
    in. One that cannot be reached is waited for.
    """

    def __init__(
        self,
        server: Server,
        *,
        process: str,
        name: str = "engine",
        cluster: str | None = None,
        shards: int | None = None,
        partitions: int | None = None,
        queues: str | None = None,
    ) -> None:
        self._server = server
        self._prefix = prefix_of(name)
        self._layout = Layout(cluster, shards, partitions, queues)
        self._shared_queues = queues not in (None, "memory")
        # A process that comes back under its old name must get nothing that was meant for the one before it.
        incarnation = secrets.token_bytes(8)
        self._process = f"{process}.{incarnation.hex()}"
        self._post = Post(incarnation, reply_stream(replies_key(self._prefix, self._process)))
        self._carrier = Carrier(self._post, server.timeout_seconds)
        self._driver = RedisDriver(
            "links",
            "daemon.links.redis.host",
            _replies,
            server,
            lost="Redis is lost",
            back="Redis is there",
            opening=self._opening,
            opened=self._opened,
            carry=self._carry,
            finish=self._carrier.finish,
        )
        self._history: dict[int, RedisLink[ToHistory]] = {}
        self._matching: dict[int, RedisLink[ToMatching]] = {}
        self._workers: dict[str, RedisLink[ToWorker]] = {}
        self._timer: RedisLink[ToTimer] = RedisLink(
            "Timer", _stream(timer_key(self._prefix), TIMER_CAPACITY), self._post, shared=True
        )
        self._mute = False
        self._tries = 0

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
        return self._driver.calls is not None

    @property
    def driver_pid(self) -> int | None:
        """The driver process, while there is one."""
        return self._driver.pid

    @property
    def reconnects(self) -> int:
        return self._driver.reconnects

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
        if self._driver.calls is None:
            await trio.lowlevel.checkpoint()
            raise ServerAway("not connected")
        request = frames.CallOut(process, said, forget, listen)
        reply = await ask(self._driver.calls, request, self._server.timeout_seconds)
        if not isinstance(reply, frames.Answered):
            raise out_of_turn()
        if reply.refused is not None and not self._mute:
            self._mute = True
            _log.warning(
                "processes cannot tell of one another: give this user of Redis the commands of docs/links.md",
                reason=reply.refused,
            )
        return [Heard(each.process, each.milliseconds_ago / 1000, each.said) for each in reply.said]

    async def layout(self) -> tuple[int, int]:
        """How many shards and partitions the cluster has: waits until a process that knows has been there.

        Raises ServerUnusable. Needs `run`.
        """
        while self._layout.shards is None or self._layout.partitions is None:
            if self._driver.calls is not None and await self._look_up(self._driver.calls):
                continue
            await trio.sleep(_LAYOUT_SECONDS)
        await trio.lowlevel.checkpoint()
        return self._layout.shards, self._layout.partitions

    async def _look_up(self, lane: DriverLane) -> bool:
        """Whether all is known now."""
        try:
            reply = await ask(lane, frames.LookUp(), self._server.timeout_seconds)
        except ServerAway:
            return False
        if isinstance(reply, Opened):
            self._layout = reply.layout
        return self._layout.shards is not None and self._layout.partitions is not None

    # --- the driver --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `Exchange.run`. Raises ServerUnusable.

        Cancelled, it sends what waits to leave if that takes no longer than a second; no process is left behind.
        """
        await self._driver.run(task_status=task_status)

    def _opening(self) -> frames.Open:
        self._tries += 1
        return frames.Open(
            server=self._server,
            prefix=self._prefix,
            layout=self._layout,
            consumer=f"{self._process}.{self._tries}",
            replies=self._post.replies.key,
        )

    def _opened(self, opened: Opened) -> None:
        self._layout = opened.layout

    def _carry(self, writes: DriverLane, reads: DriverLane) -> list[Carry]:
        carrier = self._carrier
        carrier.begin()
        return [partial(carrier.send, writes), partial(carrier.receive, reads), carrier.watch_receivers]


def _stream(key: str, capacity: int, expire_ms: int = 0) -> Stream:
    return Stream(key, capacity, 2 * capacity, expire_ms)
