"""Subscriptions of one connection: each topic is one task that asks the services and tells the client.

A topic asks only when the outbox has room for what it will say, so a client that reads slowly makes its own topics
slow, and nothing else: what changes meanwhile is coalesced where it is known. Nothing here keeps a backlog: what has
found no room after all is forgotten and asked for again, one topic of a connection at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import structlog
import trio
from msgspec import Raw

from daemon.api.outbox import Outbox, text_frame
from daemon.logs import about
from enginekit.messages import calls
from enginekit.messages.links import RunRef
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.messages.subscriptions import (
    EXECUTIONS,
    HISTORY,
    QUEUES,
    SERVICES,
    ExecutionsChanged,
    HistoryGrown,
    Notify,
    QueuesChanged,
    ServicesSeen,
    Subscribe,
    SubscribeResult,
    Unsubscribe,
    WatchExecutions,
    WatchExecutionsResult,
)

if TYPE_CHECKING:
    from daemon.api.auth import Principal
    from daemon.api.gateway import Gateway

log = structlog.get_logger(__name__)

SUBSCRIPTIONS: Final = 32
"""Of one connection."""
PAUSE_SECONDS: Final = 0.1
"""Between two updates of one topic."""
QUEUE_SECONDS: Final = 0.5
SERVICE_SECONDS: Final = 1.0
WAIT_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 0.5
SNAPSHOT_EXECUTIONS: Final = 100
HISTORY_EVENTS: Final = 200
ROOM_BYTES: Final = 64 * 1024
"""Notifications are sent while less than this waits on the connection: answers are not to wait behind them."""

_PASSING: Final = frozenset({ErrorStatus.UNAVAILABLE, ErrorStatus.INTERNAL, ErrorStatus.RESOURCE_EXHAUSTED})
"""After these a topic begins anew; after others it has ended."""

R = TypeVar("R", bound=calls.Result)

_encoder = msgspec.json.Encoder()


class _Topic:
    """One topic of one subscription."""

    def __init__(self, subscription: str, topic: str, outbox: Outbox) -> None:
        self.topic = topic
        self._subscription = subscription
        self._outbox = outbox
        self._seq = 0
        self.run_id: str | None = None
        """Of a history: whose it is, once that is known."""
        self.missed = 0
        """Changes that are not told, and of which the next notification tells."""

    async def room(self) -> None:
        """Until the client has read what it was told before. What is told before the next await finds room."""
        while not self._has_room():
            await self._outbox.drained()

    def _has_room(self) -> bool:
        return self._outbox.waiting_bytes < ROOM_BYTES

    def tell(self, data: calls.Result | None, *, snapshot: bool = False, ended: str | None = None) -> bool:
        """False: others have taken the room, and nothing was told."""
        if not self._has_room():
            return False
        self._seq += 1
        missed, self.missed = self.missed, 0
        notify = Notify(
            subscription=self._subscription,
            topic=self.topic,
            seq=self._seq,
            snapshot=snapshot,
            missed=0 if snapshot else missed,
            data=msgspec.UNSET if data is None else Raw(_encoder.encode(data)),
            ended=ended,
        )
        params = _encoder.encode(notify)
        self._outbox.put(text_frame(b'{"jsonrpc":"2.0","method":"Notify","params":' + params + b"}"))
        return True


class Subscriptions:
    """Of one connection. `principal` is whoever the connection belongs to, as its token was last renewed."""

    def __init__(
        self, gateway: Gateway, outbox: Outbox, principal: Callable[[], Principal], nursery: trio.Nursery
    ) -> None:
        self._gateway = gateway
        self._outbox = outbox
        self._principal = principal
        self._nursery = nursery
        self._scopes: dict[str, trio.CancelScope] = {}
        self._turn = trio.Lock()

    def subscribe(self, call: Subscribe) -> SubscribeResult:
        """Raises Refused."""
        name = call.subscription or secrets.token_hex(8)
        if name in self._scopes:
            raise Refused(ErrorStatus.ALREADY_EXISTS, f'subscription: "{name}" is there already on this connection')
        if len(self._scopes) >= SUBSCRIPTIONS:
            raise Refused(
                ErrorStatus.RESOURCE_EXHAUSTED,
                f"{SUBSCRIPTIONS} subscriptions are open on this connection; end one with Unsubscribe",
                {"retry_after_seconds": 1.0},
            )
        for topic in call.topics:
            self._gateway.check(self._principal(), _method_of(topic))
        self._scopes[name] = scope = trio.CancelScope()
        self._nursery.start_soon(self._run, name, scope, list(dict.fromkeys(call.topics)))
        return SubscribeResult(subscription=name)

    def unsubscribe(self, call: Unsubscribe) -> calls.Acknowledged:
        """Raises Refused."""
        scope = self._scopes.pop(call.subscription, None)
        if scope is None:
            raise Refused(ErrorStatus.NOT_FOUND, f'no subscription "{call.subscription}" on this connection')
        scope.cancel()
        return calls.Acknowledged()

    async def _run(self, name: str, scope: trio.CancelScope, topics: list[str]) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for topic in topics:
                    nursery.start_soon(self._follow, _Topic(name, topic, self._outbox))
        if self._scopes.get(name) is scope:
            del self._scopes[name]

    async def _follow(self, topic: _Topic) -> None:
        """Tell of the topic for as long as it can be told, from a snapshot on after every loss."""
        follow = self._follower(topic.topic)
        while True:
            try:
                await follow(topic)
                return
            except Refused as refused:
                if refused.status not in _PASSING:
                    await topic.room()
                    topic.tell(None, ended=str(refused))
                    return
                log.info("frontend.subscription_interrupted", topic=topic.topic, why=str(refused), **self._about(topic))
            await trio.sleep(RETRY_SECONDS)

    def _about(self, topic: _Topic) -> dict[str, str | int]:
        """For the log: whose it is. A history that was never read has no run yet."""
        tenant = self._principal().tenant
        if not topic.topic.startswith(HISTORY):
            return {"tenant": tenant}
        return about(RunRef(tenant, topic.topic.removeprefix(HISTORY), topic.run_id or ""))

    def _follower(self, topic: str) -> Callable[[_Topic], Awaitable[None]]:
        if topic == EXECUTIONS:
            return self._executions
        if topic == QUEUES:
            return self._queues
        if topic == SERVICES:
            return self._services
        return self._history

    async def _ask(self, call: calls.Call, result: type[R]) -> R:
        found = await self._gateway.perform(self._principal(), type(call).__name__, _encoder.encode(call))
        assert isinstance(found, result)
        return found

    async def _executions(self, topic: _Topic) -> None:
        begun = await self._watch(None, [], 0.0)
        listed = await self._ask(calls.ListWorkflows(page_size=SNAPSHOT_EXECUTIONS), calls.ListWorkflowsResult)
        await topic.room()
        topic.tell(ExecutionsChanged(executions=listed.executions), snapshot=True)
        after = begun.seq

        async def look(wait: float) -> bool:
            nonlocal after
            await topic.room()
            found = await self._watch(begun.watch, after, wait)
            if found.watch != begun.watch:
                raise Refused(ErrorStatus.UNAVAILABLE, "History has started again: what changed meanwhile is not known")
            before, topic.missed = topic.missed, topic.missed + found.missed
            if found.executions and not topic.tell(ExecutionsChanged(executions=found.executions)):
                topic.missed = before
                return False
            after = found.seq
            return True

        while True:
            if not await look(WAIT_SECONDS):
                await self._in_turn(look)
            await trio.sleep(PAUSE_SECONDS)

    async def _in_turn(self, look: Callable[[float], Awaitable[bool]]) -> None:
        """Look without waiting until it is told, while no other topic of the connection does so."""
        async with self._turn:
            while not await look(0.0):
                pass

    async def _watch(self, watch: str | None, after: list[int], wait: float) -> WatchExecutionsResult:
        principal = self._principal()
        self._gateway.check(principal, "ListWorkflows")
        return await self._gateway.watch(principal, WatchExecutions(watch=watch, after=after, wait_seconds=wait))

    async def _queues(self, topic: _Topic) -> None:
        told: dict[tuple[str, str], calls.QueueView] = {}
        snapshot = True
        while True:
            await topic.room()
            listed = (await self._ask(calls.ListQueues(), calls.ListQueuesResult)).queues
            await topic.room()
            found = {(queue.kind, queue.queue): queue for queue in listed}
            changed = [queue for key, queue in found.items() if told.get(key) != queue]
            gone = [key for key in told if key not in found]
            if snapshot or changed or gone:
                topic.tell(QueuesChanged(queues=changed, gone=gone), snapshot=snapshot)
            told, snapshot = found, False
            await trio.sleep(QUEUE_SECONDS)

    async def _services(self, topic: _Topic) -> None:
        rates = self._gateway.meter()
        snapshot = True
        while True:
            await topic.room()
            described = await self._ask(calls.DescribeDaemon(), calls.DescribeDaemonResult)
            await topic.room()
            topic.tell(ServicesSeen(daemon=described, rates=rates()), snapshot=snapshot)
            snapshot = False
            await trio.sleep(SERVICE_SECONDS)

    async def _history(self, topic: _Topic) -> None:
        workflow_id = topic.topic.removeprefix(HISTORY)
        run_id: str | None = None
        after, snapshot, closed = 0, True, False

        async def look(wait: float) -> bool:
            nonlocal run_id, after, snapshot, closed
            await topic.room()
            call = calls.GetHistory(
                workflow_id=workflow_id, run_id=run_id, after_id=after, limit=HISTORY_EVENTS, wait_seconds=wait
            )
            page = await self._ask(call, calls.GetHistoryResult)
            if page.events or page.closed or snapshot:
                grown = HistoryGrown(run_id=page.run_id, events=page.events, closed=page.closed)
                if not topic.tell(grown, snapshot=snapshot):
                    return False
                snapshot = False
            run_id, after, closed = page.run_id, page.next_after_id, page.closed
            topic.run_id = run_id
            return True

        await self._in_turn(look)
        while not closed:
            await trio.sleep(PAUSE_SECONDS)
            if not await look(WAIT_SECONDS):
                await self._in_turn(look)


def _method_of(topic: str) -> str:
    """The method that tells the same when it is asked: whoever may call that may subscribe."""
    if topic.startswith(HISTORY):
        return "GetHistory"
    return {EXECUTIONS: "ListWorkflows", QUEUES: "ListQueues", SERVICES: "DescribeDaemon"}[topic]
