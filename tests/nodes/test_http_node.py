"""The http node: what it sends, what it answers, and the name of every way to fail."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import httpx2
import msgspec
import pytest
from http_peers import call, failure, request

from daemon.nodes.http import HttpNode
from daemon.settings import HttpSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall

Answering = Callable[[httpx2.Request], httpx2.Response]


def node(answer: Answering, **settings: float) -> HttpNode:
    return HttpNode(msgspec.convert(settings, HttpSettings), transport=httpx2.MockTransport(answer))


async def sent_by(given: NodeCall) -> httpx2.Request:
    seen: list[httpx2.Request] = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.append(sent)
        return httpx2.Response(200)

    await node(answer).run(given)
    (only,) = seen
    return only


# --- what is sent ------------------------------------------------------------------------------------------------


async def test_sends_method_query_headers_and_json_body() -> None:
    sent = await sent_by(
        request(
            Method="POST",
            ApiEndpoint="http://shop.test/items?page=2",
            QueryParameters={"tag": ["red", "blue"], "limit": 10, "deep": True},
            Headers={"X-Trace": "abc", "Accept": ["text/html", "application/json"]},
            RequestBody={"name": "Zoë", "n": [1, None]},
        )
    )
    assert sent.method == "POST"
    assert sent.url.params.multi_items() == [
        ("page", "2"),
        ("tag", "red"),
        ("tag", "blue"),
        ("limit", "10"),
        ("deep", "true"),
    ]
    assert sent.headers["X-Trace"] == "abc"
    assert sent.headers.get_list("Accept") == ["text/html", "application/json"]
    assert sent.headers["Content-Type"] == "application/json"
    assert msgspec.json.decode(sent.content) == {"name": "Zoë", "n": [1, None]}


async def test_text_with_another_content_type_is_the_body_itself() -> None:
    sent = await sent_by(request(Method="PUT", Headers={"content-type": "text/xml"}, RequestBody="<a/>"))
    assert sent.content == b"<a/>"
    assert sent.headers.get_list("Content-Type") == ["text/xml"]


@pytest.mark.parametrize("content_type", ["application/json", "application/ld+json; charset=utf-8"])
async def test_text_with_a_json_content_type_is_quoted(content_type: str) -> None:
    sent = await sent_by(request(Method="PUT", Headers={"Content-Type": content_type}, RequestBody="<a/>"))
    assert sent.content == b'"<a/>"'


async def test_null_body_is_sent_and_no_body_is_none() -> None:
    assert (await sent_by(request(Method="POST", RequestBody=None))).content == b"null"
    without = await sent_by(request())
    assert without.content == b""
    assert "Content-Type" not in without.headers


async def test_the_idempotency_key_goes_along_unless_the_definition_has_one() -> None:
    assert (await sent_by(request())).headers.get_list("Idempotency-Key") == ["key-1"]
    own = await sent_by(request(Headers={"idempotency-key": "mine"}))
    assert own.headers.get_list("Idempotency-Key") == ["mine"]


async def test_cookies_of_one_call_do_not_reach_the_next() -> None:
    seen: list[httpx2.Request] = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.append(sent)
        return httpx2.Response(200, headers={"Set-Cookie": "session=of-somebody-else"})

    http = node(answer)
    await http.run(request())
    await http.run(request())
    assert [sent.headers.get("Cookie") for sent in seen] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (None, "the input"),
        ([], "the input"),
        ({"ApiEndpoint": "http://shop.test"}, "Method"),
        ({"Method": "get", "ApiEndpoint": "http://shop.test"}, "Method"),
        ({"Method": ["GET"], "ApiEndpoint": "http://shop.test"}, "Method"),
        ({"Method": "GET"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": 7}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "shop.test/items"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "ftp://shop.test"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "http://"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test:port"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "http://ann:pa55@shop.test"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "/items"}, "ApiEndpoint"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Cookies": {}}, "Cookies"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Headers": "X: 1"}, "Headers"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Headers": {"X Y": "1"}}, "Headers.X Y"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Headers": {"X": "1\r\nEvil: 2"}}, "Headers.X"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Headers": {"X": {"a": 1}}}, "Headers.X"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "Headers": {"Host": "other.test"}}, "Headers.Host"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "QueryParameters": [1]}, "QueryParameters"),
        ({"Method": "GET", "ApiEndpoint": "http://shop.test", "QueryParameters": {"a": None}}, "QueryParameters.a"),
        (
            {"Method": "GET", "ApiEndpoint": "http://shop.test", "QueryParameters": {"a": "x" * 70_000}},
            "QueryParameters",
        ),
    ],
)
async def test_bad_arguments_send_nothing_and_name_the_field(arguments: JSON, named: str) -> None:
    def answer(sent: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"sent {sent.url}")

    failed = await failure(node(answer), call(arguments))
    assert failed.error == "Http.InvalidArguments"
    assert failed.cause.startswith(f"{named} ")


# --- what comes back ---------------------------------------------------------------------------------------------


async def answered(response: httpx2.Response) -> dict[str, JSON]:
    result = await node(lambda _: response).run(request())
    assert isinstance(result, dict)
    return result


async def test_answers_status_headers_and_parsed_json() -> None:
    headers = [("Content-Type", "application/problem+json"), ("X-A", "1"), ("X-A", "2")]
    result = await answered(httpx2.Response(201, headers=headers, content=b'{"id": 7}'))
    assert result["StatusCode"] == 201
    assert result["StatusText"] == "Created"
    assert result["ResponseBody"] == {"id": 7}
    assert isinstance(result["Headers"], dict)
    assert result["Headers"]["x-a"] == ["1", "2"]
    assert result["Headers"]["content-type"] == ["application/problem+json"]


@pytest.mark.parametrize(
    ("content_type", "content", "body"),
    [
        ("text/plain", b'{"id": 7}', '{"id": 7}'),
        ("text/plain; charset=latin-1", b"caf\xe9", "café"),
        ("text/plain; charset=klingon", "café".encode(), "café"),
        ("text/plain", b"caf\xe9", "caf\ufffd"),
        ("application/json", b"{not json", "{not json"),
        ("application/json", b"", ""),
        ("application/jsonlines", b"1", "1"),
    ],
)
async def test_what_is_not_json_is_text(content_type: str, content: bytes, body: str) -> None:
    result = await answered(httpx2.Response(200, headers={"Content-Type": content_type}, content=content))
    assert result["ResponseBody"] == body


async def test_a_compressed_answer_is_unpacked_but_only_to_the_limit() -> None:
    def answer(content: bytes) -> Answering:
        return lambda _: httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(content))

    result = await node(answer(b"x" * 1000), response_bytes=1000).run(request())
    assert isinstance(result, dict)
    assert result["ResponseBody"] == "x" * 1000
    failed = await failure(node(answer(b"x" * 5_000_000), response_bytes=1000), request())
    assert failed.error == "Http.ResponseTooLarge"


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    read = 0

    class Endless(httpx2.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            nonlocal read
            while True:
                read += 100
                yield b"x" * 100

    failed = await failure(node(lambda _: httpx2.Response(200, stream=Endless()), response_bytes=1000), request())
    assert failed.error == "Http.ResponseTooLarge"
    assert "1000 bytes" in failed.cause
    assert read == 1100


@pytest.mark.parametrize("status", [400, 402, 404, 429, 500, 503, 504, 304])
async def test_a_status_that_is_no_success_becomes_the_error(status: int) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=b"because " * 1000)

    failed = await failure(node(answer, response_bytes=200), request())
    assert failed.error == f"States.Http.StatusCode.{status}"
    assert f"GET http://shop.test/items answered {status}" in failed.cause
    assert "because because" in failed.cause
    assert len(failed.cause) < 1300
    assert failed.unhealthy == (status == 429 or status >= 500)


async def test_causes_tell_no_secrets_of_the_url() -> None:
    given = request(ApiEndpoint="http://shop.test:8080/items?key=s3cret", QueryParameters={"token": "t0ken"})
    failed = await failure(node(lambda _: httpx2.Response(500)), given)
    assert failed.cause == "GET http://shop.test:8080/items answered 500 Internal Server Error"


# --- redirects ---------------------------------------------------------------------------------------------------


def redirecting(times: int) -> Answering:
    def answer(sent: httpx2.Request) -> httpx2.Response:
        hop = int(sent.url.params.get("hop", "0"))
        if hop == times:
            return httpx2.Response(200, content=sent.method.encode())
        return httpx2.Response(303, headers={"Location": f"/items?hop={hop + 1}"})

    return answer


async def test_redirects_are_followed_up_to_the_limit() -> None:
    result = await node(redirecting(3), redirects=3).run(request(Method="POST", RequestBody={}))
    assert isinstance(result, dict)
    assert result["ResponseBody"] == "GET"
    failed = await failure(node(redirecting(4), redirects=3), request())
    assert failed.error == "Http.TooManyRedirects"


async def test_a_redirect_to_something_else_than_http_fails() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(302, headers={"Location": "file:///etc/passwd"})

    assert (await failure(node(answer), request())).error == "Http.ProtocolError"
