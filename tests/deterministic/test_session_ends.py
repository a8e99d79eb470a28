"""The store is lost, or lets nobody own it: nobody waits in vain, and nothing is believed that may be stale."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from msgspec import Raw

from daemon.settings import HistorySettings, Settings
from daemon.stores.interface import StoreUnavailable
from enginekit.messages import calls
from enginekit.messages.json import encode
from enginekit.messages.status import ErrorStatus, Refused

PASS = {"StartAt": "L", "States": {"L": {"Type": "Pass", "End": True}}}
WAIT = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1000, "End": True}}}
FORGET = Settings(history=HistorySettings(cache_bytes=0))


def passing(value) -> Raw:
    return encode({"StartAt": "L", "States": {"L": {"Type": "Pass", "Result": value, "End": True}}})


async def lose_the_store(daemon):
    daemon.memory.fail_next_commit(after_write=False)
    with pytest.raises(Refused):
        await daemon.start(PASS)


def test_a_version_registered_by_a_commit_of_unknown_outcome_is_the_newest(simulate):
    async def scenario(daemon):
        first = calls.RegisterWorkflow(name="w", definition=passing(1))
        await daemon.call(first, calls.RegisterWorkflowResult)
        start = calls.StartWorkflow(workflow="w")
        assert (await daemon.closed(await daemon.call(start, calls.StartWorkflowResult))).version == 1
        daemon.memory.fail_next_commit(after_write=True)
        second = calls.RegisterWorkflow(name="w", definition=passing(2))
        with pytest.raises(Refused):
            await daemon.call(second, calls.RegisterWorkflowResult)
        await trio.sleep(1)
        assert (await daemon.call(second, calls.RegisterWorkflowResult)).version == 2
        assert (await daemon.closed(await daemon.call(start, calls.StartWorkflowResult))).version == 2

    simulate(scenario)


def test_a_wait_whose_run_is_being_looked_for_is_refused_when_the_session_ends(simulate):
    async def scenario(daemon):
        await daemon.call(calls.StartWorkflow(definition=encode(WAIT), workflow_id="x"), calls.StartWorkflowResult)
        await trio.sleep(5)
        real = daemon.memory.latest_run

        async def slowly(*arguments):
            await trio.sleep(0.2)
            return await real(*arguments)

        daemon.memory.latest_run = slowly

        async def wait():
            with pytest.raises(Refused) as refused, trio.fail_after(60):
                await daemon.call(calls.WaitWorkflow(workflow_id="x", wait_seconds=900), calls.DescribeWorkflowResult)
            assert refused.value.status is ErrorStatus.UNAVAILABLE

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.1)
            await lose_the_store(daemon)

    simulate(scenario, settings=FORGET)


def test_a_read_that_the_store_fails_is_refused_at_once(simulate):
    async def scenario(daemon):
        started = await daemon.start(WAIT)
        await trio.sleep(5)
        real = daemon.memory.events

        async def failing(*arguments):
            daemon.memory.events = real
            raise StoreUnavailable("gone")

        daemon.memory.events = failing
        read = calls.GetHistory(workflow_id=started.workflow_id, run_id=started.run_id)
        with pytest.raises(Refused) as refused, trio.fail_after(5):
            await daemon.call(read, calls.GetHistoryResult)
        assert refused.value.status is ErrorStatus.UNAVAILABLE

    simulate(scenario)


def test_run_ids_grow_though_the_clock_is_set_back_between_sessions(simulate):
    async def scenario(daemon):
        start = calls.StartWorkflow(definition=encode(PASS), workflow_id="x")
        await trio.sleep(100)
        first = await daemon.call(start, calls.StartWorkflowResult)
        await daemon.closed(first)
        daemon._clock._start -= 50_000
        await lose_the_store(daemon)
        await trio.sleep(1)
        second = await daemon.call(start, calls.StartWorkflowResult)
        assert second.run_id > first.run_id
        view = await daemon.call(calls.DescribeWorkflow(workflow_id="x"), calls.DescribeWorkflowResult)
        assert view.run_id == second.run_id

    simulate(scenario)


def test_a_store_that_cannot_be_owned_is_asked_less_and_less_often(simulate):
    async def scenario(daemon):
        asked = []
        real = daemon.memory.take_shards

        async def failing():
            asked.append(trio.current_time())
            if len(asked) == 10:
                daemon.memory.take_shards = real
            await trio.lowlevel.checkpoint()
            raise StoreUnavailable("disk full")

        daemon.memory.take_shards = failing
        await lose_the_store(daemon)
        await trio.sleep(60)
        pauses = [round(later - earlier, 6) for earlier, later in pairwise(asked)]
        assert pauses == sorted(pauses)
        assert sum(pauses) > 10
        await daemon.closed(await daemon.start(PASS))

    simulate(scenario)


def test_an_owner_that_was_fenced_does_not_take_the_shards_straight_back(simulate):
    async def scenario(daemon):
        taken = []
        real = daemon.memory.take_shards

        async def counting():
            taken.append(trio.current_time())
            return await real()

        await daemon.memory.take_shards()  # as another daemon would
        daemon.memory.take_shards = counting
        with pytest.raises(Refused):
            await daemon.start(PASS)
        await trio.sleep(1)
        assert not taken
        await trio.sleep(15)
        assert len(taken) == 1

    simulate(scenario)


def test_a_definition_that_was_only_read_back_is_checked_when_it_is_registered(simulate):
    async def scenario(daemon):
        unknown = {"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "gone", "End": True}}}
        definitions = daemon._condition.history._definitions
        installed = definitions._node_types
        # As it was when the package with this node type was still installed.
        definitions._node_types = installed | {"gone"}
        call = calls.RegisterWorkflow(name="w", definition=encode(unknown))
        await daemon.call(call, calls.RegisterWorkflowResult)
        definitions._node_types = installed
        definitions._checked.clear()
        await daemon.call(calls.StartWorkflow(workflow="w"), calls.StartWorkflowResult)
        with pytest.raises(Refused, match='no node type "gone"'):
            await daemon.call(
                calls.RegisterWorkflow(name="x", definition=encode(unknown)), calls.RegisterWorkflowResult
            )

    simulate(scenario)
