"""JSON-RPC 2.0 to the letter, on bytes alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from daemon.api import jsonrpc
from daemon.api.jsonrpc import Malformed, Request, UnknownMethod, parse
from enginekit.messages.status import ErrorStatus, Refused

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
almost_requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2.0, None]),
        "method": st.sampled_from(["Hello", "", 1, None]),
        "params": json_values,
        "id": json_values,
    },
)


def one(frame: bytes) -> Request | Malformed:
    parsed = parse(frame, 10)
    assert not isinstance(parsed, list)
    return parsed


def refused(frame: bytes) -> tuple[int, Any]:
    parsed = one(frame)
    assert isinstance(parsed, Malformed), parsed
    response = json.loads(jsonrpc.encode_malformed(parsed))
    assert response["jsonrpc"] == "2.0"
    assert response["error"]["data"]["status"] == "INVALID_ARGUMENT"
    assert "result" not in response
    return response["error"]["code"], response["id"]


@given(st.binary(max_size=300))
def test_no_frame_of_bytes_is_more_than_refused(frame: bytes) -> None:
    try:
        json.loads(frame.decode())
    except (ValueError, RecursionError):
        assert refused(frame)[0] == jsonrpc.PARSE_ERROR
    else:
        parse(frame, 10)


@given(almost_requests | st.lists(almost_requests | json_values, max_size=5))
def test_every_json_frame_is_answered_as_the_specification_says(document: Any) -> None:
    parsed = parse(json.dumps(document).encode(), 3)
    if isinstance(document, dict) or not 1 <= len(document) <= 3:
        check_one(document, parsed)
    else:
        assert isinstance(parsed, list)
        for element, found in zip(document, parsed, strict=True):
            check_one(element, found)


def check_one(element: Any, found: Any) -> None:
    is_request = (
        isinstance(element, dict)
        and element.get("jsonrpc") == "2.0"
        and isinstance(element.get("method"), str)
        and isinstance(element.get("params", {}), dict | list)
        and not isinstance(element.get("id"), bool | dict | list)
    )
    if not is_request:
        assert isinstance(found, Malformed)
        assert found.code == jsonrpc.INVALID_REQUEST
        json.loads(jsonrpc.encode_malformed(found))
        return
    assert isinstance(found, Request)
    assert found.method == element["method"]
    assert json.loads(bytes(found.params)) == element.get("params", {})
    assert (found.id is None) == ("id" not in element)
    if found.id is not None:
        assert json.loads(jsonrpc.encode_result(found.id, b"{}")) == {
            "jsonrpc": "2.0",
            "id": element["id"],
            "result": {},
        }


@pytest.mark.parametrize("id", [b"1", b"1.50", b"-0", b'"\\u0061 b"', b"null", b"123456789012345678901234567890"])
def test_an_id_goes_back_as_it_was_written(id: bytes) -> None:
    parsed = one(b'{"jsonrpc": "2.0", "method": "M", "id": ' + id + b"}")
    assert isinstance(parsed, Request)
    assert parsed.id is not None
    assert jsonrpc.encode_result(parsed.id, b"7") == b'{"jsonrpc":"2.0","id":' + id + b',"result":7}'


@pytest.mark.parametrize(
    ("frame", "code", "id"),
    [
        (b"", -32700, None),
        (b"   ", -32700, None),
        (b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', -32700, None),
        (b'[{"jsonrpc": "2.0", "method": "sum", "id": "1"}, {"jsonrpc": "2.0", "method"', -32700, None),
        (b'{"jsonrpc":"2.0","method":"M","id":1,"params":{"a":"\\ud800"}}', -32700, None),
        (b'{"jsonrpc":"2.0","method":"M","id":1,"params":{"a":"\xff"}}', -32700, None),
        (b'{"jsonrpc":"2.0","method":"M","id":1,"params":{"a":01}}', -32700, None),
        (b'{"jsonrpc":"2.0","method":"M","id":1}{}', -32700, None),
        (b"[" * 100_000, -32700, None),
        (b'{"a":' * 100_000, -32700, None),
        (b'{"jsonrpc":"2.0","method":"M","id":1,"params":' + b"[" * 99_999 + b"]" * 99_999 + b"}", -32700, None),
        (b"[]", -32600, None),
        (b"1", -32600, None),
        (b'"Hello"', -32600, None),
        (b'{"jsonrpc": "2.0", "method": 1, "params": "bar"}', -32600, None),
        (b'{"jsonrpc": "2.0", "method": 1, "id": 5}', -32600, 5),
        (b'{"jsonrpc": "1.0", "method": "M", "id": "x"}', -32600, "x"),
        (b'{"method": "M", "id": 3}', -32600, 3),
        (b'{"jsonrpc": "2.0", "id": 3}', -32600, 3),
        (b'{"jsonrpc": "2.0", "method": "M", "id": [1]}', -32600, None),
        (b'{"jsonrpc": "2.0", "method": "M", "id": true}', -32600, None),
        (b'{"jsonrpc": "2.0", "method": "M", "params": "bar", "id": 9}', -32600, 9),
        (b'{"jsonrpc": "2.0", "method": "M", "params": null, "id": 9}', -32600, 9),
        (b"[" + b",".join([b'{"jsonrpc":"2.0","method":"M"}'] * 11) + b"]", -32600, None),
    ],
)
def test_what_is_no_call_is_refused_under_the_specifications_code(frame: bytes, code: int, id: Any) -> None:
    assert refused(frame) == (code, id)


def test_a_batch_keeps_its_good_calls_beside_its_bad_ones() -> None:
    parsed = parse(b' \n[1, {"jsonrpc":"2.0","method":"M","id":2}, {"foo":"boo"}]', 10)
    assert isinstance(parsed, list)
    assert [type(element) for element in parsed] == [Malformed, Request, Malformed]


def test_every_status_has_a_code_of_its_own_and_says_its_name() -> None:
    codes = set()
    for status in ErrorStatus:
        error = json.loads(jsonrpc.encode_refusal(Raw(b"1"), Refused(status, "no", {"retry_after_seconds": 2})))[
            "error"
        ]
        assert error["data"] == {"status": status.value, "retry_after_seconds": 2}
        assert error["message"] == "no"
        assert -32768 <= error["code"] <= -32000
        codes.add(error["code"])
    assert len(codes) == len(ErrorStatus)
    unknown = json.loads(jsonrpc.encode_refusal(Raw(b"1"), UnknownMethod("none")))["error"]
    assert (unknown["code"], unknown["data"]["status"]) == (-32601, "INVALID_ARGUMENT")
