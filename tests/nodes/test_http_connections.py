"""The http node with connections: their secret goes to their server alone, and comes back to nobody."""

from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
import trio
from http_peers import Answer, Asked, Peer, answer_of, call, failure, local_node, request, resolving, saying, serving

from daemon.connections import Connections
from daemon.nodes.http import HttpNode
from daemon.settings import ConnectionAuth, ConnectionSettings, HttpSettings
from enginekit.messages.json import JSON
from enginekit.node import COMPUTED, Argument, NodeFailure

SECRET = "s3cr3t/of+the shop"
ARN = "arn:aws:events:us-east-2:123456789012:connection/shop/81210c42-8af1-456b-9c4a-6ff02fc664ac"

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpcore2:ResourceWarning")


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    replace(path, SECRET)
    return path


def replace(file: Path, secret: str) -> None:
    file.write_text(secret)


def shop(url: str, secret_file: Path, auth: ConnectionAuth = ConnectionAuth.BEARER, **more: str) -> HttpNode:
    settings = ConnectionSettings(url=url, tenants=["t"], auth=auth, secret_file=str(secret_file), **more)
    return local_node({"shop": settings}, allow=[])


def mirror(asked: Asked) -> Answer:
    """Answers with everything that it was sent."""
    told = {"target": asked.target, "headers": asked.headers, "body": asked.body.decode()}
    return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()


