"""A small HTTP/1.1 server on Trio and h11: enough for the shop, and able to hang up without an answer.

Knows requests and answers; what they mean is the shop's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import h11
import msgspec
import trio

from enginekit.messages.json import JSON, NotJSON, decode, encode

BODY_BYTES = 64 * 1024
IDLE_SECONDS = 60.0
READ_SECONDS = 10.0
CONNECTIONS = 500


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`headers` have lower-case names; `body` is the JSON that came, or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: JSON


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: JSON
    headers: dict[str, str] = {}


class HangUp(Exception):
    """Close the connection without an answer."""


Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]


async def serve(
    handler: Handler, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled. Reports the port it listens on. A handler may raise HangUp; any other exception of its
    is a defect and ends the server."""
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=CONNECTIONS)
    slots = trio.Semaphore(CONNECTIONS)

    async def connection(stream: trio.SocketStream) -> None:
        async with slots:
            await _converse(handler, stream)

    bound: int = listeners[0].socket.getsockname()[1]
    task_status.started(bound)
    await trio.serve_listeners(connection, listeners)


async def _converse(handler: Handler, stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    try:
        while True:
            request = await _receive(http, stream)
            if request is None:
                return
            answer = await handler(request)
            await _answer(http, stream, answer)
            if http.our_state is h11.MUST_CLOSE:
                return
            http.start_next_cycle()
    except (HangUp, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        return
    except h11.RemoteProtocolError as error:
        if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with trio.move_on_after(READ_SECONDS):
                try:
                    await _answer(http, stream, Answer(status=error.error_status_hint, body={"error": str(error)}))
                except trio.BrokenResourceError:
                    return
    finally:
        await trio.aclose_forcefully(stream)


async def _receive(http: h11.Connection, stream: trio.SocketStream) -> Request | None:
    """The next request, or None when the client has closed or gone quiet."""
    head: h11.Request | None = None
    body = bytearray()
    patience = IDLE_SECONDS
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                await stream.send_all(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = b""
            with trio.move_on_after(patience) as scope:
                data = await stream.receive_some(65536)
            if scope.cancelled_caught:
                return None
            http.receive_data(data)
            patience = READ_SECONDS
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise h11.RemoteProtocolError(f"a body over {BODY_BYTES} bytes", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _request(head, bytes(body))
        else:
            return None


def _request(head: h11.Request, body: bytes) -> Request:
    try:
        value = decode(body) if body else None
    except NotJSON as error:
        raise h11.RemoteProtocolError(str(error), error_status_hint=400) from error
    return Request(
        method=head.method.decode("ascii"),
        path=head.target.decode("latin-1").partition("?")[0],
        headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
        body=value,
    )


async def _answer(http: h11.Connection, stream: trio.SocketStream, answer: Answer) -> None:
    body = bytes(encode(answer.body))
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *answer.headers.items()]
    data = http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    data += http.send(h11.Data(data=body)) or b""
    data += http.send(h11.EndOfMessage()) or b""
    with trio.fail_after(READ_SECONDS):
        await stream.send_all(data)
