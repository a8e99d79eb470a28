"""The daemon, whose services can be made to hang: `hang NAME` on stdin stops one where nothing is left half done, and
`go` lets a new instance of it serve. The other services, the links, the store and the vigil are the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import trio

from daemon.assembly import Daemon
from daemon.clock import WallClock
from daemon.configuration import load_settings
from daemon.supervisor import Service, ServiceName, ServiceSpec, serve
from daemon.systemd import find_notifier


class Hangs:
    """A service that is told to hang: it has not ended, has not failed, and does nothing any more."""

    def __init__(self, spec: ServiceSpec, hang: trio.Event, go: trio.Event) -> None:
        self._spec = spec
        self._hang = hang
        self._go = go

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        service = self._spec.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            task_status.started()
            await self._hang.wait()
            nursery.cancel_scope.cancel()
        print(f"{self._spec.name.value} hangs", flush=True)
        await self._go.wait()
        raise RuntimeError("it hung, and is to be started anew")


class Hanging(Daemon):
    def __init__(self, folder: Path) -> None:
        self.hang: dict[str, trio.Event] = {}
        self.go: dict[str, trio.Event] = {}
        settings = load_settings(folder / "engine.toml")
        super().__init__(settings, folder / "data", WallClock(), notifier=find_notifier())

    def services(self) -> list[ServiceSpec]:
        return [
            spec if spec.name is ServiceName.STORE else msgspec.structs.replace(spec, start=self._start(spec))
            for spec in super().services()
        ]

    def _start(self, spec: ServiceSpec):
        def start() -> Service:
            name = spec.name.value
            self.hang[name], self.go[name] = trio.Event(), trio.Event()
            return Hangs(spec, self.hang[name], self.go[name])

        return start

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey)
            await super().run(task_status=task_status)
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        async for line in trio.lowlevel.FdStream(0):
            for word in line.decode().splitlines():
                what, _, name = word.partition(" ")
                getattr(self, what)[name].set()


if __name__ == "__main__":
    sys.exit(trio.run(serve, Hanging(Path(sys.argv[1]))))
