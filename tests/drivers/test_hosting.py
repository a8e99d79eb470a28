"""A driver's side of its lane."""

from __future__ import annotations

import gc
import socket

import msgspec

from daemon.drivers.framing import Frame, frame
from daemon.drivers.hosting import serve


class Hello(Frame):
    pass


def test_a_lane_is_closed_whatever_still_holds_an_error_of_its_last_call() -> None:
    """An error that is kept keeps the frames that were under way, and all that they had open, until somebody tidies."""

    def handle(request: Hello) -> Hello:
        try:
            raise ConnectionError("the server has gone away")
        except ConnectionError as error:
            kept: list[object] = [error]
            kept.append(kept)
        return request

    ours, theirs = socket.socketpair()
    gc.disable()
    try:
        with ours:
            ours.settimeout(5)
            ours.sendall(frame(Hello()))
            ours.shutdown(socket.SHUT_WR)
            with theirs:
                serve(theirs, msgspec.msgpack.Decoder(Hello), handle)
            assert ours.recv(1024) == frame(Hello())
            assert ours.recv(1024) == b""
    finally:
        gc.enable()
