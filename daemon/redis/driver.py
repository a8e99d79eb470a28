"""A driver of Redis, from the daemon's side: its process and its supervision, one connection after another, and what is
said while Redis is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec
import structlog
import trio

from daemon.drivers.faults import DriverGone, ServerAway, ServerUnusable
from daemon.drivers.framing import Frame, frame
from daemon.drivers.lane import Lane
from daemon.drivers.process import NotStarted, end, spawn
from daemon.redis.frames import Open, Opened, Server, Unavailable, Unusable

_DRIVER_SECONDS: Final = 10.0
"""How much longer than Redis may take the driver may take."""
_BACKOFF_SECONDS: Final = 0.05
_BACKOFF_LIMIT_SECONDS: Final = 1.0
_SETTLED_SECONDS: Final = 5.0
"""A connection or a driver that lasted so long owes its end to something new: the pause starts small again."""
_SILENCE_SECONDS: Final = 30.0
"""While Redis is away for one and the same reason, it is said again so often."""

R = TypeVar("R", bound=Frame)

Carry: TypeAlias = Callable[[], Awaitable[None]]


async def ask(lane: Lane[R], request: Frame, seconds: float) -> R:
    """Raises DriverGone when the driver is gone or does not answer, ServerAway when Redis is, and ServerUnusable.

    Cancelled: it may be done.
    """
    reply: R | None = None
    with trio.move_on_after(seconds + _DRIVER_SECONDS):
        reply = await lane.ask(frame(request))
    if reply is None:
        # Answers come in the order of the questions: a lane without one is of no use, and its driver neither.
        lane.close()
        raise DriverGone("the driver process does not answer")
    if isinstance(reply, Unavailable):
        raise ServerAway(reply.message)
    if isinstance(reply, Unusable):
        raise ServerUnusable(reply.message)
    return reply


def out_of_turn() -> ServerAway:
    return ServerAway("its driver answered out of turn")


class RedisDriver(Generic[R]):
    """`what` it is for names it in the log, which tells with `lost` and `back` how Redis is; `module` is its process's,
    which answers `replies`.

    For each connection, `opening` makes the request; `opened` is told how it was answered; what `carry` gives for the
    lanes of calls and of reads runs until one of it raises ServerAway, or somebody says `lost`. `finish` is what is
    still to be done over a connection when `run` is cancelled: it bounds itself, and shields.
    """

    def __init__(
        self,
        what: str,
        module: str,
        replies: msgspec.msgpack.Decoder[R],
        server: Server,
        *,
        lost: str,
        back: str,
        opening: Callable[[], Open],
        opened: Callable[[Opened], None],
        carry: Callable[[Lane[R], Lane[R]], Sequence[Carry]],
        finish: Callable[[Lane[R]], Awaitable[None]] | None = None,
    ) -> None:
        self._what = what
        self._module = module
        self._replies = replies
        self._open_seconds = 4 * server.timeout_seconds
        self._lost_words = lost
        self._back_words = back
        self._opening = opening
        self._opened = opened
        self._carry = carry
        self._finish = finish
        self._log = structlog.get_logger(what)
        self._process: trio.Process | None = None
        self._found = trio.Event()
        self._hosting = trio.CancelScope()
        self._connection = trio.CancelScope()
        self._started = False
        self._failure: ServerUnusable | None = None
        self._said = ("", "")
        self._say_again_at = 0.0
        self.calls: Lane[R] | None = None
        """The lane of calls, while there is a connection."""
        self.connections = 0
        """How many there have been."""

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def reconnects(self) -> int:
        return max(self.connections - 1, 0)

    async def connected(self) -> Lane[R]:
        """The lane of calls, once there is a connection."""
        while self.calls is None:
            if self._found.is_set():
                self._found = trio.Event()
            await self._found.wait()
        return self.calls

    def lost(self, calls: Lane[R], away: ServerAway) -> None:
        """Have the connection made anew, if it is still the one of this lane."""
        if self.calls is calls:
            self.calls = None
            self._tell_lost(away)
            self._connection.cancel()

    def give_up(self, unusable: ServerUnusable) -> None:
        """`run` raises it."""
        self._failure = unusable
        self.calls = None
        self._hosting.cancel()

    def say(self, what: str, reason: str) -> None:
        """Once, and again after a while: what comes every second for the same reason is one line."""
        if (what, reason) != self._said or trio.current_time() >= self._say_again_at:
            self._log.warning(what, reason=reason)
            self._said = (what, reason)
            self._say_again_at = trio.current_time() + _SILENCE_SECONDS

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, and again if need be. Reports started with its first connection. Raises ServerUnusable. No
        process is left behind."""
        self._started = False
        pause = _BACKOFF_SECONDS
        while True:
            began = trio.current_time()
            try:
                await self._host(task_status)
            except NotStarted as failure:
                if not self.connections:
                    raise ServerUnusable(
                        f"the {self._what}' driver process could not be started: {failure}"
                    ) from failure
                self._log.warning(
                    f"{self._what}' driver could not be started", reason=str(failure), retry_seconds=pause
                )
            else:
                self._log.warning(f"{self._what}' driver lost", retry_seconds=pause)
            if trio.current_time() - began > _SETTLED_SECONDS:
                pause = _BACKOFF_SECONDS
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def _host(self, task_status: trio.TaskStatus[None]) -> None:
        """One driver process, from its start to its loss. Raises NotStarted and ServerUnusable."""
        process, calls, reads = await spawn(self._module, self._replies, DriverGone)
        self._process = process
        self._failure = None
        try:
            async with trio.open_nursery() as nursery:
                # The lanes outlive a cancellation, for what is to be done at the end.
                lanes = [trio.CancelScope(shield=True) for _ in range(2)]
                with trio.CancelScope() as self._hosting:
                    for lane, scope in zip((calls, reads), lanes, strict=True):
                        nursery.start_soon(_serve, lane, scope, self._hosting)
                    try:
                        await self._connect_and_carry(calls, reads, task_status)
                    finally:
                        if self._finish is not None and self.calls is not None and not self._hosting.cancel_called:
                            await self._finish(calls)
                        for scope in lanes:
                            scope.cancel()
        finally:
            self.calls = None
            self._process = None
            calls.close()
            reads.close()
            await end(process)
        if self._failure is not None:
            raise self._failure

    async def _connect_and_carry(self, calls: Lane[R], reads: Lane[R], task_status: trio.TaskStatus[None]) -> None:
        """One connection after the other, until Redis cannot be used, or the driver is gone."""
        pause = _BACKOFF_SECONDS
        while await self._connect(calls):
            began = trio.current_time()
            with trio.CancelScope() as self._connection:
                carried = self._carry(calls, reads)
                self.calls = calls
                self._found.set()
                if not self._started:
                    self._started = True
                    task_status.started()
                async with trio.open_nursery() as nursery:
                    for each in carried:
                        nursery.start_soon(self._until_away, each)
            self.calls = None
            pause = _BACKOFF_SECONDS if trio.current_time() - began > _SETTLED_SECONDS else pause
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    async def _until_away(self, carry: Carry) -> None:
        try:
            await carry()
        except ServerAway as away:
            self._tell_lost(away)
            self._connection.cancel()
        except ServerUnusable as unusable:
            self.give_up(unusable)

    def _tell_lost(self, away: ServerAway) -> None:
        # Of a driver that is gone it is said that it is, when that has been seen to.
        if not isinstance(away, DriverGone):
            self.say(self._lost_words, str(away))

    async def _connect(self, calls: Lane[R]) -> bool:
        """Wait until Redis is there. False when it cannot be used, or the driver is gone."""
        pause = _BACKOFF_SECONDS
        while True:
            try:
                reply = await ask(calls, self._opening(), self._open_seconds)
                if not isinstance(reply, Opened):
                    raise out_of_turn()
            except DriverGone:
                return False
            except ServerAway as away:
                self.say(f"{self._what} wait for Redis", str(away))
            except ServerUnusable as unusable:
                self._failure = unusable
                return False
            else:
                self._tell_opened(reply)
                return True
            await trio.sleep(pause)
            pause = min(pause * 2, _BACKOFF_LIMIT_SECONDS)

    def _tell_opened(self, reply: Opened) -> None:
        self.connections += 1
        self._opened(reply)
        if reply.warning is not None and self.connections == 1:
            self._log.warning(reply.warning)
        if self._said[0] or self.connections > 1:
            self._log.info(self._back_words)
            self._said = ("", "")


async def _serve(lane: Lane[R], scope: trio.CancelScope, hosting: trio.CancelScope) -> None:
    """A process that has lost one lane is of no use: the other goes with it."""
    with scope:
        await lane.serve()
    hosting.cancel()
