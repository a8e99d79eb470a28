"""Calls of the http node, and servers that do with each connection what a test says."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import h11
import pytest
import trio
import trustme

from daemon.connections import Connections
from daemon.nodes.http import HttpNode
from daemon.nodes.web.network import Resolver, system_resolver
from daemon.settings import ConnectionSettings, HttpSettings
from enginekit.messages.json import JSON
from enginekit.node import NodeCall, NodeFailure

Talking = Callable[[trio.abc.Stream], Awaitable[None]]

LOOPBACK = ["127.0.0.0/8", "::1"]


def call(arguments: JSON, tenant: str = "t", beat: Callable[[], None] = lambda: None) -> NodeCall:
    return NodeCall(
        tenant=tenant,
        workflow_id="w",
        run_id="r",
        node="Fetch",
        path="Fetch",
        resource="http",
        input=arguments,
        attempt=1,
        timeout_seconds=60.0,
        idempotency_key="key-1",
        beat=beat,
    )


def request(**fields: JSON) -> NodeCall:
    return call({"Method": "GET", "ApiEndpoint": "http://shop.test/items", **fields})


def local_node(
    connections: dict[str, ConnectionSettings] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    resolve: Resolver = system_resolver,
    **settings: object,
) -> HttpNode:
    """One that may call this machine."""
    made = HttpSettings(**({"allow": LOOPBACK} | settings))  # type: ignore[arg-type]
    return HttpNode(made, Connections(connections or {}), tls=tls, resolve=resolve)


async def failure(http: HttpNode, given: NodeCall) -> NodeFailure:
    with pytest.raises(NodeFailure) as caught:
        await http.run(given)
    await http.aclose()
    return caught.value


async def answer_of(http: HttpNode, given: NodeCall) -> dict[str, JSON]:
    result = await http.run(given)
    assert isinstance(result, dict)
    return result


class Peer:
    """A listener that does with each connection what a test says."""

    def __init__(self, nursery: trio.Nursery, talk: Talking) -> None:
        self._nursery = nursery
        self._talk = talk
        self.connections = 0
        self.port = 0

    async def listen(self) -> str:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._nursery.start_soon(trio.serve_listeners, self._handle, [listener])
        self.port = listener.socket.getsockname()[1]
        return f"http://127.0.0.1:{self.port}"

    async def _handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            async with stream:
                await self._talk(stream)
        except trio.BrokenResourceError:
            pass  # The client had enough of it.


def saying(answer: bytes) -> Talking:
    """Answers the first thing that it hears, and hangs up."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    return talk


async def silent(stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


class Asked:
    """A request as a server gets it."""

    def __init__(self, head: h11.Request, body: bytes) -> None:
        self.method = head.method.decode()
        self.target = head.target.decode()
        self.headers = {name.decode(): value.decode() for name, value in head.headers}
        self.body = body


Answer = tuple[int, dict[str, str], bytes]


def serving(answer: Callable[[Asked], Answer]) -> Talking:
    """A server that keeps its connections and gives each request its answer."""

    async def talk(stream: trio.abc.Stream) -> None:
        server = h11.Connection(h11.SERVER)
        while True:
            head: h11.Request | None = None
            body = bytearray()
            while True:
                event = server.next_event()
                if event is h11.NEED_DATA:
                    server.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return
            assert head is not None
            status, headers, content = answer(Asked(head, bytes(body)))
            headers = {"Content-Length": str(len(content)), **headers}
            out = server.send(h11.Response(status_code=status, headers=list(headers.items()), reason=b"As Asked"))
            assert out is not None
            if head.method != b"HEAD":
                out += server.send(h11.Data(data=content)) or b""
            out += server.send(h11.EndOfMessage()) or b""
            await stream.send_all(out)
            if server.our_state is not h11.DONE:
                return
            server.start_next_cycle()

    return talk


def over_tls(authority: trustme.CA, talk: Talking, *names: str) -> Talking:
    """The same, with a certificate of that authority for the names (127.0.0.1 without any)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)

    async def secure(stream: trio.abc.Stream) -> None:
        await talk(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    return secure


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def resolving(*answers: list[str]) -> Resolver:
    """A name server that gives each look-up the next of these answers, and then the last one."""
    given = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return given.pop(0) if len(given) > 1 else given[0]

    return resolve
