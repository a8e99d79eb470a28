"""What stands in a stream, read by a version that does not know all of it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
import trio
from both_sides import ME
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from redis_server import RedisServer, a_name

from daemon.links.redis import envelope
from daemon.links.redis.envelope import Envelope, Unreadable, decode_answer, decode_body, encode_body, seal, unseal
from daemon.links.redis.exchange import RedisExchange
from daemon.links.redis.seen import SENDERS, WINDOW, Seen
from daemon.redis.frames import Server
from enginekit.messages import calls
from enginekit.messages.links import LookAtClock, RunRef, ToHistory, ToMatching, ToTimer, ToWorker, WakeRuns
from enginekit.messages.status import ErrorStatus, Refused

RAW = Raw(b'{"a": 1.0,  "a":[1e2, "\\u00e9"]}')


def entry(kind: str, body: Any, **more: Any) -> bytes:
    """An envelope as another version might write it."""
    return msgspec.msgpack.encode({"v": 1, "s": b"other", "n": 1, "k": kind, "b": msgspec.json.encode(body), **more})


def test_every_message_has_a_name() -> None:
    for union in (ToHistory, ToMatching, ToWorker, ToTimer):
        for kind in get_args(union):
            assert envelope._KINDS[kind.__name__] is kind
    assert {"StartWorkflow", "StartWorkflowResult", "Pong", "StartTasks", "GetDeadLetter"} <= envelope._KINDS.keys()


@pytest.mark.parametrize(
    "body",
    [
        calls.StartWorkflow(workflow="order", input=RAW, labels={"a": "b"}, reuse=calls.Reuse.REJECT),
        calls.CompleteTasks(tasks=[calls.TaskCompletion(token="t", output=RAW)]),
        calls.GetHistoryResult(run_id="r", events=[RAW, RAW], next_after_id=2, closed=False),
        calls.GetDefinitionResult(name="n", version=1, definition=RAW, registered_at=datetime(2026, 1, 2, tzinfo=UTC)),
        WakeRuns([RunRef("acme", "o", "r")]),
    ],
)
def test_bodies_come_as_they_went(body: envelope.Body) -> None:
    assert decode_body(type(body).__name__, encode_body(body)) == body


def test_what_a_newer_version_adds_is_passed_over() -> None:
    """Also in calls, whose structs refuse what they do not know, and payloads stay as they are."""
    body = b'{"workflow": "order", "input": {"x":  1.0}, "colour": {"deep": [1]}}'
    assert decode_body("StartWorkflow", body) == calls.StartWorkflow(workflow="order", input=Raw(b'{"x":  1.0}'))
    many = b'{"tasks": [{"token": "t", "output": {"x":  1.0}, "colour": 1}], "colour": 2}'
    assert decode_body("CompleteTasks", many) == calls.CompleteTasks(
        tasks=[calls.TaskCompletion(token="t", output=Raw(b'{"x":  1.0}'))]
    )
    made = unseal(entry("Ping", {}, l=1000, r="somewhere", colour="red"))
    assert (made.kind, made.live_ms, made.reply_to) == ("Ping", 1000, "somewhere")


def test_what_cannot_be_read_says_why() -> None:
    with pytest.raises(Unreadable, match="version 2"):
        unseal(entry("Ping", {}, v=2))
    with pytest.raises(Unreadable, match="no envelope"):
        unseal(b"\x00garbage")
    with pytest.raises(Unreadable, match="does not know: Teleport"):
        decode_body("Teleport", b"{}")
    with pytest.raises(Unreadable, match="cannot read"):
        decode_body("StartWorkflow", b'{"workflow": 5}')
    with pytest.raises(Unreadable, match="an answer that is none"):
        decode_answer("Ping", b"{}")
    unknown = decode_answer("Refused", b'{"status": "TIRED", "message": "no", "colour": 1}')
    assert isinstance(unknown, Refused)
    assert (unknown.status, unknown.message) == (ErrorStatus.INTERNAL, "no")


def test_an_envelope_is_small() -> None:
    assert len(seal(Envelope(version=1, sender=b"12345678", number=1, kind="LookAtClock", body=b"{}"))) < 48


async def test_strange_entries_hold_nobody_up(
    redis_server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = a_name()
    here = RedisExchange(Server("links", redis_server.url), process="here", name=name)
    await nursery.start(here.run)
    key = f"engine:{{{name}}}:history:0"
    deadline = {"l": 10_000, "r": here._post.replies.key, "t": "acme"}
    strange = [
        b"",
        b"\x93garbage",
        entry("Teleport", {}),
        entry("WakeRuns", {"runs": 5}, n=2),
        entry("LookAtClock", {}, v=7, n=3),
        entry("Ping", {}, n=4),
        entry("WakeRuns", {"runs": []}, n=5, **deadline),
        entry("Ping", {}, n=6, l=1000, t="acme"),
    ]
    with closing(redis_server.client()) as client:
        for each in strange:
            client.xadd(key, {"m": each})
        client.xadd(key, {"other": "field"})
    assert here.history(0).offer(LookAtClock())
    with trio.fail_after(60):
        assert await here.history(0).receive() == [LookAtClock()]

    # A caller whose call has another name where it is received: as if a newer version had asked.
    monkeypatch.delitem(envelope._KINDS, "Hello")
    monkeypatch.delitem(envelope._decoders, "Hello", raising=False)
    async with trio.open_nursery() as both:
        both.start_soon(here.history(2).receive)
        with pytest.raises(Refused, match="of another version") as refused:
            await here.history(2).request(ME, calls.Hello(), calls.HelloResult, 60.0)
        both.cancel_scope.cancel()
    assert refused.value.status is ErrorStatus.UNAVAILABLE
    with closing(redis_server.client()) as client, trio.fail_after(60):
        with trio.move_on_after(0.2):
            await here.history(0).receive()
            raise AssertionError("nothing is left to receive")
        while client.xlen(key):  # noqa: ASYNC110
            await trio.sleep(0.01)
    nursery.cancel_scope.cancel()


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 40)), max_size=200))
def test_each_number_of_a_sender_is_taken_once(letters: list[tuple[bytes, int]]) -> None:
    seen = Seen()
    taken = [letter for letter in letters if seen.first(*letter)]
    assert sorted(taken) == sorted(set(letters))


def test_what_is_remembered_is_bounded() -> None:
    seen = Seen()
    assert seen.first(b"a", 1)
    assert seen.first(b"a", WINDOW)
    assert not seen.first(b"a", 1)
    assert seen.first(b"a", WINDOW + 1)
    assert seen.first(b"a", 1), "older than what is remembered counts as new"
    for number in range(SENDERS):
        assert seen.first(b"%d" % number, 1)
    assert seen.first(b"a", WINDOW), "the sender that was silent longest is forgotten"
    assert seen._windows.keys() >= {b"255", b"a"}
    assert len(seen._windows) == SENDERS
    assert seen.first(b"z", 10**12)
    assert seen._windows[b"z"].bits.bit_length() <= WINDOW
