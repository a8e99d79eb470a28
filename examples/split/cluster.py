"""The engine as many processes, each with one role, over one PostgreSQL and one Redis: started, kept alive as systemd
would (whoever dies is started again), killed, stopped.

What is done with them is the demo's, or a test's.
"""

from __future__ import annotations

import signal
import sysconfig
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from enginekit.client import open_client
from enginekit.errors import Unreachable
from enginekit.local import LocalDaemon
from enginekit.messages.json import JSON
from enginekit.messages.status import Refused
from examples.orders.stage import Program, StageError, running

RESTART_SECONDS = 0.2
UP_SECONDS = 240.0
"""How long it may take until executions run: a dozen interpreters start at once."""

ENGINE_TOML = """\
[store]
url = "{postgres}"
shards = {shards}

[links]
url = "{redis}"

[history]
lease_seconds = {lease_seconds}

[matching]
partitions = 2
lease_seconds = {lease_seconds}

[tasks]
lease_seconds = 5.0

[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
call_timeout_seconds = {call_timeout_seconds}

[http]
# The shop is on this machine, where calls may not go unless it is said.
allow = ["127.0.0.0/8"]
"""

ECHO: Mapping[str, JSON] = {"StartAt": "Echo", "States": {"Echo": {"Type": "Task", "Resource": "echo", "End": True}}}
EVERY_KIND = {"history": 2, "matching": 2, "timer": 1, "worker": 3, "frontend": 1}


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process runs: how the servers are reached from there, what starts a program there, and its own folder."""

    postgres: str
    redis: str
    data: Path
    prefix: tuple[str, ...] = ()


class Member:
    """One place in the cluster: a process with a role, and whoever comes after it."""

    def __init__(self, role: str, number: int) -> None:
        self.role = role
        self.name = f"{role}-{number}"
        self.program: Program | None = None
        self.deaths = 0
        self.wanted = True

    @property
    def pid(self) -> int:
        """Raises StageError while it is being started again."""
        if self.program is None:
            raise StageError(f"{self.name} is not running right now")
        return self.program.process.pid

    def kill(self) -> None:
        """As the machine would: at once, and nobody is told."""
        if self.program is not None:
            self.program.process.kill()

    def pause(self) -> None:
        """Stop it where it stands. It knows nothing of it."""
        if self.program is not None:
            self.program.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.program is not None:
            self.program.process.send_signal(signal.SIGCONT)


class Cluster:
    """Its members, and how clients find it."""

    def __init__(self, folder: Path, members: list[Member]) -> None:
        self.folder = folder
        self.members = members
        self.local = LocalDaemon(folder / "data")

    def of(self, role: str) -> list[Member]:
        return [member for member in self.members if member.role == role]

    async def executes(self) -> None:
        """Returns when an execution has gone all the way through. Raises TooSlowError."""
        with trio.fail_after(UP_SECONDS):
            while True:
                try:
                    async with open_client(self.local.url, self.local.token, timeout_seconds=UP_SECONDS) as client:
                        started = await client.start(ECHO)
                        await client.wait(started.workflow_id, started.run_id)
                        return
                except (Refused, Unreachable):
                    await trio.sleep(0.5)

    async def stop(self) -> None:
        """End all of them, in the order that loses nothing, and wait. Raises StageError for whoever does not end."""
        for member in self.members:
            member.wanted = False
        for role in ("frontend", "worker", "matching", "timer", "history"):
            async with trio.open_nursery() as nursery:
                for member in self.of(role):
                    if member.program is not None and member.program.process.returncode is None:
                        nursery.start_soon(member.program.stop)


@asynccontextmanager
async def open_cluster(
    folder: Path,
    postgres: str,
    redis: str,
    plan: Mapping[str, int] = EVERY_KIND,
    *,
    shards: int = 16,
    lease_seconds: float = 3.0,
    call_timeout_seconds: float = 30.0,
    more: str = "",
    elsewhere: Mapping[str, Host] | None = None,
) -> AsyncIterator[Cluster]:
    """So many processes of each role, once executions run; `more` is added to their engine.toml. Those named in
    `elsewhere` run on other hosts. Raises StageError."""
    here = Host(postgres=postgres, redis=redis, data=folder / "data")

    def command(member: Member) -> list[str]:
        host = (elsewhere or {}).get(member.name, here)
        config = folder / ("engine.toml" if host is here else f"{member.name}.toml")
        text = ENGINE_TOML.format(
            postgres=host.postgres,
            redis=host.redis,
            shards=shards,
            lease_seconds=lease_seconds,
            call_timeout_seconds=call_timeout_seconds,
        )
        config.write_text(text + more)
        return [*host.prefix, *engine_command(config, host.data, member.role)]

    members = [Member(role, number) for role, count in plan.items() for number in range(1, count + 1)]
    cluster = Cluster(folder, members)
    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(_keep, member, command(member), folder / f"{member.name}.log")
        try:
            await cluster.executes()
        except trio.TooSlowError:
            raise StageError(f"no execution has ended after {UP_SECONDS:g} s; the logs are in {folder}") from None
        yield cluster
        nursery.cancel_scope.cancel()


def engine_command(config: Path, data: Path, role: str) -> list[str]:
    engine = str(Path(sysconfig.get_path("scripts")) / "engine")
    return [engine, "serve", "--config", str(config), "--data-dir", str(data), "--roles", role]


async def _keep(member: Member, command: list[str], log: Path) -> None:
    """Run it, and run it again when it has died, until it is not wanted any more."""
    while member.wanted:
        async with running(member.name, command, log) as program:
            member.program = program
            await program.process.wait()
        member.program = None
        if member.wanted:
            member.deaths += 1
            await trio.sleep(RESTART_SECONDS)
