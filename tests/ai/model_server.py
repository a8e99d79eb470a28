"""A local server in a language model's place: HTTP/1.1 on a socket, and it answers as a test says, however badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Sequence

import h11
import trio

STREAM = (("Content-Type", "text/event-stream; charset=utf-8"),)


class Asked:
    """One request, and the means to answer it."""

    def __init__(
        self, conversation: h11.Connection, stream: trio.abc.Stream, request: h11.Request, body: bytes
    ) -> None:
        self._conversation = conversation
        self._stream = stream
        self.method = request.method.decode()
        self.path = request.target.decode()
        self.headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        self.body = json.loads(body) if body else None

    async def begin(self, status: int = 200, headers: Sequence[tuple[str, str]] = STREAM) -> None:
        framing = [("Transfer-Encoding", "chunked")]
        await self._send(h11.Response(status_code=status, headers=[*headers, *framing]))

    async def say(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def raw(self, data: bytes) -> None:
        """Bytes that no HTTP library would send."""
        await self._stream.send_all(data)

    async def refuse(self, status: int, body: object, headers: Sequence[tuple[str, str]] = ()) -> None:
        await self.begin(status, [("Content-Type", "application/json"), *headers])
        await self.say(json.dumps(body).encode())
        await self.end()

    async def answer(self, events: Sequence[bytes]) -> None:
        """A whole stream of events."""
        await self.begin()
        for one in events:
            await self.say(one)
        await self.end()

    async def until_gone(self) -> None:
        """Returns when the other side has closed the connection."""
        while True:
            try:
                if not await self._stream.receive_some():
                    return
            except trio.BrokenResourceError:
                return

    async def _send(self, part: h11.Event) -> None:
        data = self._conversation.send(part)
        assert data is not None
        await self._stream.send_all(data)


Answering = Callable[[Asked], Awaitable[None]]


class ModelServer:
    """`answering` is called with each request; what it leaves unfinished is cut off. `tls` makes it speak TLS."""

    def __init__(self, nursery: trio.Nursery, answering: Answering, tls: ssl.SSLContext | None = None) -> None:
        self._nursery = nursery
        self._answering = answering
        self._tls = tls
        self.asked: list[Asked] = []

    async def listen(self) -> str:
        """Its base URL."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._nursery.start_soon(trio.serve_listeners, self._serve, [listener])
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}"

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        try:
            await self._converse(stream)
        except (trio.BrokenResourceError, h11.ProtocolError):
            return
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        conversation = h11.Connection(h11.SERVER)
        while True:
            request: h11.Request | None = None
            body = b""
            while True:
                part = conversation.next_event()
                if part is h11.NEED_DATA:
                    conversation.receive_data(await stream.receive_some())
                elif isinstance(part, h11.Request):
                    request = part
                elif isinstance(part, h11.Data):
                    body += part.data
                elif isinstance(part, h11.EndOfMessage):
                    break
                else:
                    return
            assert request is not None
            asked = Asked(conversation, stream, request, body)
            self.asked.append(asked)
            await self._answering(asked)
            if conversation.our_state is not h11.DONE:
                return
            conversation.start_next_cycle()
