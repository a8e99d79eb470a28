"""A driver's process, from its own side: a lane is served until its other end goes away. Imports no Trio."""

from __future__ import annotations

import gc
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from daemon.drivers.framing import HEADER, Frame, frame

_BUFFER_BYTES = 256 * 1024
_SWITCH_SECONDS = 0.0002
"""What writes gives up the GIL at every statement: it must not wait the usual 5 ms for a read to give it back."""

R = TypeVar("R")


def begin() -> tuple[socket.socket, socket.socket]:
    """Make this process a driver's: its two lanes.

    Signals that reach a whole group (Ctrl-C, systemd's SIGTERM) are ignored: the daemon needs its drivers to stop in
    good order, and says when.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_SECONDS)
    first, second = (socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:3])
    gc.collect()
    gc.freeze()
    return first, second


def serve(
    lane: socket.socket,
    requests: msgspec.msgpack.Decoder[R],
    handle: Callable[[R], Frame],
    last: tuple[type[Frame], ...] = (),
) -> None:
    """Answer what comes, in order, until the lane ends or an answer has been of a type of `last`."""
    header_bytes = HEADER.size
    # The lane is not closed before its stream is, and an error that somebody keeps would keep that too.
    with lane.makefile("rb", buffering=_BUFFER_BYTES) as stream:
        try:
            while len(header := stream.read(header_bytes)) == header_bytes:
                (length,) = HEADER.unpack(header)
                payload = stream.read(length)
                if len(payload) < length:
                    return
                reply = handle(requests.decode(payload))
                lane.sendall(frame(reply))
                if isinstance(reply, last):
                    return
        except (BrokenPipeError, ConnectionResetError):
            return


def has_ended(lane: socket.socket) -> bool:
    """Whether the other end is gone. Looks without taking anything."""
    readable, _, _ = select.select([lane], [], [], 0)
    return bool(readable) and not lane.recv(1, socket.MSG_PEEK)


def shut(lane: socket.socket, how: int) -> None:
    """Shut the lane down; one whose other end is gone already stays as it is."""
    try:
        lane.shutdown(how)
    except OSError:
        return
