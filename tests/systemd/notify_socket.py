"""A notify socket as systemd holds it, and the real daemon under it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
CONFIG = """
[frontend]
rpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
[store]
call_timeout_seconds = 8.0
lock_wait_seconds = 2.0
"""


class Listening:
    """What a daemon says to its systemd."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self.heard: list[str] = []

    def next(self, seconds: float) -> str | None:
        """The next word, in full; None when there is none for so long."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        word = self._socket.recv(4096).decode()
        self.heard.append(word)
        return word

    def until(self, text: str, seconds: float = PATIENCE_SECONDS) -> str:
        """The next word with that text in it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            word = self.next(left)
            if word is not None and text in word:
                return word
        raise AssertionError(f"never heard {text!r}, but {self.heard[-20:]}")

    def until_silent_about(self, text: str, seconds: float) -> None:
        """Hear all that comes; none of it may have that text in it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            word = self.next(left)
            assert word is None or text not in word, self.heard[-20:]

    def until_still(self, text: str, seconds: float) -> None:
        """Hear all that comes, until for so long nothing had that text in it."""
        end = time.monotonic() + PATIENCE_SECONDS
        last = time.monotonic()
        while (left := last + seconds - time.monotonic()) > 0:
            word = self.next(left)
            if word is not None and text in word:
                assert time.monotonic() < end, self.heard[-20:]
                last = time.monotonic()

    def close(self) -> None:
        self._socket.close()


class Unit:
    """A daemon as a unit of systemd's would run it."""

    def __init__(self, command: list[str], folder: Path, address: str | None = None, config: str = CONFIG) -> None:
        self.folder = folder
        self.systemd = Listening(address or str(folder / "notify"))
        (folder / "engine.toml").write_text(config)
        self.log = folder / "daemon.log"
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": self.systemd.address,
            "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1_000_000)),
            "PYTHONPATH": str(ROOT),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def driver(self) -> int | None:
        """The store's process."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                with suppress(OSError):
                    if b"daemon.stores.host" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        return None

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def until_logged(self, text: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in (said := self.log.read_text(errors="replace")):
            assert time.monotonic() < end, said
            time.sleep(0.02)  # another process, and no clock of ours in it

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.communicate()
        self.systemd.close()
