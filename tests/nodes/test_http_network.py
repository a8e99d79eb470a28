"""The http node against real servers that misbehave on purpose: each comes to a named error, or to its answer."""

from __future__ import annotations

import gzip
import ssl

import pytest
import trio
import trio.lowlevel
import trustme
from http_peers import (
    Peer,
    answer_of,
    call,
    failure,
    local_node,
    over_tls,
    request,
    resolving,
    saying,
    serving,
    silent,
    trusting,
)

# httpx2 leaves a generator of its own unclosed when an answer is not read to its end; the connection is closed.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpcore2:ResourceWarning")

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_connections_are_used_again(nursery: trio.Nursery) -> None:
    peer = Peer(nursery, serving(lambda asked: (200, {}, b"hi")))
    url = await peer.listen()
    http = local_node()
    for method in ("GET", "HEAD", "POST"):
        for _ in range(3):
            assert (await answer_of(http, request(Method=method, ApiEndpoint=url)))["StatusCode"] == 200
    await http.aclose()
    assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        HI + b"and more than it said",
        HI + HI.replace(b"hi", b"no"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + HI.replace(b"hi", b"no"),
        HI + b"HTTP/1.1 200 OK\r\nX-Half: ",
    ],
)
async def test_what_a_server_sends_beyond_its_answer_is_nobodys_answer(nursery: trio.Nursery, answer: bytes) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            await stream.send_all(answer)

    peer = Peer(nursery, talk)
    url = await peer.listen()
    http = local_node()
    for turn in range(3):
        result = await answer_of(http, request(ApiEndpoint=url))
        assert result["ResponseBody"] == "hi"
        assert "x-half" not in result["Headers"]  # type: ignore[operator]
        assert peer.connections == turn + 1
    await http.aclose()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "Http.ConnectionLost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "Http.ConnectionLost"),
        (b"HTTP/1.1 200", "Http.ConnectionLost"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "Http.ConnectionLost"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhi", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ngarbage\r\nhi", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!!garbage", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain", "Http.ProtocolError"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n", "Http.ProtocolError"),
    ],
)
async def test_broken_answers(nursery: trio.Nursery, answer: bytes, error: str) -> None:
    url = await Peer(nursery, saying(answer)).listen()
    failed = await failure(local_node(), request(ApiEndpoint=f"{url}/items?key=s3cret"))
    assert failed.error == error
    assert failed.cause.startswith(f"GET {url}/items: ")
    assert "s3cret" not in failed.cause
    assert failed.unhealthy


async def test_an_answer_without_a_length_ends_with_its_connection(nursery: trio.Nursery) -> None:
    url = await Peer(nursery, saying(b"HTTP/1.1 200 OK\r\n\r\nhi")).listen()
    http = local_node()
    assert (await answer_of(http, request(ApiEndpoint=url)))["ResponseBody"] == "hi"
    await http.aclose()


