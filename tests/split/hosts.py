"""A second host for some processes of a split engine, and the network between it and the servers, which can be cut.

`NamespaceHost` is a Linux network namespace with one wire to us; cut, frames go to a machine that is not there, which
nobody is told. Where that is not allowed, `ProxyHost` stands between the servers and processes of this host; cut, it
holds all that is sent, as TCP does when it has to send again.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trio

from enginekit.local import LocalDaemon
from examples.split.cluster import Host

_NETWORK_NAMESPACE = 0x40000000  # CLONE_NEWNET
_NOWHERE = "02:00:00:00:00:99"
_CHUNK = 65536


class Relay:
    """Passes on what comes to a port of ours, both ways, unless it holds it."""

    def __init__(self, address: str, dial: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        self.port = 0
        self._address = address
        self._dial = dial
        self._passes = trio.Event()
        self._passes.set()
        self._connections: set[trio.CancelScope] = set()

    def hold(self) -> None:
        self._passes = trio.Event()

    def go_on(self) -> None:
        self._passes.set()

    def drop(self) -> None:
        """What is held is lost, and the connections with it; new ones pass."""
        for connection in self._connections:
            connection.cancel()
        self.go_on()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host=self._address)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._connected, listeners)
            task_status.started()

    async def _connected(self, near: trio.SocketStream) -> None:
        try:
            far = await self._dial()
        except OSError:
            await near.aclose()
            return
        async with near, far, trio.open_nursery() as nursery:
            self._connections.add(nursery.cancel_scope)

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                try:
                    while data := await source.receive_some(_CHUNK):
                        await self._passes.wait()
                        await sink.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                await self._passes.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, near, far)
            nursery.start_soon(pump, far, near)
        self._connections.discard(nursery.cancel_scope)


class ProxyHost:
    """The same host as ours, with a proxy before each server."""

    address = "127.0.0.1"
    prefix: tuple[str, ...] = ()

    def __init__(self, folder: Path, postgres: str, redis: str) -> None:
        self._servers = [relay_to(self.address, url) for url in (postgres, redis)]
        self._urls = postgres, redis
        self._inwards = Relay("127.0.0.1", self._dial_frontend)
        self._data = folder / "elsewhere"
        self.local = LocalDaemon(self._data)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The ways to it and from it, until cancelled."""
        async with trio.open_nursery() as nursery:
            for relay in (*self._servers, self._inwards):
                await nursery.start(relay.run)
            task_status.started()

    @property
    def host(self) -> Host:
        postgres, redis = (
            f"{url.rpartition('@')[0] or url.partition('//')[0] + '//'}"
            f"{'@' if '@' in url else ''}{self.address}:{relay.port}{urlsplit(url).path}"
            for url, relay in zip(self._urls, self._servers, strict=True)
        )
        return Host(postgres=postgres, redis=redis, data=self._data, prefix=self.prefix)

    def frontend(self) -> str:
        """The URL of the Frontend there, by a way that is never cut. Raises Unreachable."""
        self.local.url()
        return f"ws://127.0.0.1:{self._inwards.port}/rpc"

    def cut(self) -> None:
        for relay in self._servers:
            relay.hold()

    def heal(self) -> None:
        for relay in self._servers:
            relay.go_on()

    async def _dial_frontend(self) -> trio.SocketStream:
        port = urlsplit(self.local.url()).port
        assert port is not None
        return await self._dial("127.0.0.1", port)

    async def _dial(self, address: str, port: int) -> trio.SocketStream:
        return await trio.open_tcp_stream(address, port)


class NamespaceHost(ProxyHost):
    """A network namespace. The servers listen at our end of the wire."""

    def __init__(self, folder: Path, postgres: str, redis: str) -> None:
        number = os.getpid()
        self.name, self._ours, self._theirs = f"engine-{number}", f"eng{number}a", f"eng{number}b"
        self.address, self._there = f"10.213.{number % 250}.1", f"10.213.{number % 250}.2"
        self.prefix = ("ip", "netns", "exec", self.name)
        super().__init__(folder, postgres, redis)

    def make(self) -> None:
        """Raises RuntimeError where this machine does not let us."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self.name)
        _ip("addr", "add", f"{self.address}/30", "dev", self._ours)
        _ip("link", "set", self._ours, "up")
        _ip("-n", self.name, "addr", "add", f"{self._there}/30", "dev", self._theirs)
        _ip("-n", self.name, "link", "set", self._theirs, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def unmake(self) -> None:
        subprocess.run(["ip", "link", "del", self._ours], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def cut(self) -> None:
        for place, device, peer in self._ends():
            _ip(*place, "neigh", "replace", peer, "lladdr", _NOWHERE, "dev", device, "nud", "permanent")

    def heal(self) -> None:
        for place, device, peer in self._ends():
            _ip(*place, "neigh", "del", peer, "dev", device)

    def _ends(self) -> list[tuple[tuple[str, ...], str, str]]:
        return [((), self._ours, self._there), (("-n", self.name), self._theirs, self.address)]

    async def _dial(self, address: str, port: int) -> trio.SocketStream:
        def connect() -> socket.socket:
            # A socket stays in the namespace that it was made in.
            with _inside(Path("/run/netns") / self.name):
                return socket.create_connection((address, port), timeout=5)

        made = await trio.to_thread.run_sync(connect)
        return trio.SocketStream(trio.socket.from_stdlib_socket(made))


@contextmanager
def other_host(kind: type[ProxyHost], folder: Path, postgres: str, redis: str) -> Iterator[ProxyHost]:
    """Raises RuntimeError where this machine does not allow it."""
    host = kind(folder, postgres, redis)
    if not isinstance(host, NamespaceHost):
        yield host
        return
    try:
        host.make()
        yield host
    finally:
        host.unmake()


def namespaces_work() -> bool:
    """Whether this machine lets us make a host of our own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = NamespaceHost(Path("/nowhere"), "postgresql://x:1/y", "redis://x:1")
    try:
        probe.make()
    except RuntimeError:
        return False
    finally:
        probe.unmake()
    return True


def relay_to(address: str, url: str) -> Relay:
    server = urlsplit(url)
    host, port = server.hostname, server.port
    assert host is not None
    assert port is not None

    async def dial() -> trio.SocketStream:
        return await trio.open_tcp_stream(host, port)

    return Relay(address, dial)


@contextmanager
def _inside(namespace: Path) -> Iterator[None]:
    """This thread is in that network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home, namespace.open() as there:
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, home.fileno())


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _NETWORK_NAMESPACE):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
