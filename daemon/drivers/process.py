"""A driver's process, from the daemon's side: starting it with two lanes to it, and ending it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec
import trio

from daemon.drivers.framing import Frame
from daemon.drivers.lane import Lane

R = TypeVar("R", bound=Frame)

CLOSE_SECONDS = 5.0
"""How long a driver that is no longer wanted may take to finish what it is executing."""


class NotStarted(Exception):
    """A driver process could not be started, for a reason that may pass."""


async def spawn(
    module: str, replies: msgspec.msgpack.Decoder[R], lost: Callable[[str], Exception]
) -> tuple[trio.Process, Lane[R], Lane[R]]:
    """`python -m MODULE LANE LANE`, and the lanes to it (see `Lane`). Raises NotStarted."""
    first, driver_first = socket.socketpair()
    second, driver_second = socket.socketpair()
    descriptors = (driver_first.fileno(), driver_second.fileno())
    command = [sys.executable, "-P", "-m", module, *map(str, descriptors)]
    try:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)
    except BaseException as error:
        first.close()
        second.close()
        if isinstance(error, OSError):
            raise NotStarted(str(error)) from error
        raise
    finally:
        driver_first.close()
        driver_second.close()
    return process, Lane(first, replies, lost), Lane(second, replies, lost)


async def end(process: trio.Process) -> None:
    """Wait for a process whose lanes are closed, and kill it when it takes too long."""
    with trio.CancelScope(shield=True):
        with trio.move_on_after(CLOSE_SECONDS):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
