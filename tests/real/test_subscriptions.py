"""Subscriptions against a real daemon: a snapshot, numbered updates, what is missed, and losses on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from enginekit.client import Client
from enginekit.local import open_local_client
from enginekit.messages import events as ev
from enginekit.messages.calls import Result
from enginekit.messages.status import ErrorStatus, ExecutionStatus, Refused
from enginekit.messages.subscriptions import (
    ExecutionsChanged,
    HistoryGrown,
    Notify,
    QueuesChanged,
    ServicesSeen,
    Subscribe,
    Unsubscribe,
)

WORK = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "activity:work", "End": True}}}
ECHO = {"StartAt": "E", "States": {"E": {"Type": "Task", "Resource": "echo", "End": True}}}


@pytest.fixture
def environ(real, request) -> dict[str, str]:
    """For a client of a tenant that only this test has."""
    return {"ENGINE_URL": real.url, "ENGINE_TOKEN": real.token(tenant=request.node.name[:60])}


@asynccontextmanager
async def connected(environ: dict[str, str]) -> AsyncIterator[Client]:
    async with open_local_client(environ) as client:
        yield client


def data(update: Notify, kind: type[Result]) -> Result:
    assert isinstance(update.data, msgspec.Raw)
    return msgspec.json.decode(update.data, type=kind)


async def following(updates, kind, wanted, *, numbers=None, topic=None):
    """The first update that has what is wanted; the numbers on the way have no gap."""
    with trio.fail_after(120):
        async for update in updates:
            if topic not in (None, update.topic):
                continue
            if numbers is not None:
                numbers.append(update.seq)
            seen = data(update, kind)
            if wanted(seen):
                return update, seen
    raise AssertionError("the subscription ended")


async def test_executions_are_told_as_they_start_and_close(environ) -> None:
    async with connected(environ) as client:
        before = await client.start(WORK, workflow_id="before")
        async with client.subscribe(["executions"]) as updates:
            numbers: list[int] = []
            first, seen = await following(updates, ExecutionsChanged, lambda seen: True, numbers=numbers)
            assert (first.snapshot, first.seq) == (True, 1)
            assert before.run_id in [each.run_id for each in seen.executions]
            started = await client.start(ECHO)

            def closed(seen):
                return any(
                    each.run_id == started.run_id and each.status is ExecutionStatus.SUCCEEDED
                    for each in seen.executions
                )

            update, _ = await following(updates, ExecutionsChanged, closed, numbers=numbers)
            assert not update.snapshot
            assert numbers == list(range(1, len(numbers) + 1))


async def test_queues_services_and_histories_have_topics(environ) -> None:
    async with connected(environ) as client:
        await client.start(WORK, workflow_id="told")
        topics = ["queues", "services", "history:told"]
        async with client.subscribe(topics) as updates:
            found: dict[str, Notify] = {}
            with trio.fail_after(120):
                async for update in updates:
                    found.setdefault(update.topic, update)
                    if len(found) == len(topics):
                        break
            assert all(update.snapshot for update in found.values())
            update = found["queues"]
            while not (waiting := [each for each in data(update, QueuesChanged).queues if each.depth]):
                # What has been started is on its way there yet.
                update, _ = await following(updates, QueuesChanged, lambda seen: True, topic="queues")
            assert [(each.queue, each.kind) for each in waiting] == [("work", "activity")]
            services = data(found["services"], ServicesSeen)
            assert {each.name for each in services.daemon.services} >= {"frontend", "history", "matching"}
            assert {each.service for each in services.rates} == {"frontend", "history", "matching", "worker", "timer"}
            history = data(found["history:told"], HistoryGrown)
            assert [ev.decode_event(bytes(each)).id for each in history.events] == [1, 2, 3]
            assert not history.closed
            await client.signal("told", "nothing")
            with trio.fail_after(120):
                async for update in updates:
                    if update.topic == "history:told":
                        grown = data(update, HistoryGrown)
                        break
            assert [type(ev.decode_event(bytes(each))).__name__ for each in grown.events] == ["SignalReceived"]


async def test_a_subscription_outlives_the_daemon(start_daemon) -> None:
    daemon = start_daemon()
    environ = {"ENGINE_DATA_DIR": str(daemon.data)}
    async with connected(environ) as client, client.subscribe(["executions"]) as updates:
        assert (await following(updates, ExecutionsChanged, lambda seen: True))[0].snapshot
        daemon.process.kill()
        daemon.process.wait()
        (daemon.data / "daemon.json").unlink()
        await trio.to_thread.run_sync(start_daemon)
        started = await client.start(ECHO)
        told, _ = await following(
            updates, ExecutionsChanged, lambda seen: started.run_id in [each.run_id for each in seen.executions]
        )
        assert told.seq <= 3


async def test_a_subscription_has_a_name_on_its_connection(environ) -> None:
    async with connected(environ) as client:
        await client.call(Subscribe(topics=["executions"], subscription="mine"))
        with pytest.raises(Refused) as refused:
            await client.call(Subscribe(topics=["executions"], subscription="mine"))
        assert refused.value.status is ErrorStatus.ALREADY_EXISTS
        await client.call(Unsubscribe(subscription="mine"))
        with pytest.raises(Refused) as refused:
            await client.call(Unsubscribe(subscription="mine"))
        assert refused.value.status is ErrorStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("topics", "scope", "status"),
    [
        (["services"], "read", "PERMISSION_DENIED"),
        (["executions"], "work", "PERMISSION_DENIED"),
        (["weather"], "read", "INVALID_ARGUMENT"),
        ([], "read", "INVALID_ARGUMENT"),
        (["history:a b"], "read", "INVALID_ARGUMENT"),
    ],
)
async def test_what_cannot_be_subscribed_to(real, topics, scope, status) -> None:
    async with real.connected(real.token(scope=scope)) as connection:
        error = await connection.error("Subscribe", topics=topics)
        assert error["data"]["status"] == status


async def test_a_topic_ends_with_the_reason_where_there_is_nothing_to_tell(environ) -> None:
    async with connected(environ) as client, client.subscribe(["history:nobody"]) as updates:
        with trio.fail_after(120):
            update = await anext(updates)
        assert update.ended is not None
        assert "NOT_FOUND" in update.ended
