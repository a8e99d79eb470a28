"""Bodies of the http node: JSON, forms, text and bytes, out and in."""

from __future__ import annotations

import base64
import time
from typing import cast
from urllib.parse import parse_qsl

import httpx2
import pytest
from http_peers import call, failure, request
from hypothesis import given
from hypothesis import strategies as st

from daemon.nodes.http import HttpNode
from daemon.nodes.web.answer import retry_after
from daemon.settings import HttpSettings
from enginekit.messages.json import JSON
from enginekit.node import COMPUTED, Argument, NodeCall

FORM = {"RequestBodyEncoding": "URL_ENCODED"}


async def sent_by(given: NodeCall) -> httpx2.Request:
    seen: list[httpx2.Request] = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        seen.append(sent)
        return httpx2.Response(200)

    await HttpNode(HttpSettings(), transport=httpx2.MockTransport(answer)).run(given)
    (only,) = seen
    return only


def post(body: JSON, **more: JSON) -> NodeCall:
    return request(Method="POST", RequestBody=body, **more)


@pytest.mark.parametrize(
    ("arrays", "form"),
    [
        (None, "a%5B0%5D=x&a%5B1%5D=y+z&b%5Bc%5D=1&d=true&e="),
        ("INDICES", "a%5B0%5D=x&a%5B1%5D=y+z&b%5Bc%5D=1&d=true&e="),
        ("REPEAT", "a=x&a=y+z&b%5Bc%5D=1&d=true&e="),
        ("BRACKETS", "a%5B%5D=x&a%5B%5D=y+z&b%5Bc%5D=1&d=true&e="),
        ("COMMAS", "a=x,y+z&b%5Bc%5D=1&d=true&e="),
    ],
)
async def test_forms_have_lists_as_they_are_asked_to(arrays: str | None, form: str) -> None:
    transform: dict[str, JSON] = dict(FORM)
    if arrays is not None:
        transform["RequestEncodingOptions"] = {"ArrayFormat": arrays}
    sent = await sent_by(post({"a": ["x", "y z"], "b": {"c": 1}, "d": True, "e": None}, Transform=transform))
    assert sent.content.decode() == form
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"


async def test_a_content_type_of_a_form_makes_a_form_of_an_object() -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    assert (await sent_by(post({"a": "é&"}, Headers=headers))).content == b"a=%C3%A9%26"
    assert (await sent_by(post("a=1", Headers=headers))).content == b"a=1"
    assert (await sent_by(post("a=1", Transform=FORM))).content == b"a=1"


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=5))
async def test_what_a_form_says_is_what_was_given(fields: dict[str, str]) -> None:
    sent = await sent_by(post(dict(fields), Transform=FORM))
    assert dict(parse_qsl(sent.content.decode(), keep_blank_values=True)) == fields


async def test_bytes_go_out_of_base64() -> None:
    data = bytes(range(256))
    given = post(base64.b64encode(data).decode(), Transform={"RequestBodyEncoding": "BASE64"})
    sent = await sent_by(given)
    assert sent.content == data
    assert sent.headers["Content-Type"] == "application/octet-stream"
    assert sent.headers["Content-Length"] == "256"
    picture = post("aGk=", Transform={"RequestBodyEncoding": "BASE64"}, Headers={"Content-Type": "image/png"})
    assert (await sent_by(picture)).headers["Content-Type"] == "image/png"


async def test_text_goes_out_in_its_charset() -> None:
    latin = await sent_by(post("café", Headers={"Content-Type": "text/plain; charset=ISO-8859-1"}))
    assert latin.content == b"caf\xe9"
    assert (await sent_by(post("café", Headers={"Content-Type": "text/plain"}))).content == "café".encode()


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (
            {"RequestBody": "1€", "Headers": {"Content-Type": "text/plain; charset=latin-1"}},
            "RequestBody cannot be sent in latin-1: character 2 is \\u20ac",
        ),
        ({"RequestBody": "x", "Headers": {"Content-Type": "text/plain; charset=klingon"}}, "nobody knows the charset"),
        ({"RequestBody": "x", "Headers": {"Content-Type": "text/plain; charset=idna"}}, "nobody knows the charset"),
        ({"RequestBody": "x", "Headers": {"Content-Type": "text/plain; charset=base64"}}, "nobody knows the charset"),
        ({"RequestBody": "no base64!", "Transform": {"RequestBodyEncoding": "BASE64"}}, "RequestBody must be base64"),
        ({"RequestBody": {"a": 1}, "Transform": {"RequestBodyEncoding": "BASE64"}}, "RequestBody must be base64"),
        ({"RequestBody": [1], "Transform": FORM}, "RequestBody must be an object"),
        (
            {"RequestBody": {"a": [{}]}, "Transform": {**FORM, "RequestEncodingOptions": {"ArrayFormat": "COMMAS"}}},
            "RequestBody cannot be sent: a has more than texts and numbers in it (COMMAS)",
        ),
        ({"RequestBody": {"a": "\ud800"}, "Transform": FORM}, "RequestBody cannot be sent in utf-8: character 1"),
        ({"RequestBody": {"a": "\ud800"}}, "RequestBody cannot be sent: "),
        ({"RequestBody": "\ud800", "Headers": {"Content-Type": "text/plain"}}, "character 1 is \\ud800"),
        ({"Transform": {"RequestBodyEncoding": "GZIP"}}, "Transform.RequestBodyEncoding must be one of NONE, URL_EN"),
        ({"Transform": {"ResponseBodyEncoding": "TEXT"}}, "Transform.ResponseBodyEncoding must be one of AUTO, BASE64"),
        (
            {"Transform": {"RequestEncodingOptions": {"ArrayFormat": "PIPES"}}},
            "Transform.RequestEncodingOptions.ArrayFormat must be one of INDICES, REPEAT, COMMAS, BRACKETS",
        ),
        ({"Transform": {"RequestEncodingOptions": 1}}, "Transform.RequestEncodingOptions must be an object"),
        ({"Transform": {"Body": 1}}, "Transform.Body is not a field here"),
        ({"Transform": "BASE64"}, "Transform must be an object"),
    ],
)
async def test_what_cannot_be_encoded_is_not_sent(arguments: dict[str, JSON], cause: str) -> None:
    def answer(sent: httpx2.Request) -> httpx2.Response:
        raise AssertionError(f"sent {sent.url}")

    node = HttpNode(HttpSettings(), transport=httpx2.MockTransport(answer))
    posted: dict[str, JSON] = {"Method": "POST", "ApiEndpoint": "http://shop.test", **arguments}
    (fault,) = node.check(cast(Argument, posted), None)
    assert cause in f"{fault.path} {fault.message}", "a definition that has all of it literally is refused as well"
    failed = await failure(node, request(Method="POST", **arguments))
    assert failed.error == "Http.InvalidArguments"
    assert cause in failed.cause
    assert failed.unhealthy is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"RequestBody": ["€", COMPUTED], "Headers": {"Content-Type": "text/plain; charset=latin-1"}},
        {"RequestBody": "€", "Headers": {"Content-Type": COMPUTED}},
        {"RequestBody": "€", "Headers": COMPUTED},
        {"RequestBody": {"a": [{}]}, "Transform": {**FORM, "RequestEncodingOptions": COMPUTED}},
        {"Headers": {"Content-Type": "text/plain; charset=klingon"}},
    ],
)
def test_what_is_not_known_yet_is_no_fault(arguments: dict[str, Argument]) -> None:
    given: Argument = {"Method": "POST", "ApiEndpoint": "http://shop.test", **arguments}
    assert list(HttpNode(HttpSettings()).check(given, None)) == []


