"""The daemon's end of queues in Redis: turns out, and what is heard to whom it concerns. `daemon/redis/driver.py` keeps
it connected."""

from __future__ import annotations

from functools import partial
from typing import Final, TypeAlias

import msgspec
import trio

from daemon.drivers.faults import ServerAway, ServerUnusable
from daemon.drivers.lane import Lane
from daemon.queues.counting import QueueCounts
from daemon.queues.interface import Ask, Depth, Heard, Notice, PartitionQueues, TaskQueues, Terms, Told
from daemon.queues.redis import frames, script
from daemon.redis.driver import RedisDriver, ask, out_of_turn
from daemon.redis.frames import BLOCK_SECONDS, Layout, Open, Opened, Server
from daemon.redis.keys import prefix_of
from enginekit.messages.links import QueueKey

DriverLane: TypeAlias = Lane[frames.Reply]

_MEMORY_SECONDS: Final = 0.5
"""How often a Redis whose memory is full is tried again."""

_replies: msgspec.msgpack.Decoder[frames.Reply] = msgspec.msgpack.Decoder(frames.Reply)


class RedisTaskQueues(TaskQueues):
    """`member` names this process among those that share the queues; `name` is the cluster's.

    `run` raises ServerUnusable for a Redis that another cluster uses under the same name, one that is too old or
    evicts, or one that does not let this user in. One that cannot be reached is waited for.
    """

    def __init__(
        self,
        server: Server,
        *,
        member: str,
        terms: Terms,
        partitions: int,
        name: str = "engine",
    ) -> None:
        self._server = server
        self._prefix = prefix_of(name)
        self._layout = Layout(None, None, partitions)
        self._parts = [
            RedisPartition(self, f"{self._prefix}:queue:{number}", terms, member) for number in range(partitions)
        ]
        self._driver = RedisDriver(
            "queues",
            "daemon.queues.redis.host",
            _replies,
            server,
            lost="queues wait for Redis",
            back="queues have Redis again",
            opening=lambda: Open(self._server, self._prefix, self._layout),
            opened=self._opened,
            carry=lambda _, notices: [partial(self._hear, notices)],
        )
        self.turns = 0
        """How many were taken."""
        self._away = 0
        self._full = 0

    def partition(self, number: int) -> RedisPartition:
        return self._parts[number]

    def belongs_to(self, cluster: str | None) -> None:
        self._layout = msgspec.structs.replace(self._layout, cluster=cluster)

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

    def counts(self) -> QueueCounts:
        return QueueCounts(
            connected=self.ready,
            turns=self.turns,
            away=self._away,
            full=self._full,
            reconnects=self.reconnects,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `TaskQueues.run`. Raises ServerUnusable. No process is left behind."""
        await self._driver.run(task_status=task_status)

    async def turn(self, key: str, asked: bytes) -> bytes | None:
        """What the script answers, None where Redis has no memory for it. Waits for Redis; asked again where its answer
        was lost."""
        driver = self._driver
        while True:
            lane = await driver.connected()
            try:
                reply = await ask(lane, frames.Turn(key, asked), self._server.timeout_seconds)
                if isinstance(reply, frames.Turned):
                    self.turns += 1
                    return reply.told
                if isinstance(reply, frames.Full):
                    self._full += 1
                    driver.say(
                        "Redis's memory is full: queues wait",
                        "give it more (maxmemory), or let [queues] queue_tasks be less",
                    )
                    return None
                raise out_of_turn()
            except ServerAway as away:
                self._away += 1
                driver.lost(lane, away)
            except ServerUnusable as unusable:
                driver.give_up(unusable)

    def _opened(self, _: Opened) -> None:
        for part in self._parts:
            part.last = ""

    async def _hear(self, lane: DriverLane) -> None:
        """Until the connection is lost. Raises ServerAway and ServerUnusable."""
        for part in self._parts:
            # What was said meanwhile was not heard.
            part.heard(Heard(woken=None, notices=[]))
        while True:
            request = frames.Hear([part.notices for part in self._parts], [part.last for part in self._parts])
            reply = await ask(lane, request, BLOCK_SECONDS + self._server.timeout_seconds)
            if not isinstance(reply, frames.Heard):
                raise out_of_turn()
            for part, stream in zip(self._parts, reply.streams, strict=True):
                part.last = stream.last
                if stream.entries:
                    part.heard(script.decode_heard(stream.entries))


class RedisPartition(PartitionQueues):
    def __init__(self, queues: RedisTaskQueues, key: str, terms: Terms, member: str) -> None:
        self._queues = queues
        self._key = key
        self._terms = terms
        self._member = member
        self._woken: dict[QueueKey, None] | None = {}
        self._notices: list[Notice] = []
        self._some = trio.Event()
        self.notices = f"{key}:notices"
        """The stream."""
        self.last = ""
        """The id of its last entry that was heard; empty: none since the connection was made."""

    async def turn(self, ask: Ask) -> Told:
        return script.decode(await self._turn(ask, depths=False))

    async def depths(self) -> list[Depth]:
        return script.decode_depths(await self._turn(Ask(), depths=True))

    async def _turn(self, ask: Ask, *, depths: bool) -> bytes:
        asked = script.encode(ask, self._terms, self._member, depths=depths)
        while (told := await self._queues.turn(self._key, asked)) is None:
            # What is over makes room.
            await self._queues.turn(self._key, script.encode(ask, self._terms, self._member, only_drop=True))
            await trio.sleep(_MEMORY_SECONDS)
        return told

    async def hear(self) -> Heard:
        await self._some.wait()
        self._some = trio.Event()
        woken, notices = self._woken, self._notices
        self._woken, self._notices = {}, []
        return Heard(woken=None if woken is None else list(woken), notices=notices)

    def heard(self, heard: Heard) -> None:
        if heard.woken is None:
            self._woken = None
        elif self._woken is not None:
            self._woken.update(dict.fromkeys(heard.woken))
        self._notices += heard.notices
        self._some.set()
