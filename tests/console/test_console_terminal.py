"""The console as a process on a terminal: however it is ended, the terminal is as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest

ENTERS, LEAVES = b"\x1b[?1049h", b"\x1b[?1049l"
"""The other screen of a terminal."""
PATIENCE_SECONDS = 60.0


def read_until(terminal: int, text: bytes, shown: bytes = b"") -> bytes:
    while text not in shown:
        assert select.select([terminal], [], [], PATIENCE_SECONDS)[0], f"{text!r} never came: {shown[-2000:]!r}"
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            raise AssertionError(f"it ended without {text!r}: {shown[-2000:]!r}") from None
    return shown


@pytest.mark.parametrize(
    "end",
    [lambda console, terminal: os.write(terminal, b"q"), lambda console, terminal: console.send_signal(signal.SIGTERM)],
    ids=["q", "SIGTERM"],
)
def test_the_terminal_is_left_as_it_was(daemon, end: Callable[[subprocess.Popen[bytes], int], object]) -> None:
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(other)
    environ = {**os.environ, "TERM": "xterm-256color", "ENGINE_DATA_DIR": str(daemon.data)}
    command = [sys.executable, "-m", "daemon.cli", "console"]
    with subprocess.Popen(command, env=environ, stdin=other, stdout=other, stderr=other) as console:
        try:
            shown = read_until(terminal, b"matching")
            assert ENTERS in shown
            end(console, terminal)
            shown = read_until(terminal, LEAVES)
            assert console.wait(PATIENCE_SECONDS) == 0
            assert termios.tcgetattr(other) == before
            assert b"Traceback" not in shown
        finally:
            console.kill()
            os.close(other)
            os.close(terminal)
