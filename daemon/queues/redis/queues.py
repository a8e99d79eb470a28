"""The daemon's end of queues in Redis: the driver's process and its supervision, one connection after another, turns
out, and what is heard to whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
import structlog
import trio

from daemon.drivers.framing import Frame, frame
from daemon.drivers.lane import Lane
from daemon.drivers.process import NotStarted, end, spawn
from daemon.links.faults import ExchangeAway, ExchangeUnusable
from daemon.links.redis.frames import Layout
from daemon.links.redis.keys import prefix_of
from daemon.queues.interface import Ask, Depth, Heard, Notice, PartitionQueues, TaskQueues, Terms, Told
from daemon.queues.redis import frames, script
from daemon.queues.redis.host import BLOCK_SECONDS
from enginekit.messages.links import QueueKey

DriverLane: TypeAlias = Lane[frames.Reply]

_DRIVER_SECONDS: Final = 10.0
"""How much longer than Redis may take the driver may take."""
_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_LIMIT_SECONDS: Final = 1.0
_MEMORY_SECONDS: Final = 0.5
"""How often a Redis whose memory is full is tried again."""
_SILENCE_SECONDS: Final = 30.0
"""While Redis is away for one and the same reason, it is said again so often."""

_log = structlog.get_logger("queues")
_replies: msgspec.msgpack.Decoder[frames.Reply] = msgspec.msgpack.Decoder(frames.Reply)


class RedisTaskQueues(TaskQueues):
    """`member` names this process among those that share the queues; `name` is the cluster's.

    `run` raises ExchangeUnusable for a Redis that another cluster uses under the same name, one that is too old or
    evicts, or one that does not let this user in. One that cannot be reached is waited for.
    """

    def __init__(
        self,
        url: str,
        *,
        member: str,
        terms: Terms,
        partitions: int,
        name: str = "engine",
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        call_timeout_seconds: float = 5.0,
    ) -> None:
        prefix = prefix_of(name)
        self._layout = Layout(None, None, partitions)
        self._open: Callable[[Layout], frames.Open] = lambda layout: frames.Open(
            url=url,
            password=password,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            prefix=prefix,
            layout=layout,
            timeout_seconds=call_timeout_seconds,
        )
        self._call_timeout = call_timeout_seconds
        self._parts = [RedisPartition(self, f"{prefix}:queue:{number}", terms, member) for number in range(partitions)]
        self._lane: DriverLane | None = None
        self._found = trio.Event()
        self._reconnect = trio.Event()
        self._started = False
        self._failure: ExchangeUnusable | None = None
        self._driver: trio.Process | None = None
        self._said = ("", "")
        self._say_again_at = 0.0
        self.turns = 0
        """How many were taken."""

    def partition(self, number: int) -> RedisPartition:
        return self._parts[number]

    def belongs_to(self, cluster: str | None) -> None:
        self._layout = msgspec.structs.replace(self._layout, cluster=cluster)

    @property
    def ready(self) -> bool:
        return self._lane is not None

    @property
    def driver_pid(self) -> int | None:
        """The driver process, while there is one."""
        return None if self._driver is None else self._driver.pid

    # --- turns -------------------------------------------------------------------------------------------------------

    async def turn(self, key: str, ask: bytes) -> bytes | None:
        """What the script answers, None where Redis has no memory for it. Waits for Redis; asked again where its answer
        was lost."""
        request = frame(frames.Turn(key, ask))
        while True:
            lane = await self._connected()
            try:
                reply = await self._ask(lane, bytearray(request), self._call_timeout)
            except ExchangeAway:
                await trio.sleep(_BACKOFF_SECONDS)
                continue
            match reply:
                case frames.Turned(told):
                    self.turns += 1
                    return told
                case frames.Full():
                    self._say(
                        "Redis's memory is full: queues wait",
                        "give it more (maxmemory), or let [queues] queue_tasks be less",
                    )
                    return None
                case frames.Unusable(message):
                    self._failure = ExchangeUnusable(message)
                    lane.close()
                case frames.Unavailable(message):
                    self._say("queues wait for Redis", message)
                    self._lost(lane)

    async def _connected(self) -> DriverLane:
        while self._lane is None:
            self._found = trio.Event()
            await self._found.wait()
        return self._lane

    def _lost(self, lane: DriverLane) -> None:
        """Have this connection made anew."""
        if self._lane is lane:
            self._lane = None
            self._reconnect.set()

    async def _ask(self, lane: DriverLane, request: bytearray, seconds: float) -> Frame:
        """Raises ExchangeAway when the driver is gone or does not answer."""
        reply: Frame | None = None
        with trio.move_on_after(seconds + _DRIVER_SECONDS):
            reply = await lane.ask(request)
        if reply is None:
            # Answers come in the order of the questions: a lane without one is of no use, and its driver neither.
            lane.close()
            raise ExchangeAway("the driver process does not answer")
        return reply

    # --- the driver's process ----------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """As `TaskQueues.run`. Raises ExchangeUnusable. No process is left behind."""
        pause = _BACKOFF_SECONDS
        while True:
            began = trio.current_time()
            try:
                await self._host(task_status)
            except NotStarted as failure:
                _log.warning("queues' driver could not be started", reason=str(failure), retry_seconds=pause)
            if self._failure is not None:
                raise self._failure
            _log.warning("queues' driver lost", retry_seconds=pause)
            await trio.sleep(pause)
            lasted = trio.current_time() - began > _BACKOFF_LIMIT_SECONDS * 5
            pause = _BACKOFF_SECONDS if lasted else min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def _host(self, task_status: trio.TaskStatus[None]) -> None:
        """One driver process, from its start to its loss. Raises NotStarted."""
        process, turns, notices = await spawn("daemon.queues.redis.host", _replies, ExchangeAway)
        self._driver = process
        try:
            async with trio.open_nursery() as nursery:
                for lane in (turns, notices):
                    nursery.start_soon(_serve, lane, nursery.cancel_scope)
                while await self._connect(turns):
                    self._reconnect = trio.Event()
                    self._lane = turns
                    self._found.set()
                    if not self._started:
                        self._started = True
                        task_status.started()
                    async with trio.open_nursery() as hearing:
                        hearing.start_soon(self._hear, notices, turns)
                        await self._reconnect.wait()
                        hearing.cancel_scope.cancel()
                nursery.cancel_scope.cancel()
        finally:
            self._lane = None
            self._driver = None
            turns.close()
            notices.close()
            await end(process)

    async def _connect(self, lane: DriverLane) -> bool:
        """Wait until Redis is there. False when it cannot be used, or the driver is gone."""
        pause = _BACKOFF_SECONDS
        while self._failure is None:
            try:
                reply = await self._ask(lane, frame(self._open(self._layout)), 4 * self._call_timeout)
            except ExchangeAway:
                return False
            match reply:
                case frames.Opened(now, warning):
                    for part in self._parts:
                        part.last = now
                    if warning is not None and not self._started:
                        _log.warning(warning)
                    if self._said[0]:
                        _log.info("queues have Redis again")
                        self._said = ("", "")
                    return True
                case frames.Unusable(message):
                    self._failure = ExchangeUnusable(message)
                    return False
                case frames.Unavailable(message):
                    self._say("queues wait for Redis", message)
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)
        return False

    async def _hear(self, lane: DriverLane, turns: DriverLane) -> None:
        """Until the connection is lost."""
        for part in self._parts:
            # What was said meanwhile was not heard.
            part.heard(Heard(woken=None, notices=[]))
        while True:
            request = frames.Hear([part.notices for part in self._parts], [part.last for part in self._parts])
            try:
                reply = await self._ask(lane, frame(request), BLOCK_SECONDS + self._call_timeout)
            except ExchangeAway:
                turns.close()
                return
            if not isinstance(reply, frames.Heard):
                if isinstance(reply, frames.Unusable):
                    self._failure = ExchangeUnusable(reply.message)
                self._lost(turns)
                return
            for part, stream in zip(self._parts, reply.streams, strict=True):
                part.last = stream.last
                if stream.entries:
                    part.heard(script.decode_heard(stream.entries))

    def _say(self, what: str, reason: str) -> None:
        """Once, and again after a while: what comes every second for the same reason is one line."""
        if (what, reason) != self._said or trio.current_time() >= self._say_again_at:
            _log.warning(what, reason=reason)
            self._said = (what, reason)
            self._say_again_at = trio.current_time() + _SILENCE_SECONDS


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
        """The id of its last entry that was heard."""

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


async def _serve(lane: DriverLane, host: trio.CancelScope) -> None:
    """A process that has lost one lane is of no use: the other goes with it."""
    await lane.serve()
    host.cancel()
