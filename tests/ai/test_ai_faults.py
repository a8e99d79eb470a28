"""Servers that misbehave on purpose, on real sockets: each fault has a name, is bounded, and leaves nothing behind."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
import trio
import trustme
from ai_bench import Bench
from model_server import STREAM, Answering, Asked, ModelServer
from wire_formats import delta, event, message_end, message_start, openai_answer, text_block

from daemon.execution.transient import is_transient
from daemon.nodes.ai.errors import AiError, pause_asked_for
from enginekit.messages.json import JSON
from enginekit.node import NodeFailure, Usage

# httpx2 leaves generators of its own unclosed when an answer is not read to its end; the connection is closed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx2:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Async generator 'httpcore2:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Async generator 'daemon.nodes.ai.transport:ResourceWarning"),
]


async def failure_of(bench: Bench, nursery: trio.Nursery, answering: Answering, **limits: float) -> NodeFailure:
    _, url = await bench.serve(nursery, answering)
    return await bench.failure(bench.node(url, **limits))


def refusing(status: int, body: object, *headers: tuple[str, str]) -> Answering:
    async def answer(asked: Asked) -> None:
        await asked.refuse(status, body, headers)

    return answer


def saying(events: Sequence[bytes]) -> Answering:
    async def answer(asked: Asked) -> None:
        await asked.answer(events)

    return answer


# --- what the server says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "invalid_request_error", AiError.INVALID_REQUEST),
        (400, "content_filter", AiError.CONTENT_REFUSED),
        (401, "authentication_error", AiError.AUTHENTICATION),
        (402, "billing_error", AiError.QUOTA_EXCEEDED),
        (403, "permission_error", AiError.AUTHENTICATION),
        (404, "not_found_error", AiError.INVALID_REQUEST),
        (413, "request_too_large", AiError.INVALID_REQUEST),
        (418, "", AiError.INVALID_REQUEST),
        (429, "rate_limit_error", AiError.RATE_LIMITED),
        (429, "insufficient_quota", AiError.QUOTA_EXCEEDED),
        (500, "api_error", AiError.SERVER_ERROR),
        (502, "", AiError.SERVER_ERROR),
        (503, "", AiError.OVERLOADED),
        (529, "overloaded_error", AiError.OVERLOADED),
        (302, "", AiError.PROTOCOL_ERROR),
    ],
)
async def test_every_status_has_a_name(
    bench: Bench, nursery: trio.Nursery, status: int, code: str, error: AiError
) -> None:
    body = {"type": "error", "error": {"type": code, "code": None, "message": "for a reason"}}
    if bench.vendor == "openai":
        body = {"error": {"message": "for a reason", "type": "some_error", "param": None, "code": code}}
    failed = await failure_of(bench, nursery, refusing(status, body))
    assert failed.error == error.value
    assert f"answered {status}" in failed.cause
    assert "for a reason" in failed.cause
    assert failed.usage is None
    assert failed.unhealthy == (status in (302, 429, 500, 502, 503, 529) and code != "insufficient_quota")


async def test_a_refusal_that_is_no_json_or_endless(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin(500, [("Content-Type", "text/html")])
        while True:
            await asked.say(b"<h1>Sorry</h1>" * 100)

    failed = await failure_of(bench, nursery, answer)
    assert failed.error == "Ai.ServerError"
    assert "<h1>Sorry</h1>" in failed.cause
    assert len(failed.cause) <= 2048


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_the_pause_that_a_server_asks_for(bench: Bench, nursery: trio.Nursery, status: int) -> None:
    failed = await failure_of(bench, nursery, refusing(status, {}, ("Retry-After", "17")))
    assert failed.retry_after_seconds == 17
    assert is_transient(failed.error, bench.resource, {})
    failed = await failure_of(bench, nursery, refusing(status, {}, ("Retry-After", "17"), ("retry-after-ms", "250")))
    assert failed.retry_after_seconds == 0.25


def test_the_pause_as_a_date_or_nonsense() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    wall = now.timestamp()

    def pause(**headers: str) -> float | None:
        return pause_asked_for(httpx2.Headers({name.replace("_", "-"): text for name, text in headers.items()}), wall)

    assert pause(retry_after=format_datetime(now + timedelta(seconds=90), usegmt=True)) == 90
    assert pause(retry_after=format_datetime(now - timedelta(seconds=90), usegmt=True)) == 0
    for nonsense in ("soon", "-1", "nan", "inf", ""):
        assert pause(retry_after=nonsense) is None
        assert pause(retry_after_ms=nonsense, retry_after="2") == 2
    assert pause() is None


def test_which_of_them_pass_by_themselves() -> None:
    passing = {error for error in AiError if is_transient(error.value, "ai:openai", {})}
    assert passing == {
        AiError.RATE_LIMITED,
        AiError.OVERLOADED,
        AiError.CONNECTION_ERROR,
        AiError.SERVER_ERROR,
        AiError.CONNECTION_LOST,
    }


# --- what it says in the middle of an answer ---------------------------------------------------------------------


async def test_an_error_in_the_middle_of_an_answer(nursery: trio.Nursery) -> None:
    overloaded = {"type": "overloaded_error", "message": "Overloaded"}
    failed = await failure_of(
        Bench("anthropic"), nursery, saying([message_start(), *text_block(0, "So"), event("error", error=overloaded)])
    )
    assert (failed.error, failed.unhealthy) == ("Ai.Overloaded", True)
    assert failed.usage == Usage(requests=1, input_tokens=11, output_tokens=1)
    broken = b'data: {"error": {"message": "CUDA out of memory", "type": "server_error", "code": 500}}\n\n'
    failed = await failure_of(Bench("openai"), nursery, saying([delta(content="So"), broken]))
    assert failed.error == "Ai.ServerError"
    assert "CUDA out of memory" in failed.cause
    assert failed.usage == Usage(requests=1)


async def test_a_stream_that_is_cut(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin()
        for one in bench.events("A long answer that never comes to its end")[:5]:
            await asked.say(one)
        # And the connection is closed in the middle of the body.

    failed = await failure_of(bench, nursery, answer)
    assert (failed.error, failed.unhealthy) == ("Ai.ConnectionLost", True)
    assert failed.usage is not None
    assert failed.usage.requests == 1


async def test_a_stream_that_ends_too_early(bench: Bench, nursery: trio.Nursery) -> None:
    failed = await failure_of(bench, nursery, saying(bench.events("Half of it")[:3]))
    assert failed.error == "Ai.ConnectionLost"


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"choices": [{"del\n\n',
        b"data: [1, 2]\n\n",
        b'data: {"choices": "none", "type": 1}\n\n',
        b'data: {"choices": [{"delta": {"content": 7}}], "type": "content_block_delta", "delta": {"text": 7}}\n\n',
        b"data: " + b"[" * 20_000 + b"\n\n",
        b'data: {"choices": [{"delta": {"content": "\\ud800"}}], "type": "x", "delta": {"text": "\\ud800"}}\n\n',
    ],
)
async def test_a_malformed_event(bench: Bench, nursery: trio.Nursery, broken: bytes) -> None:
    failed = await failure_of(bench, nursery, saying([*bench.events("So")[:2], b"event: message_delta\n" + broken]))
    assert (failed.error, failed.unhealthy) == ("Ai.ProtocolError", True)


async def test_comments_pings_and_unknown_events_are_passed_over(bench: Bench) -> None:
    events = bench.events("So")
    strange = [b": keep-alive\n\n", b'event: news\ndata: {"type": "news", "choices": []}\n\n', b"retry: 5\n\n"]
    result = await bench.answered([*strange, *events[:3], *strange, *events[3:]])
    assert isinstance(result.output, dict)
    assert result.output["Text"] == "So"


async def test_events_cut_anywhere(bench: Bench, nursery: trio.Nursery) -> None:
    """Also inside of a character, and with the other ends of lines."""
    whole = b"".join(bench.events("Zoë said: grüezi")).replace(b"\n", b"\r\n")

    async def answer(asked: Asked) -> None:
        await asked.begin()
        for start in range(0, len(whole), 3):
            await asked.say(whole[start : start + 3])
        await asked.end()

    _, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    result = await node.run(bench.call())
    await node.aclose()
    assert isinstance(result.output, dict)
    assert result.output["Text"] == "Zoë said: grüezi"


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
async def test_an_answer_that_is_no_stream(bench: Bench, nursery: trio.Nursery, kind: str) -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin(200, [("Content-Type", kind)])
        await asked.say(b'{"choices": []}')
        await asked.end()

    failed = await failure_of(bench, nursery, answer)
    assert failed.error == "Ai.ProtocolError"
    assert kind.partition(";")[0] in failed.cause


async def test_a_compressed_answer_is_not_unpacked(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin(200, [*STREAM, ("Content-Encoding", "gzip")])
        await asked.say(b"whatever")
        await asked.end()

    assert (await failure_of(bench, nursery, answer)).error == "Ai.ProtocolError"


async def test_what_is_no_http_at_all(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await asked.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

    assert (await failure_of(bench, nursery, answer)).error == "Ai.ProtocolError"


# --- bounds ------------------------------------------------------------------------------------------------------


async def endless(asked: Asked, opening: Sequence[bytes], again: bytes) -> None:
    await asked.begin()
    for one in opening:
        await asked.say(one)
    while True:
        await asked.say(again)


def going_on(bench: Bench, text: str) -> tuple[list[bytes], bytes]:
    """How an answer begins, and one more piece of it."""
    if bench.vendor == "openai":
        return [], delta(content=text)
    piece = event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    return [message_start(), *text_block(0, "")[:1]], piece


async def test_an_endless_answer(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await endless(asked, *going_on(bench, "and on " * 10))

    failed = await failure_of(bench, nursery, answer, output_bytes=10_000)
    assert failed.error == "Ai.OutputTooLarge"
    assert "10000 bytes" in failed.cause


async def test_an_endless_stream_of_nothing(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await endless(asked, [], b": still there\n\n" * 500)

    failed = await failure_of(bench, nursery, answer, stream_bytes=200_000)
    assert failed.error == "Ai.OutputTooLarge"
    assert "200000 bytes" in failed.cause


async def test_an_endless_event(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await endless(asked, [], b"data: x" * 1000)

    failed = await failure_of(bench, nursery, answer, output_bytes=10_000)
    assert failed.error == "Ai.OutputTooLarge"


async def test_a_silent_server(bench: Bench, nursery: trio.Nursery) -> None:
    async def nothing(asked: Asked) -> None:
        await trio.sleep_forever()

    failed = await failure_of(bench, nursery, nothing, read_seconds=0.05)
    assert (failed.error, failed.unhealthy) == ("Ai.ReadTimeout", True)

    async def stalls(asked: Asked) -> None:
        await asked.begin()
        await asked.say(bench.events("So")[0])
        await trio.sleep_forever()

    failed = await failure_of(bench, nursery, stalls, read_seconds=1.0)
    assert failed.error == "Ai.ReadTimeout"
    assert failed.usage is not None


async def test_a_server_that_goes_on_after_the_end(bench: Bench, nursery: trio.Nursery) -> None:
    """The answer is there; what comes after it is not waited for long."""

    async def answer(asked: Asked) -> None:
        await endless(asked, bench.events("So"), b": more\n\n")

    _, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    with trio.fail_after(60):
        result = await node.run(bench.call())
    await node.aclose()
    assert isinstance(result.output, dict)
    assert result.output["Text"] == "So"


async def test_a_connection_that_is_cut_after_the_end(bench: Bench, nursery: trio.Nursery) -> None:
    async def answer(asked: Asked) -> None:
        await asked.begin()
        for one in bench.events("So"):
            await asked.say(one)

    _, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    result = await node.run(bench.call())
    await node.aclose()
    assert isinstance(result.output, dict)
    assert result.output["Text"] == "So"


# --- connecting --------------------------------------------------------------------------------------------------


async def test_nobody_listens(bench: Bench) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    failed = await bench.failure(bench.node(f"http://127.0.0.1:{port}"))
    assert (failed.error, failed.unhealthy) == ("Ai.ConnectionError", True)
    assert "refused" in failed.cause


async def test_a_bad_certificate_and_a_good_one(bench: Bench, nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    url = await ModelServer(nursery, saying(bench.events("So")), tls=context).listen()
    failed = await bench.failure(bench.node(url))
    assert failed.error == "Ai.TlsError"
    assert "certificate" in failed.cause
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    node = bench.node(url, tls=trusting)
    result = await node.run(bench.call())
    await node.aclose()
    assert isinstance(result.output, dict)
    assert result.output["Text"] == "So"


async def test_connections_are_used_again(bench: Bench, nursery: trio.Nursery) -> None:
    conversations: set[int] = set()

    async def answer(asked: Asked) -> None:
        conversations.add(id(asked._conversation))
        await asked.answer(bench.events("So"))

    server, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    for _ in range(3):
        await node.run(bench.call())
    await node.aclose()
    assert len(server.asked) == 3
    assert len(conversations) == 1


# --- cancelling and heartbeats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("speaking", [False, True])
async def test_cancelling_closes_the_connection(bench: Bench, nursery: trio.Nursery, speaking: bool) -> None:
    asked_for = trio.Event()
    gone = trio.Event()

    async def answer(asked: Asked) -> None:
        if speaking:
            await asked.begin()
            opening, piece = going_on(bench, "So")
            for one in [*opening, piece]:
                await asked.say(one)
        asked_for.set()
        await asked.until_gone()
        gone.set()

    _, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as calls:
            calls.start_soon(node.run, bench.call())
            await asked_for.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            scope.cancel()
    with trio.fail_after(60):
        await gone.wait()
    await node.aclose()


async def test_whatever_comes_is_a_heartbeat(bench: Bench, nursery: trio.Nursery) -> None:
    beats = 0
    heard: list[int] = []
    go_on = trio.Event()

    def beat() -> None:
        nonlocal beats, go_on
        beats += 1
        go_on.set()

    async def answer(asked: Asked) -> None:
        nonlocal go_on
        await asked.begin()
        for one in bench.events("A few words"):
            go_on = trio.Event()
            await asked.say(one)
            await go_on.wait()
            heard.append(beats)
        await asked.end()

    _, url = await bench.serve(nursery, answer)
    node = bench.node(url)
    call = bench.call_with({"Model": "m", "Prompt": "Hi"}, beat=beat, heartbeat_seconds=1.0)
    with trio.fail_after(60):
        await node.run(call)
    await node.aclose()
    assert heard == sorted(set(heard))


# --- answers that are none ---------------------------------------------------------------------------------------


async def test_a_refusal(nursery: trio.Nursery) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "Not this."}
    answer = [message_start(), *text_block(0, "I"), *message_end("refusal", stop_details=details)]
    failed = await failure_of(Bench("anthropic"), nursery, saying(answer))
    assert (failed.error, failed.unhealthy) == ("Ai.ContentRefused", False)
    assert "Not this." in failed.cause
    assert failed.usage == Usage(requests=1, input_tokens=11, output_tokens=5)
    refused = [delta(refusal="I can't "), delta(refusal="help with that."), *openai_answer("")[1:]]
    failed = await failure_of(Bench("openai"), nursery, saying(refused))
    assert failed.error == "Ai.ContentRefused"
    assert "I can't help with that." in failed.cause
    failed = await failure_of(Bench("openai"), nursery, saying(openai_answer("So", finish="content_filter")))
    assert failed.error == "Ai.ContentRefused"
    assert failed.usage == Usage(requests=1, input_tokens=11, output_tokens=5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"n": 0}', "$.n"),
        ('{"n": "one"}', "$.n"),
        ("[]", "at $:"),
        ('{"n": 1', "is not JSON"),
        ("Here you are: 1", "is not JSON"),
        ("", "is not JSON"),
    ],
)
async def test_an_answer_that_does_not_fit_its_schema(
    bench: Bench, nursery: trio.Nursery, text: str, told: str
) -> None:
    schema: JSON = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    _, url = await bench.serve(nursery, saying(bench.events(text)))
    failed = await bench.failure(bench.node(url), bench.call(ResponseSchema=schema))
    assert (failed.error, failed.unhealthy) == ("Ai.InvalidOutput", False)
    assert told in failed.cause
    assert failed.cause.endswith(f"It begins: {text}")
    assert failed.usage == Usage(requests=1, input_tokens=11, output_tokens=5)


async def test_a_tools_input_that_is_no_json_object(bench: Bench) -> None:
    for arguments in ('{"city": ', "[1]", "nonsense"):
        with pytest.raises(NodeFailure) as caught:
            await bench.answered(bench.events("", [("call_1", "weather", arguments)]))
        assert caught.value.error == "Ai.InvalidOutput"
        assert "weather" in caught.value.cause
        assert arguments in caught.value.cause


async def test_an_answer_that_was_cut_off_is_said_to_be() -> None:
    with pytest.raises(NodeFailure, match="cut off at MaxTokens"):
        await Bench("openai").answered(
            openai_answer('{"n": ', finish="length"), ResponseSchema={"type": "object", "properties": {}}
        )
