"""A small real WebSocket server that answers as a test scripts it: late, twice, with refusals, or by hanging up."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from enginekit.messages.calls import HelloResult, Limits
from enginekit.messages.status import ErrorStatus, Refused

LIMITS = Limits(
    payload_bytes=262144, frame_bytes=1_000_000, history_events=250000, history_bytes=268435456, batch_calls=100
)


class HangUp(Exception):
    """Close the connection's socket instead of answering."""


class Silence(Exception):
    """Do not answer."""


@dataclass
class Twice:
    """Answer with this, two times."""

    result: object


Handler = Callable[[dict[str, Any]], Awaitable[object]]


def answers(*script: object) -> Handler:
    """One answer a call, in order; the last one for ever. Exceptions are raised."""
    left = list(script)

    async def handler(params: dict[str, Any]) -> object:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


def unavailable(**data: Any) -> Refused:
    return Refused(ErrorStatus.UNAVAILABLE, "not now", data)


@dataclass
class ScriptedEngine:
    handlers: dict[str, Handler] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    messages: list[list[str]] = field(default_factory=list)
    limits: Limits = LIMITS
    reject: tuple[int, bytes] | None = None
    subprotocol: str | None = "engine.v1"
    port: int = 0
    scheme: str = "ws"
    open: set[WebSocketConnection] = field(default_factory=set)
    _came: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/rpc"

    def count(self, method: str) -> int:
        return Counter(name for name, _ in self.seen)[method]

    def params(self, method: str) -> list[dict[str, Any]]:
        return [params for name, params in self.seen if name == method]

    async def until(self, method: str, calls: int = 1) -> None:
        """Return once this many calls of a method have come."""
        while self.count(method) < calls:
            self._came = trio.Event()
            await self._came.wait()

    async def hang_up(self) -> None:
        for websocket in list(self.open):
            await websocket._stream.aclose()

    async def connect(self, request: WebSocketRequest) -> None:
        headers = dict(request.headers)
        self.tokens.append(headers[b"authorization"].decode().removeprefix("Bearer "))
        if self.reject is not None:
            status, body = self.reject
            await request.reject(status, body=body)
            return
        websocket = await request.accept(subprotocol=self.subprotocol)
        self.open.add(websocket)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    nursery.start_soon(self._message, websocket, json.loads(await websocket.get_message()))
        except* ConnectionClosed:
            pass
        finally:
            self.open.discard(websocket)

    async def _message(self, websocket: WebSocketConnection, message: Any) -> None:
        calls = message if isinstance(message, list) else [message]
        self.messages.append([call["method"] for call in calls])
        replies: list[str] = []
        copies = 1
        for call in calls:
            try:
                result = await self._answer(call["method"], call["params"])
            except HangUp:
                await websocket._stream.aclose()
                return
            except Silence:
                continue
            except Refused as refused:
                data = {"status": refused.status.value, **refused.data}
                error = {"code": -32000, "message": refused.message, "data": data}
                replies.append(json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error}))
                continue
            if isinstance(result, Twice):
                copies, result = 2, result.result
            encoded = msgspec.json.encode(result).decode()
            replies.append(f'{{"jsonrpc":"2.0","id":{call["id"]},"result":{encoded}}}')
        if replies:
            for _ in range(copies):
                text = f"[{','.join(replies)}]" if isinstance(message, list) else replies[0]
                await websocket.send_message(text)

    async def _answer(self, method: str, params: dict[str, Any]) -> object:
        if method == "Hello" and "Hello" not in self.handlers:
            return HelloResult(
                engine="test", protocol="engine.v1", tenant="t", subject="s", scopes=[], limits=self.limits
            )
        self.seen.append((method, params))
        self._came.set()
        return await self.handlers[method](params)


@asynccontextmanager
async def scripted_engine(tls: ssl.SSLContext | None = None, **handlers: Handler) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(handlers, scheme="wss" if tls else "ws")
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, engine.connect, "127.0.0.1", 0, tls, max_message_size=8_000_000)
        server = await nursery.start(serve)
        engine.port = server.port
        yield engine
        nursery.cancel_scope.cancel()