class Seen:
    """What a server was asked, by turns."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return 200, {}, b"ok"


@pytest.mark.parametrize(
    "named", [{"Connection": "shop"}, {"Authentication": {"ConnectionArn": ARN}}], ids=["ours", "theirs"]
)
async def test_a_private_server_is_called_with_its_secret(
    nursery: trio.Nursery, secret_file: Path, named: dict[str, JSON]
) -> None:
    """On loopback, which no call may reach otherwise: whoever wrote engine.toml chose the host."""
    seen = Seen()
    url = await Peer(nursery, serving(seen)).listen()
    http = shop(url, secret_file)
    await answer_of(http, request(ApiEndpoint=f"{url}/items", **named))
    await answer_of(http, request(ApiEndpoint=f"{url}/items", Headers={"authorization": "Bearer mine"}, **named))
    assert [asked.headers["authorization"] for asked in seen.asked] == [f"Bearer {SECRET}"] * 2
    assert (await failure(http, request(ApiEndpoint=f"{url}/items"))).error == "Http.AddressRefused"
    assert len(seen.asked) == 2


async def test_basic_and_api_keys(nursery: trio.Nursery, secret_file: Path) -> None:
    seen = Seen()
    url = await Peer(nursery, serving(seen)).listen()
    for node in (
        shop(url, secret_file, ConnectionAuth.BASIC, username="ann"),
        shop(url, secret_file, ConnectionAuth.API_KEY),
        shop(url, secret_file, ConnectionAuth.API_KEY, query="key"),
    ):
        given = request(ApiEndpoint=f"{url}/i?a=1&key=mine", QueryParameters={"b": 2, "key": "mine"}, Connection="shop")
        await answer_of(node, given)
        await node.aclose()
    basic, header, query = seen.asked
    assert basic.headers["authorization"] == "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
    assert header.headers["x-api-key"] == SECRET
    assert query.target.startswith("/i?a=1&key=")
    assert "mine" not in query.target
    assert query.target.count("key=") == 1


async def test_an_endpoint_goes_on_from_the_connections_url(nursery: trio.Nursery, secret_file: Path) -> None:
    seen = Seen()
    url = await Peer(nursery, serving(seen)).listen()
    http = shop(f"{url}/api/", secret_file)
    for endpoint in ("/items?a=1", "//evil.test/x", "/@evil.test/"):
        await answer_of(http, request(ApiEndpoint=endpoint, Connection="shop"))
    await http.aclose()
    assert [asked.target for asked in seen.asked] == ["/api/items?a=1", "/api//evil.test/x", "/api/@evil.test/"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://other.test/",
        "https://shop.test/",
        "http://shop.test:81/",
        "http://shop.test.evil.test/",
        "http://SHOP.test:80./",
    ],
)
async def test_another_origin_is_not_called(secret_file: Path, endpoint: str) -> None:
    settings = ConnectionSettings(
        url="http://shop.test", tenants=["t"], auth=ConnectionAuth.BEARER, secret_file=str(secret_file)
    )
    http = local_node({"shop": settings}, resolve=resolving([]))
    failed = await failure(http, request(ApiEndpoint=endpoint, Connection="shop"))
    assert failed.error in ("Http.ConnectionMismatch", "Http.InvalidArguments")
    assert failed.unhealthy is None
    assert SECRET not in failed.cause


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_ends_the_call(nursery: trio.Nursery, secret_file: Path, status: int) -> None:
    other = Peer(nursery, serving(Seen()))
    location = (await other.listen()).replace("127.0.0.1", "localhost")
    seen = Seen()

    def answer(asked: Asked) -> Answer:
        seen(asked)
        return status, {"Location": f"{location}/?{quote(SECRET)}"}, b""

    url = await Peer(nursery, serving(answer)).listen()
    failed = await failure(shop(url, secret_file), request(ApiEndpoint=f"{url}/items", Connection="shop"))
    assert failed.error == "Http.ConnectionMismatch"
    assert f'GET {url}/items redirects to {location}, and connection "shop" is for {url} only' in failed.cause
    assert len(seen.asked) == 1
    assert other.connections == 0


async def test_a_redirect_within_the_host_keeps_the_secret(nursery: trio.Nursery, secret_file: Path) -> None:
    seen = Seen()

    def answer(asked: Asked) -> Answer:
        seen(asked)
        return (303, {"Location": "/second?b=2"}, b"") if asked.target.startswith("/first") else (200, {}, b"ok")

    url = await Peer(nursery, serving(answer)).listen()
    http = shop(url, secret_file, ConnectionAuth.API_KEY, query="key")
    await answer_of(http, request(Method="POST", ApiEndpoint="/first", RequestBody={}, Connection="shop"))
    await http.aclose()
    assert seen.asked[1].method == "GET"
    assert seen.asked[1].target.startswith("/second?b=2&key=s3cr3t")


async def test_a_server_that_repeats_the_secret_tells_nobody(nursery: trio.Nursery, secret_file: Path) -> None:
    url = await Peer(nursery, serving(mirror)).listen()
    for node in (
        shop(url, secret_file),
        shop(url, secret_file, ConnectionAuth.BASIC, username="ann"),
        shop(url, secret_file, ConnectionAuth.API_KEY, query="key"),
    ):
        for transform in ({}, {"ResponseBodyEncoding": "BASE64"}):
            result = await answer_of(node, request(ApiEndpoint=f"{url}/x", Connection="shop", Transform=transform))
            body = result["ResponseBody"]
            shown = base64.b64decode(body).decode() if isinstance(body, str) else json.dumps(body)
            assert "[redacted]" in shown
            assert_secret_not_in(json.dumps(result) + shown)
        await node.aclose()


def assert_secret_not_in(text: str) -> None:
    for form in (SECRET, quote(SECRET), quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()[:-4]):
        assert form not in text
    assert base64.b64encode(f"ann:{SECRET}".encode()).decode() not in text


@pytest.mark.parametrize("padding", [0, 900, 1015, 1020, 5000])
@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream"])
async def test_refusals_that_repeat_the_secret_tell_nobody(
    nursery: trio.Nursery, secret_file: Path, padding: int, content_type: str
) -> None:
    """Wherever the cause is cut, there is no half of it either."""

    def answer(asked: Asked) -> Answer:
        echoed = "x" * padding + asked.headers["authorization"] + SECRET * 200
        return 401, {"Content-Type": content_type, "X-Echo": SECRET}, echoed.encode()

    url = await Peer(nursery, serving(answer)).listen()
    failed = await failure(shop(url, secret_file), request(ApiEndpoint=url, Connection="shop"))
    assert failed.error == "States.Http.StatusCode.401"
    assert SECRET[:6] not in failed.cause
    assert len(failed.cause) < 1400
    assert SECRET[:6] not in "".join(traceback.format_exception(failed))


async def test_where_a_refusal_was_cut_there_is_no_beginning_of_a_secret(
    nursery: trio.Nursery, secret_file: Path
) -> None:
    """The cause is shorter than what was read, since the secret is: its end would show."""
    secret = "s3cr3t-" + "x" * 200
    replace(secret_file, secret)

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n" + (secret * 20)[:-50].encode())
        await trio.sleep_forever()

    url = await Peer(nursery, talk).listen()
    failed = await failure(shop(url, secret_file), request(ApiEndpoint=url, Connection="shop"))
    assert failed.error == "States.Http.StatusCode.500"
    assert "[redacted]" in failed.cause or failed.cause.endswith("500 No")
    assert "s3cr3t" not in failed.cause


@pytest.mark.parametrize(
    "answer",
    [
        f"{SECRET}\r\n\r\n",
        f"HTTP/1.1 200 {SECRET}\r\nContent-Length: {SECRET}\r\n\r\n",
        f"HTTP/1.1 {SECRET}\r\n\r\n",
        f"HTTP/1.1 500 {SECRET}\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: ftp://{quote(SECRET)}/\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_answers_that_are_no_http_tell_nobody(nursery: trio.Nursery, secret_file: Path, answer: str) -> None:
    url = await Peer(nursery, saying(answer.encode())).listen()
    failed = await failure(shop(url, secret_file), request(ApiEndpoint=url, Connection="shop"))
    assert_secret_not_in("".join(traceback.format_exception(failed)) + failed.cause)


@pytest.mark.parametrize("padding", [*range(900, 1024, 8), 5000])
async def test_wherever_the_cause_of_no_http_is_cut_there_is_no_half_of_a_secret(
    nursery: trio.Nursery, secret_file: Path, padding: int
) -> None:
    line = "x" * padding + SECRET + "x" * 2000
    url = await Peer(nursery, saying(f"{line}\r\n\r\n".encode())).listen()
    failed = await failure(shop(url, secret_file), request(ApiEndpoint=url, Connection="shop"))
    assert failed.error == "Http.ProtocolError"
    assert "xxx" in failed.cause
    assert SECRET[:3] not in failed.cause
    assert len(failed.cause) <= 1024


async def test_names_and_values_of_headers_are_redacted(nursery: trio.Nursery, secret_file: Path) -> None:
    replace(secret_file, "secret-token-of-shop")

    def answer(asked: Asked) -> Answer:
        return 200, {"X-Got": asked.headers["authorization"], "secret-token-of-shop": "1"}, b"ok"

    url = await Peer(nursery, serving(answer)).listen()
    http = shop(url, secret_file)
    result = await answer_of(http, request(ApiEndpoint=url, Connection="shop"))
    await http.aclose()
    headers = result["Headers"]
    assert isinstance(headers, dict)
    assert headers["x-got"] == ["Bearer [redacted]"]
    assert headers["[redacted]"] == ["1"]


async def test_a_new_secret_counts_from_the_next_call_on(nursery: trio.Nursery, secret_file: Path) -> None:
    seen = Seen()
    url = await Peer(nursery, serving(seen)).listen()
    http = shop(url, secret_file)
    await answer_of(http, request(ApiEndpoint=url, Connection="shop"))
    replace(secret_file, "another-secret")
    await answer_of(http, request(ApiEndpoint=url, Connection="shop"))
    assert [asked.headers["authorization"] for asked in seen.asked] == [f"Bearer {SECRET}", "Bearer another-secret"]
    replace(secret_file, "")
    failed = await failure(http, request(ApiEndpoint=url, Connection="shop"))
    assert failed.error == "Engine.ConnectionUnusable"
    assert len(seen.asked) == 2


async def test_another_tenants_connection_is_as_unknown_as_none(secret_file: Path) -> None:
    http = shop("http://shop.test", secret_file)
    arguments: JSON = {"Method": "GET", "ApiEndpoint": "/", "Connection": "shop"}
    with pytest.raises(NodeFailure) as theirs:
        await http.run(call(arguments, tenant="other"))
    with pytest.raises(NodeFailure) as nobodys:
        await local_node().run(call(arguments, tenant="other"))
    assert theirs.value.error == "Engine.UnknownConnection"
    assert theirs.value.cause == nobodys.value.cause


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        ({"Connection": "shop"}, []),
        ({"Authentication": {"ConnectionArn": ARN}}, []),
        ({"Connection": COMPUTED}, []),
        ({"Authentication": COMPUTED}, []),
        ({"Authentication": {"ConnectionArn": COMPUTED}}, []),
        ({"Connection": "shpo"}, ["Connection"]),
        ({"Connection": None}, ["Connection"]),
        ({"Connection": 5}, ["Connection"]),
        ({"Authentication": {"ConnectionArn": ARN.replace("/shop/", "/shpo/")}}, ["Authentication.ConnectionArn"]),
        ({"Authentication": {"ConnectionArn": "shop"}}, ["Authentication.ConnectionArn"]),
        ({"Authentication": {}}, ["Authentication.ConnectionArn"]),
        ({"Authentication": "shop"}, ["Authentication"]),
        ({"Authentication": {"ConnectionArn": ARN, "Key": 1}}, ["Authentication.Key"]),
        ({"Authentication": {"ConnectionArn": ARN}, "Connection": "shop"}, ["Authentication"]),
    ],
)
def test_what_a_definition_may_name(arguments: dict[str, Argument], paths: list[str]) -> None:
    http = HttpNode(HttpSettings(), Connections({"shop": ConnectionSettings(url="http://a", tenants=["t"])}))
    given: Argument = {"Method": "GET", "ApiEndpoint": "/items", **arguments}
    assert [fault.path for fault in http.check(given, "t")] == paths
    if arguments == {"Connection": "shop"}:
        assert [fault.path for fault in http.check(given, "other")] == ["Connection"]
    if arguments == {"Connection": "shpo"}:
        assert list(http.check(given, None)) == []


async def test_two_connections_to_one_host_do_not_share_a_tcp_connection(
    nursery: trio.Nursery, secret_file: Path
) -> None:
    """Nor does a call without one use what was opened for those: its host may be open to them alone."""
    peer = Peer(nursery, serving(Seen()))
    url = await peer.listen()
    settings = ConnectionSettings(url=url, tenants=["t"], auth=ConnectionAuth.BEARER, secret_file=str(secret_file))
    http = local_node({"one": settings, "two": settings}, allow=[])
    for name in ("one", "two", "one"):
        await answer_of(http, request(ApiEndpoint=url, Connection=name))
    assert peer.connections == 2
    assert (await failure(http, request(ApiEndpoint=url))).error == "Http.AddressRefused"
