"""The daemon's end of a lane to its driver."""

from __future__ import annotations

import socket

import msgspec
import pytest
import trio
import trio.testing

from daemon.drivers.framing import Frame, frame
from daemon.drivers.lane import Lane


class Hello(Frame):
    pass


async def test_a_lane_that_is_closed_while_it_serves_ends_and_tells_who_asked() -> None:
    ours, theirs = socket.socketpair()
    lane = Lane(ours, msgspec.msgpack.Decoder(Hello), ConnectionError)
    with theirs, trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ConnectionError):
                    await lane.ask(frame(Hello()))

            nursery.start_soon(lane.serve)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            lane.close()
