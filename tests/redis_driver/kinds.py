"""The two that drive Redis, as what they have in common sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import trio

from daemon.drivers.framing import Frame
from daemon.links.redis import frames as link_frames
from daemon.links.redis import host as link_host
from daemon.links.redis.exchange import RedisExchange
from daemon.queues.interface import Terms
from daemon.queues.redis import host as queue_host
from daemon.queues.redis.queues import RedisTaskQueues
from daemon.redis.frames import Layout, Open, Opened, Server, Unavailable, Unusable
from daemon.redis.keys import prefix_of

NOTHING_KNOWN = Layout(None, None, None)

Answer: TypeAlias = Opened | Unavailable | Unusable


class Host(Protocol):
    def call(self, request: Open, /) -> Frame: ...

    def close(self) -> None: ...


class Driven(Protocol):
    """What is kept connected."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...

    @property
    def ready(self) -> bool: ...

    @property
    def driver_pid(self) -> int | None: ...

    @property
    def reconnects(self) -> int: ...


@dataclass
class Kind:
    """`section`: of engine.toml. `lost` and `back`: what the log says."""

    section: str
    lost: str
    back: str
    host: Callable[[], Host]
    open: Callable[[Server, str, Layout], Open]
    make: Callable[[Server, str], Driven]

    def opened(self, server: Server, *, name: str = "engine", layout: Layout = NOTHING_KNOWN) -> Answer:
        """What the driver answers who tells it to open this."""
        host = self.host()
        try:
            answer = host.call(self.open(server, prefix_of(name), layout))
        finally:
            host.close()
        assert isinstance(answer, Opened | Unavailable | Unusable)
        return answer

    def refused(self, server: Server, *, name: str = "engine", layout: Layout = NOTHING_KNOWN) -> str:
        """Why it cannot be used."""
        answer = self.opened(server, name=name, layout=layout)
        assert isinstance(answer, Unusable)
        return answer.message

    def at(self, url: str, password: str | None = None, timeout_seconds: float = 20.0) -> Server:
        return Server(self.section, url, password, timeout_seconds=timeout_seconds)

    def made(
        self, url: str, *, name: str = "engine", password: str | None = None, timeout_seconds: float = 20.0
    ) -> Driven:
        return self.make(self.at(url, password, timeout_seconds), name)


KINDS = {
    "links": Kind(
        "links",
        "Redis is lost",
        "Redis is there",
        link_host.Host,
        lambda server, prefix, layout: link_frames.Open(server, prefix, layout, "one", f"{prefix}:replies:one"),
        lambda server, name: RedisExchange(server, process="here", name=name),
    ),
    "queues": Kind(
        "queues",
        "queues wait for Redis",
        "queues have Redis again",
        queue_host.Host,
        Open,
        lambda server, name: RedisTaskQueues(
            server,
            member="m1",
            terms=Terms(tasks=20, lease_seconds=60.0, delay_seconds=60.0),
            partitions=2,
            name=name,
        ),
    ),
}
