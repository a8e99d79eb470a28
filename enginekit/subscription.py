"""Being told what happens: `async with client.subscribe(["executions"]) as updates: async for update in updates`.

A subscription outlives its connection: after a loss it is made anew, and its topics begin with a snapshot again.
Whoever takes updates too slowly misses some; the next one says how many (`missed`), on top of those that the daemon
left out.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from enginekit.errors import ProtocolError, Unreachable
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import Notify, Subscribe, Unsubscribe

if TYPE_CHECKING:
    from enginekit.client import Client
    from enginekit.connection import Connection

BUFFERED: Final = 256
END_SECONDS: Final = 1.0

_notify = msgspec.json.Decoder(Notify)


class Updates:
    """The updates of one subscription, in the order they came. Iterating raises Refused where the daemon does not let
    us subscribe (any more)."""

    def __init__(self, client: Client, connection: Connection, topics: list[str]) -> None:
        self._client = client
        self._connection = connection
        self._topics = topics
        self._name = uuid.uuid4().hex
        self._send, self._receive = trio.open_memory_channel[Notify](BUFFERED)
        self._dropped: dict[str, int] = {}
        self._failure: Refused | ProtocolError | None = None

    def __aiter__(self) -> AsyncIterator[Notify]:
        return self

    async def __anext__(self) -> Notify:
        """The next update. Cancelling is safe."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._failure is not None:
                raise self._failure from None
            raise StopAsyncIteration from None

    async def run(self) -> None:
        """Keep subscribed, until cancelled or refused. For `Client.subscribe`."""
        try:
            with self._send:
                while True:
                    await self._connection.opened()
                    lost = self._connection.loss()
                    self._connection.listeners[self._name] = self._take
                    try:
                        await self._client.call(Subscribe(topics=self._topics, subscription=self._name))
                    except Unreachable:
                        continue
                    except Refused as refused:
                        # Subscribed already: the call was repeated by itself after its answer was lost.
                        if refused.status is not ErrorStatus.ALREADY_EXISTS:
                            raise
                    await lost.wait()
        except (Refused, ProtocolError) as failure:
            self._failure = failure
        except trio.ClosedResourceError:
            return  # the client is closed, and there is nothing more to tell
        finally:
            self._connection.listeners.pop(self._name, None)

    async def end(self) -> None:
        """Tell the daemon, if it is there. Bounded by END_SECONDS."""
        if not self._connection.is_open:
            return
        with trio.move_on_after(END_SECONDS, shield=True):
            try:
                await self._client.call(Unsubscribe(subscription=self._name), timeout_seconds=END_SECONDS)
            except (Refused, Unreachable, ProtocolError, trio.ClosedResourceError):
                return  # it has ended by itself

    def _take(self, params: msgspec.Raw) -> None:
        try:
            update = _notify.decode(params)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the daemon sent a notification that is not understood: {error}") from error
        dropped = self._dropped.pop(update.topic, 0)
        if dropped:
            update = msgspec.structs.replace(update, missed=update.missed + dropped)
        try:
            self._send.send_nowait(update)
        except trio.WouldBlock:
            self._dropped[update.topic] = dropped + 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # nobody listens any more
