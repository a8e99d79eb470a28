"""The outbox: whole frames in order, a bound on what waits, and nothing forgotten that was not sent."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import wsproto
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from daemon.api.outbox import Outbox, text_frame


@pytest.fixture
async def sockets() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    async with trio.SocketStream(ours) as a, trio.SocketStream(theirs) as b:
        yield a, b


async def read(stream: trio.SocketStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = await stream.receive_some()
        assert data
        received += data
    return received


@given(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70000]), st.sampled_from("aé€😀"))
def test_a_frame_is_what_a_client_reads_as_one_message(size: int, character: str) -> None:
    client = wsproto.connection.Connection(wsproto.ConnectionType.CLIENT)
    client.receive_data(text_frame((character * size).encode()))
    (event,) = client.events()
    assert isinstance(event, wsproto.events.TextMessage)
    assert event.data == character * size
    assert event.message_finished


async def test_frames_go_out_whole_and_in_order_however_they_are_put(
    sockets: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, theirs = sockets
    outbox = Outbox(ours, 10_000_000, 5)
    frames = [bytes([65 + number % 26]) * (number * 997 % 200_000 + 1) for number in range(60)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write)
        for number, frame in enumerate(frames):
            outbox.put(frame, at_once=number % 2 == 0)
        whole = b"".join(frames)
        assert await read(theirs, len(whole)) == whole
        nursery.cancel_scope.cancel()
    assert outbox.lost == []


async def test_too_much_waiting_cuts_the_reader_off(sockets: tuple[trio.SocketStream, trio.SocketStream]) -> None:
    ours, _ = sockets
    outbox = Outbox(ours, 1000, 5)
    outbox.put(b"x" * 900, ("a",))
    outbox.put(b"x" * 100, ("b",))
    assert outbox.cut_off is None
    outbox.put(b"x", ("c",))
    assert outbox.cut_off is not None
    assert sorted(outbox.lost) == ["a", "b", "c"]
    outbox.put(b"x", ("d",))
    assert "d" in outbox.lost
    with pytest.raises(trio.BrokenResourceError):
        await outbox.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await outbox.receive_some()
    await outbox.write()


async def test_one_answer_may_be_longer_than_the_bound(
    sockets: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, theirs = sockets
    outbox = Outbox(ours, 1000, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write)
        outbox.put(b"x" * 5000)
        assert len(await read(theirs, 5000)) == 5000
        nursery.cancel_scope.cancel()


async def test_a_reader_that_stands_still_is_cut_off_in_time(
    sockets: tuple[trio.SocketStream, trio.SocketStream], autojump_clock: MockClock
) -> None:
    ours, _ = sockets
    outbox = Outbox(ours, 100_000_000, 5)
    outbox.put(b"x" * 10_000_000, ("big",))
    outbox.put(b"y", ("small",))
    begun = trio.current_time()
    await outbox.write()
    assert outbox.cut_off is not None
    assert "5 s" in outbox.cut_off
    assert sorted(outbox.lost) == ["big", "small"]
    assert trio.current_time() - begun == pytest.approx(5)


async def test_a_reader_that_is_gone_loses_what_was_for_it(
    sockets: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, theirs = sockets
    outbox = Outbox(ours, 100_000_000, 5)
    outbox.put(b"x" * 10_000_000, ("big",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write)
        await wait_all_tasks_blocked()
        await theirs.aclose()
    assert outbox.lost == ["big"]
    assert outbox.cut_off is None


async def test_finishing_sends_what_waits_and_then_ends(
    sockets: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, theirs = sockets
    outbox = Outbox(ours, 10_000_000, 5)
    received: list[bytes] = []

    async def receive_all() -> None:
        received.extend([chunk async for chunk in theirs])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_all)
        outbox.put(b"x" * 3_000_000, ("t",))
        nursery.start_soon(outbox.write)
        await outbox.finish()
        await outbox.finish()
    assert sum(map(len, received)) == 3_000_000
    assert outbox.lost == []


async def test_a_cancelled_writer_loses_what_it_had(sockets: tuple[trio.SocketStream, trio.SocketStream]) -> None:
    ours, _ = sockets
    outbox = Outbox(ours, 100_000_000, 5)
    outbox.put(b"x" * 10_000_000, ("sending",))
    outbox.put(b"y", ("waiting",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(outbox.lost) == ["sending", "waiting"]
