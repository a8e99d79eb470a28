"""What the daemon says to systemd: sd_notify's datagrams, and nothing about what they mean to the services.

One datagram a word, sent without waiting: a socket that is full or gone costs a line in the log, never the daemon.
Source: sd_notify(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

import structlog

MICROSECONDS: Final = 1_000_000
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

log = structlog.get_logger("daemon.systemd")


class Notifier:
    """The way to systemd. `watchdog_seconds`: within how long it wants to be fed; None, it does not."""

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._status = ""
        self._unheard = False
        self.watchdog_seconds = watchdog_seconds

    def ready(self) -> None:
        self._say("READY=1")

    def fed(self) -> None:
        """The watchdog is content for another `watchdog_seconds`."""
        self._say("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        self._status = status
        self._say(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """A line for people, shown by `systemctl status`; said where it is another than before."""
        if status != self._status:
            self._status = status
            self._say(f"STATUS={status}")

    def close(self) -> None:
        self._socket.close()

    def _say(self, message: str) -> None:
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._unheard:
                log.warning("systemd cannot be told", reason=error.strerror, message=message.partition("\n")[0])
            self._unheard = True
        else:
            self._unheard = False


def find_notifier(environ: MutableMapping[str, str] = os.environ) -> Notifier | None:
    """The way to the systemd that started this process; None without one.

    Its variables are taken out of the environment, so that no process of ours speaks in the daemon's name.
    """
    address, microseconds, pid = (environ.pop(name, "") for name in VARIABLES)
    if not address.startswith(("/", "@")):
        return None
    # WATCHDOG_PID names whom the watchdog is about: not whoever inherited the variables.
    ours = microseconds.isascii() and microseconds.isdigit() and pid in ("", str(os.getpid()))
    return Notifier(address, int(microseconds) / MICROSECONDS if ours and int(microseconds) else None)
