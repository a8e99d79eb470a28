"""One connection's calls: frames in, answers out, a bounded number of them under way at once.

Receivers are tasks that each take a frame, perform its calls and put the answer into the outbox. One that takes a
frame leaves another one waiting for the next, so calls run beside one another, and a client that sends one call at a
time is served by the same two tasks for ever: no task is made for a call that needs none.
"""

from __future__ import annotations

from typing import Final

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from daemon.api import jsonrpc
from daemon.api.auth import Principal, Verifier
from daemon.api.gateway import Gateway, tokens_of
from daemon.api.outbox import Outbox, text_frame
from daemon.api.params import Shape
from daemon.api.subscriptions import Subscriptions
from daemon.settings import FrontendSettings
from enginekit.messages import calls
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import Subscribe, Unsubscribe

IDLE_RECEIVERS: Final = 4
"""So many wait for frames; those above it end."""
BUSY_RETRY_SECONDS: Final = 0.1
RENEW: Final = calls.Authenticate.__name__

_encoder = msgspec.json.Encoder()
_renewal = Shape(calls.Authenticate)
_SUBSCRIBING: Final = {each.__name__: Shape(each) for each in (Subscribe, Unsubscribe)}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A response, encoded, and the tokens of the tasks it hands out."""

    response: bytes
    tokens: tuple[str, ...] = ()


class Session:
    """The calls of one connection, made by `principal` until it is renewed."""

    def __init__(
        self,
        connection: WebSocketConnection,
        outbox: Outbox,
        principal: Principal,
        gateway: Gateway,
        verifier: Verifier,
        settings: FrontendSettings,
    ) -> None:
        self.connection = connection
        self.principal = principal
        self.ending = 1001, "the daemon is shutting down"
        """The code and the reason to close with, where it is this side that ends."""
        self._outbox = outbox
        self._gateway = gateway
        self._verifier = verifier
        self._settings = settings
        self._calls = 0
        self._idle = 0
        self._scope = trio.CancelScope()
        self._subscriptions: Subscriptions | None = None

    async def run(self) -> None:
        """Serve until the connection ends or `go_away`. Calls then still under way are cancelled, their answers
        dropped."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._subscriptions = Subscriptions(self._gateway, self._outbox, lambda: self.principal, nursery)
                await self._receive(nursery)

    def go_away(self) -> None:
        """End the session. The connection is the caller's to close."""
        self._scope.cancel()

    async def _receive(self, nursery: trio.Nursery) -> None:
        while True:
            self._idle += 1
            try:
                frame = await self.connection.get_message()
            except ConnectionClosed:
                self._scope.cancel()
                return
            finally:
                self._idle -= 1
            if not self._idle:
                nursery.start_soon(self._receive, nursery)
            await self._answer_frame(frame if isinstance(frame, bytes) else frame.encode())
            if self._idle >= IDLE_RECEIVERS:
                return

    async def _answer_frame(self, frame: bytes) -> None:
        if len(frame) > self._settings.frame_bytes:
            # The library counts characters; these were few enough, but their bytes are not.
            self.ending = 1009, f"Exceeded maximum message size: {self._settings.frame_bytes} bytes"
            self._scope.cancel()
            return
        parsed = jsonrpc.parse(frame, self._settings.batch_calls)
        if isinstance(parsed, jsonrpc.Request):
            answer = await self._answer(parsed)
        elif isinstance(parsed, jsonrpc.Malformed):
            answer = Answer(jsonrpc.encode_malformed(parsed))
        else:
            answer = await self._answer_batch(parsed)
        if answer is not None:
            self._outbox.put(text_frame(answer.response), answer.tokens, at_once=not self._calls)

    async def _answer(self, request: jsonrpc.Request) -> Answer | None:
        if self._calls >= self._settings.in_flight_calls:
            return self._busy(request)
        self._calls += 1
        try:
            answer = await self._perform(request)
            if answer is not None:
                await self._room(answer)
            return answer
        finally:
            self._calls -= 1

    async def _room(self, answer: Answer) -> None:
        """Until the outbox takes it. The call counts as under way meanwhile, so that no more than `in_flight_calls`
        answers can wait for a client that asks and does not read."""
        if self._outbox.has_room(len(answer.response)):
            return
        try:
            await self._outbox.room(len(answer.response))
        except BaseException:
            self._outbox.lost.extend(answer.tokens)
            raise

    async def _answer_batch(self, batch: list[jsonrpc.Request | jsonrpc.Malformed]) -> Answer | None:
        """All calls of a batch beside one another; the answers stand in the order of the calls."""
        # A batch that is longer than the bound goes through when nothing else is under way.
        room = not self._calls or self._calls + len(batch) <= self._settings.in_flight_calls
        answers: list[Answer | None] = [None] * len(batch)
        taken = 0

        async def perform(index: int, request: jsonrpc.Request) -> None:
            nonlocal taken
            answer = await self._perform(request)
            if answer is not None:
                taken += len(answer.response)
                if taken > self._settings.outbox_bytes:
                    taken -= len(answer.response)
                    answer = await self._too_long(request, answer)
            answers[index] = answer

        self._calls += len(batch)
        try:
            async with trio.open_nursery() as nursery:
                for index, request in enumerate(batch):
                    if isinstance(request, jsonrpc.Malformed):
                        answers[index] = Answer(jsonrpc.encode_malformed(request))
                    elif room:
                        nursery.start_soon(perform, index, request)
                    else:
                        answers[index] = self._busy(request)
            given = [answer for answer in answers if answer is not None]
            if not given:
                return None
            response = jsonrpc.encode_batch([answer.response for answer in given])
            together = Answer(response, tuple(token for answer in given for token in answer.tokens))
            answers.clear()
            await self._room(together)
            return together
        except BaseException:
            # Of a batch that is cut short nothing is sent, also not the tasks its polls have got.
            self._outbox.lost.extend(token for answer in answers if answer is not None for token in answer.tokens)
            raise
        finally:
            self._calls -= len(batch)

    async def _perform(self, request: jsonrpc.Request) -> Answer | None:
        """The answer to one call; None for a notification."""
        try:
            if request.method == RENEW:
                result: calls.Result = await self._renew(request)
            elif request.method in _SUBSCRIBING:
                result = self._subscribe(request)
            else:
                result = await self._gateway.perform(self.principal, request.method, request.params)
        except Refused as refused:
            return None if request.id is None else Answer(jsonrpc.encode_refusal(request.id, refused))
        tokens = tokens_of(result)
        if request.id is None:
            await self._gateway.give_back(self.principal, tokens, "polled for by a notification, which has no answer")
            return None
        return Answer(jsonrpc.encode_result(request.id, _encoder.encode(result)), tokens)

    def _subscribe(self, request: jsonrpc.Request) -> calls.Result:
        subscriptions = self._subscriptions
        assert subscriptions is not None
        self._gateway.check(self.principal, request.method)
        call = _SUBSCRIBING[request.method].decode(request.params, 0)
        if isinstance(call, Subscribe):
            return subscriptions.subscribe(call)
        assert isinstance(call, Unsubscribe)
        return subscriptions.unsubscribe(call)

    async def _renew(self, request: jsonrpc.Request) -> calls.HelloResult:
        call = _renewal.decode(request.params, 0)
        assert isinstance(call, calls.Authenticate)
        principal = await self._verifier.verify(call.token)
        if principal.tenant != self.principal.tenant:
            raise Refused(
                ErrorStatus.PERMISSION_DENIED,
                "the token is another tenant's: a connection stays with the tenant it was opened for",
            )
        self.principal = principal
        return self._gateway.hello(principal)

    def _busy(self, request: jsonrpc.Request) -> Answer | None:
        if request.id is None:
            return None
        limit = self._settings.in_flight_calls
        refused = Refused(
            ErrorStatus.RESOURCE_EXHAUSTED,
            f"{limit} calls of this connection are under way, and no more are taken until one is answered",
            {"retry_after_seconds": BUSY_RETRY_SECONDS},
        )
        return Answer(jsonrpc.encode_refusal(request.id, refused))

    async def _too_long(self, request: jsonrpc.Request, answer: Answer) -> Answer | None:
        await self._gateway.give_back(self.principal, answer.tokens, "the batch's answer grew too long")
        if request.id is None:
            return None
        refused = Refused(
            ErrorStatus.RESOURCE_EXHAUSTED,
            "the answers to this batch are too long together: send this call again in a smaller one",
            {"retry_after_seconds": BUSY_RETRY_SECONDS},
        )
        return Answer(jsonrpc.encode_refusal(request.id, refused))