async def answered(content: bytes, content_type: str | None, **arguments: JSON) -> tuple[JSON, JSON]:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = httpx2.Response(200, headers=headers, content=content)
    result = await HttpNode(HttpSettings(), transport=httpx2.MockTransport(lambda _: answer)).run(request(**arguments))
    assert isinstance(result, dict)
    return result["ResponseBody"], result["ResponseBodyEncoding"]


@pytest.mark.parametrize(
    ("content", "content_type", "body", "encoding"),
    [
        (b'{"a": 1}', "application/json", {"a": 1}, "JSON"),
        (b'{"a": 1', "application/json", '{"a": 1', "TEXT"),
        (b'"\\ud800"', "application/json", '"\\ud800"', "TEXT"),
        (b"[" * 100_000, "application/json", "[" * 100_000, "TEXT"),
        (b"hi", None, "hi", "TEXT"),
        (b"", None, "", "TEXT"),
        (b"", "image/png", "", "BASE64"),
        (b"\x89PNG\x00", "image/png", "iVBORwA=", "BASE64"),
        (b"all ASCII", "application/octet-stream", "YWxsIEFTQ0lJ", "BASE64"),
        (b"a\x00b", None, "YQBi", "BASE64"),
        (b"\xff\xfe", "application/x-unheard-of", "//4=", "BASE64"),
        (b"caf\xc3\xa9", "application/x-unheard-of", "café", "TEXT"),
        (b"caf\xe9", "text/plain", "caf\ufffd", "TEXT"),
        (b"caf\xe9", "text/plain; charset=latin-1", "café", "TEXT"),
        (b"caf\xc3\xa9", "text/plain; charset=punycode", "café", "TEXT"),
        (b"<a/>", "image/svg+xml", "<a/>", "TEXT"),
        (b"<a/>", "application/vnd.custom+xml", "<a/>", "TEXT"),
    ],
)
async def test_what_comes_back(content: bytes, content_type: str | None, body: JSON, encoding: str) -> None:
    assert await answered(content, content_type) == (body, encoding)


async def test_bytes_are_kept_where_that_is_asked_for() -> None:
    as_bytes: dict[str, JSON] = {"ResponseBodyEncoding": "BASE64"}
    assert await answered(b"caf\xe9", "text/csv", Transform=as_bytes) == ("Y2Fm6Q==", "BASE64")
    assert await answered(b"{}", "application/json", Transform=as_bytes) == ("e30=", "BASE64")


NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 GMT"}, 10.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        # The two older forms (RFC 9110, 5.6.7). Whatever the zone of the machine, they are in GMT.
        ({"Retry-After": "Tuesday, 14-Nov-23 22:13:30 GMT"}, 10.0),
        ({"Retry-After": "Tue Nov 14 22:13:30 2023"}, 10.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 -0000"}, 10.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 GMT", "Date": "Tue, 14 Nov 2023 22:13:00 GMT"}, 30.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:30 GMT", "Date": "yesterday"}, 10.0),
        ({"Retry-After": "Tue, 99 Nov 99999 22:13:30 GMT"}, None),
        ({"Retry-After": ""}, None),
    ],
)
def test_when_to_ask_again(monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], seconds: float | None) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "XYZ5")
            time.tzset()
            assert retry_after(httpx2.Headers(headers), NOW) == seconds
    finally:
        time.tzset()


async def test_a_refusal_says_when_to_ask_again_and_a_success_does_not_care() -> None:
    def node(status: int) -> HttpNode:
        answer = httpx2.Response(status, headers={"Retry-After": "9"})
        return HttpNode(HttpSettings(), transport=httpx2.MockTransport(lambda _: answer))

    assert (await failure(node(418), request())).retry_after_seconds == 9.0
    assert isinstance(await node(202).run(call({"Method": "GET", "ApiEndpoint": "http://shop.test"})), dict)