async def test_malformed_json_is_the_text_that_it_is(nursery: trio.Nursery) -> None:
    url = await Peer(nursery, serving(lambda asked: (200, {"Content-Type": "application/json"}, b'{"id": 7,'))).listen()
    http = local_node()
    result = await answer_of(http, request(ApiEndpoint=url))
    assert (result["ResponseBody"], result["ResponseBodyEncoding"]) == ('{"id": 7,', "TEXT")
    await http.aclose()


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("compressed", [False, True])
async def test_an_endless_body_is_not_read_for_ever(nursery: trio.Nursery, status: int, compressed: bool) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        encoding = b"Content-Encoding: gzip\r\n" if compressed else b""
        await stream.send_all(b"HTTP/1.1 %d OK\r\n%sTransfer-Encoding: chunked\r\n\r\n" % (status, encoding))
        chunk = gzip.compress(b"x" * 1_000_000) if compressed else b"x" * 10_000
        while True:
            await stream.send_all(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    url = await Peer(nursery, talk).listen()
    with trio.fail_after(60):
        failed = await failure(local_node(response_bytes=100_000), request(ApiEndpoint=url))
    assert failed.error == ("Http.ResponseTooLarge" if status == 200 else "States.Http.StatusCode.500")
    assert len(failed.cause) < 1500


@pytest.mark.parametrize(("status", "unhealthy"), [(404, False), (429, True), (503, True)])
@pytest.mark.parametrize("given", ["7", "7.0", "7.5", "Wed, 21 Oct 2026 07:28:07 GMT"])
async def test_retry_after_is_passed_on(nursery: trio.Nursery, status: int, unhealthy: bool, given: str) -> None:
    headers = {"Retry-After": given, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    url = await Peer(nursery, serving(lambda asked: (status, headers, b"later"))).listen()
    failed = await failure(local_node(), request(ApiEndpoint=url))
    assert failed.error == f"States.Http.StatusCode.{status}"
    assert failed.retry_after_seconds == 7.0
    assert failed.unhealthy is unhealthy


async def test_every_chunk_is_a_heartbeat(nursery: trio.Nursery) -> None:
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for before in range(1, 4):
            while beats < before:
                await trio.lowlevel.checkpoint()
            await stream.send_all(b"2\r\nhi\r\n")
        await stream.send_all(b"0\r\n\r\n")

    url = await Peer(nursery, talk).listen()
    http = local_node()
    with trio.fail_after(60):
        result = await http.run(call({"Method": "GET", "ApiEndpoint": url}, beat=beat))
    assert isinstance(result, dict)
    assert result["ResponseBody"] == "hihihi"
    await http.aclose()
    assert beats >= 4


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    failed = await failure(local_node(), request(ApiEndpoint=f"http://127.0.0.1:{port}/"))
    assert failed.error == "Http.ConnectionRefused"
    assert failed.unhealthy


async def test_no_such_host() -> None:
    failed = await failure(local_node(), request(ApiEndpoint="http://no-such-host.invalid/"))
    assert failed.error == "Http.ConnectError"
    assert failed.unhealthy


async def test_a_silent_peer_runs_into_the_read_timeout(nursery: trio.Nursery) -> None:
    url = await Peer(nursery, silent).listen()
    failed = await failure(local_node(read_seconds=0.05), request(ApiEndpoint=url))
    assert failed.error == "States.Http.Socket"
    assert failed.unhealthy


async def test_a_peer_that_stops_mid_body_runs_into_the_read_timeout(nursery: trio.Nursery) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await trio.sleep_forever()

    url = await Peer(nursery, talk).listen()
    failed = await failure(local_node(read_seconds=0.05), request(ApiEndpoint=url))
    assert failed.error == "States.Http.Socket"


async def test_no_connection_in_time_runs_into_the_connect_timeout(nursery: trio.Nursery) -> None:
    """The TLS handshake is part of connecting, and this peer never answers it."""
    url = await Peer(nursery, silent).listen()
    failed = await failure(local_node(connect_seconds=0.05), request(ApiEndpoint=url.replace("http:", "https:")))
    assert failed.error == "Http.ConnectTimeout"
    assert failed.unhealthy


async def test_a_name_server_that_does_not_answer_runs_into_the_connect_timeout() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await trio.sleep_forever()
        return []

    failed = await failure(local_node(connect_seconds=0.05, resolve=resolve), request())
    assert failed.error == "Http.ConnectTimeout"


async def test_cancelling_closes_the_connection(nursery: trio.Nursery) -> None:
    ended = trio.Event()
    asked = trio.Event()

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        asked.set()
        assert await stream.receive_some() == b""
        ended.set()

    url = await Peer(nursery, talk).listen()
    http = local_node()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as calls:
            calls.start_soon(http.run, request(ApiEndpoint=url))
            await asked.wait()
            scope.cancel()
    with trio.fail_after(60):
        await ended.wait()
    await http.aclose()


async def test_certificates_are_checked(nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    talk = over_tls(authority, serving(lambda asked: (200, {}, b"secure")))
    url = (await Peer(nursery, talk).listen()).replace("http:", "https:")
    failed = await failure(local_node(), request(ApiEndpoint=url))
    assert failed.error == "Http.TlsError"
    assert "certificate" in failed.cause
    assert failed.unhealthy

    http = local_node(tls=trusting(authority))
    assert (await answer_of(http, request(ApiEndpoint=url)))["ResponseBody"] == "secure"
    await http.aclose()


async def test_a_certificate_is_for_the_name_that_was_asked_for(nursery: trio.Nursery) -> None:
    """The connection goes to an address; the certificate has to be the host's all the same."""
    authority = trustme.CA()
    peer = Peer(nursery, over_tls(authority, serving(lambda asked: (200, {}, b"secure")), "shop.test"))
    await peer.listen()

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    http = local_node(tls=trusting(authority), resolve=resolve)
    result = await answer_of(http, request(ApiEndpoint=f"https://shop.test:{peer.port}/"))
    assert result["ResponseBody"] == "secure"
    failed = await failure(http, request(ApiEndpoint=f"https://other.test:{peer.port}/"))
    assert failed.error == "Http.TlsError"
    assert "other.test" in failed.cause


async def test_an_expired_certificate(nursery: trio.Nursery) -> None:
    import datetime

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1)
    authority.issue_cert("127.0.0.1", not_after=past).configure_cert(context)

    async def talk(stream: trio.abc.Stream) -> None:
        await trio.SSLStream(stream, context, server_side=True).receive_some()

    url = (await Peer(nursery, talk).listen()).replace("http:", "https:")
    failed = await failure(local_node(tls=trusting(authority)), request(ApiEndpoint=url))
    assert failed.error == "Http.TlsError"
    assert "expired" in failed.cause


async def test_tls_against_a_peer_that_speaks_none(nursery: trio.Nursery) -> None:
    url = await Peer(nursery, saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")).listen()
    failed = await failure(local_node(), request(ApiEndpoint=url.replace("http:", "https:")))
    assert failed.error == "Http.TlsError"


async def test_a_redirect_loop(nursery: trio.Nursery) -> None:
    peer = Peer(nursery, serving(lambda asked: (302, {"Location": "/again"}, b"")))
    failed = await failure(local_node(redirects=3), request(ApiEndpoint=await peer.listen()))
    assert failed.error == "Http.TooManyRedirects"
    assert failed.unhealthy is False


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://",
        "http://a:port/",
        "//",
        "http://\u00e9.test/",
        "http://a b/",
        "\\\\x",
        "?",
        "#",
        "javascript:1",
        "x" * 90_000,
    ],
)
async def test_redirects_to_nowhere_are_named_errors(nursery: trio.Nursery, location: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    url = await Peer(nursery, saying(head.encode("latin-1"))).listen()
    failed = await failure(local_node(redirects=1, resolve=resolving([])), request(ApiEndpoint=url))
    assert failed.error.startswith(("Http.", "States.Http."))


async def test_proxies_of_the_environment_are_not_used(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Peer(nursery, silent)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, await proxy.listen())
    url = await Peer(nursery, serving(lambda asked: (200, {}, b"straight"))).listen()
    http = local_node()
    assert (await answer_of(http, request(ApiEndpoint=url)))["ResponseBody"] == "straight"
    await http.aclose()
    assert proxy.connections == 0
